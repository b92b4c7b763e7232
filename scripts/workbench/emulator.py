# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: which one emulates an architecture, and fetching a newer one where that is wanted.

A machine, or an architecture, says which QEMU it needs at least. Where the system's is
older, that of its backports is unpacked under build/, and used for those machines only.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Sequence

from workbench import packages, paths, process
from workbench.machine import Arch, Machine
from workbench.status import CannotTell

# What is fetched: the package that has the program, and those of its firmware
_PACKAGES = {
    "qemu-system-aarch64": ("qemu-system-arm", "qemu-system-data"),
    "qemu-system-riscv64": ("qemu-system-riscv", "qemu-system-data", "opensbi"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-data", "seabios"),
}


def _newer(program: str) -> Path:
    """Return where a program is unpacked, if it is."""
    return paths.BUILD / f"newer-{program}"


def command(program: str, major: int = 0) -> list[str]:
    """Return how a qemu-system-ARCH is called. major: the version that it needs at least."""
    own = _newer(program)
    if not major or not own.exists() or _major(_version([program])) >= major:
        return [program]
    words = [str(own / "usr/bin" / program)]
    # With QEMU 10 the SeaBIOS of Debian 12 waits for an AHCI disk for ever
    for directory in ("qemu", "seabios"):
        words += ["-L", str(own / "usr/share" / directory)]
    return words


def version(program: str, major: int = 0) -> str:
    """Return the line that tells which QEMU that is. major: as for command()."""
    return _version(command(program, major))


def _version(words: Sequence[str]) -> str:
    return process.output([*words, "--version"]).splitlines()[0]


def _major(said: str) -> int:
    """Return the first number of the version in what QEMU says of itself, 0 if there is none."""
    found = re.search(r"version (\d+)", said)
    return int(found[1]) if found else 0


def check_events(machine: Machine) -> None:
    """Raise CannotTell if QEMU has no event of those that are to be counted."""
    if not machine.count or machine.count == ("kernel",):
        return
    program = machine.arch.qemu[0]
    known = process.output([*command(program, machine.emulator), "-trace", "help"]).split()
    for event in machine.count:
        if not fnmatch.filter(known, event):
            raise CannotTell(f"machine '{machine.name}': {program} has no event '{event}'")


def needs(arch: Arch) -> tuple[packages.Need, ...]:
    """Return the packages that emulate an architecture."""
    return packages.qemu(arch.qemu[0]) if arch.qemu else ()


def _is_unpacked(program: str, major: int) -> bool:
    """Return whether the QEMU of the backports is there, and runs."""
    try:
        return _major(_version([str(_newer(program) / "usr/bin" / program)])) >= major
    except (OSError, CannotTell):
        return False


def prepare(program: str, major: int, log: Path) -> None:
    """Have a QEMU of this version at least; the system's is there.

    CannotTell if there is none in the backports of this system.
    """
    if _major(_version([program])) >= major or _is_unpacked(program, major):
        return
    if program not in _PACKAGES:
        raise CannotTell(f"{program} {major} is needed, and here is {version(program)}")
    new = _newer(f"{program}.new")
    paths.remove(new)
    archive = packages.Archive(log, [f"{packages.release()}-backports"])
    for deb in archive.download(_PACKAGES[program], new / "deb"):
        packages.extract(deb, new)
    paths.remove(new / "deb")
    found = _version([str(new / "usr/bin" / program)])
    if _major(found) < major:
        paths.remove(new)
        raise CannotTell(f"{program} {major} is needed; the backports have {found}")
    paths.remove(_newer(program))
    new.rename(_newer(program))
