# SPDX-License-Identifier: GPL-2.0-only
"""scripts/measures: what scripts/bench measures, each line checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench import machine, paths
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "measures"
SETS = ("full", "quick")


@dataclass(frozen=True)
class Measure:
    """A row: machines are booted in rounds, and measure what the words say.

    machines: one, or two that are compared with each other as well. cpus: of the guest.
    devices: that are added to it. words: see scripts/guest/bench.c.
    """

    set: str
    rounds: int
    machines: tuple[str, ...]
    strict: str
    cpus: int
    devices: int
    words: tuple[str, ...]


def read(file: Path = FILE) -> list[Measure]:
    """Return all rows."""
    known = machine.names()
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        where = f"{file}:{number}"
        if len(words) < 6 or not all(words[place].isdigit() for place in (1, 4, 5)):
            raise CannotTell(f"{where}: must be SET ROUNDS MACHINES STRICT CPUS DEVICES WORDS")
        names = tuple(words[2].split(","))
        must_be_one_of(f"{where}:", words[0], SETS)
        must_be_one_of(f"{where}:", words[3], ("0", "1"))
        for name in names:
            must_be_one_of(f"{where}:", name, known)
        counts = [int(words[place]) for place in (1, 4, 5)]
        found.append(
            Measure(
                words[0], counts[0], names, words[3], counts[1], counts[2], tuple(words[6:])
            )
        )
    return found
