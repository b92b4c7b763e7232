# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: which one emulates an architecture, and fetching a newer one for RISC-V.

The RISC-V IOMMU needs QEMU 10. Where the system's is older, that of its backports is
unpacked under build/, and used for those machines only.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from pathlib import Path

from workbench import packages, paths, process
from workbench.machine import Arch, Machine
from workbench.status import CannotTell

_NEWER = paths.BUILD / "qemu"
_WANTS = {"qemu-system-riscv64": 10}


def command(program: str) -> list[str]:
    """Return how a qemu-system-ARCH is called."""
    own = _NEWER / "usr/bin" / program
    if own.exists():
        return [str(own), "-L", str(_NEWER / "usr/share/qemu")]
    return [program]


def version(program: str) -> str:
    """Return the line that tells which QEMU that is."""
    return process.output([*command(program), "--version"]).splitlines()[0]


def check_events(machine: Machine) -> None:
    """Raise CannotTell if QEMU has no event of those that are to be counted."""
    if not machine.count or machine.count == ("kernel",):
        return
    program = machine.arch.qemu[0]
    known = process.output([*command(program), "-trace", "help"]).split()
    for event in machine.count:
        if not fnmatch.filter(known, event):
            raise CannotTell(f"machine '{machine.name}': {program} has no event '{event}'")


def needs(arch: Arch) -> tuple[packages.Need, ...]:
    """Return the packages that emulate an architecture."""
    return packages.qemu(arch.qemu[0]) if arch.qemu else ()


def prepare(arch: Arch, log: Path) -> None:
    """Have a QEMU that can do what the machines of an architecture are made of."""
    program = arch.qemu[0] if arch.qemu else ""
    if program not in _WANTS or command(program) != [program]:
        return
    found = re.search(r"version (\d+)", version(program))
    if shutil.which(program) and found and int(found[1]) >= _WANTS[program]:
        return
    new = paths.BUILD / "qemu.new"
    paths.remove(new)
    archive = packages.Archive(log, [f"{packages.release()}-backports"])
    names = ["qemu-system-riscv", "qemu-system-data", "opensbi"]
    for deb in archive.download(names, new / "deb"):
        packages.extract(deb, new)
    paths.remove(new / "deb")
    process.output([new / "usr/bin" / program, "--version"])
    new.rename(_NEWER)
