# SPDX-License-Identifier: GPL-2.0-only
"""scripts/measures: what scripts/bench measures, each line checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from workbench import loads, machine, paths
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "measures"
CALLS, MEMORY, LOAD = KINDS = ("calls", "memory", "load")

_WORD = re.compile(r"choose|map=[1-9]\d*,(single|sg)")


@dataclass(frozen=True)
class Measure:
    """A row: what is measured of a machine, see scripts/measures."""

    kind: str
    machine: str
    words: tuple[str, ...]

    def numbers(self, place: int) -> list[int]:
        """Return the numbers of a word, divided by commas."""
        return [int(number) for number in self.words[place].split(",")]


def read(file: Path = FILE) -> list[Measure]:
    """Return all rows."""
    found: list[Measure] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        where = f"{file}:{number}"
        if len(words) < 3:
            raise CannotTell(f"{where}: must be {' or '.join(KINDS)}, MACHINE and words")
        must_be_one_of(f"{where}:", words[0], KINDS)
        must_be_one_of(f"{where}:", words[1], machine.names())
        row = Measure(words[0], words[1], tuple(words[2:]))
        _check(row, where)
        kin = [(other.kind, other.machine) for other in found if other.kind != MEMORY]
        if (row.kind, row.machine) in kin:
            raise CannotTell(f"{where}: '{row.kind} {row.machine}': is in another line, too")
        found.append(row)
    return found


def _check(row: Measure, where: str) -> None:
    if row.kind == LOAD:
        for word in row.words:
            must_be_one_of(f"{where}:", word, [load.name for load in loads.read()])
    if row.kind == CALLS:
        for word in row.words:
            if not _WORD.fullmatch(word):
                raise CannotTell(f"{where}: '{word}': must be choose, or as map=16,sg is")
    if row.kind == MEMORY:
        are_numbers = all(re.fullmatch(r"\d+(,\d+)*", word) for word in row.words)
        if len(row.words) != 2 or not are_numbers:
            raise CannotTell(f"{where}: must be memory MACHINE CPUS PORTS, as in 1,4 0,60")
