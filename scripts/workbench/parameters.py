# SPDX-License-Identifier: GPL-2.0-only
"""scripts/parameters: kernel parameters that amount to a setting, each line checked."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from workbench import machine, paths
from workbench.policy import Setting
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "parameters"

Odd = tuple[Setting, tuple[str, ...]]  # what is then expected, and the parameters


def read(file: Path = FILE) -> Mapping[str, list[Odd]]:
    """Return the parameters for each machine that has some."""
    known = machine.names()
    found: dict[str, list[Odd]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 4:
            raise CannotTell(
                f"{file}:{number}: must be MACHINES STRICT PASSTHROUGH PARAMETERS"
            )
        must_be_one_of(f"{file}:{number}:", words[1], ("unset", "0", "1", "off"))
        must_be_one_of(f"{file}:{number}:", words[2], ("unset", "0", "1"))
        for name in words[0].split(","):
            must_be_one_of(f"{file}:{number}:", name, known)
            odd = (Setting(words[1], words[2]), tuple(words[3:]))
            found.setdefault(name, []).append(odd)
    return found
