# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that somebody else has built: a file, or of a package of Debian's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from workbench import packages, paths, process, progress
from workbench.status import CannotTell

_DEBIAN = re.compile(r"debian:(\d+\.\d+)$")


def check(name: str) -> None:
    """Raise CannotTell if a name is neither a file nor "debian:X.Y"."""
    if not _DEBIAN.match(name) and not Path(name).is_file():
        raise CannotTell(f"image '{name}': must be a file, or debian:X.Y as in debian:6.12")


def fetch(name: str, log: Path, to: Path) -> Path:
    """Have the kernel of this name as a file; return it."""
    match = _DEBIAN.match(name)
    if not match:
        shutil.copyfile(name, to)
        return to
    with paths.locked(paths.BUILD / "image"):
        found = _fetch_debian(match[1], log)
        progress.say(f"{name} is {found.parent.name.replace('_', ' ')}")
        shutil.copyfile(found, to)
    return to


def _fetch_debian(version: str, log: Path) -> Path:
    number = re.escape(version)
    pattern = rf"^linux-image-{number}([.][0-9]+)*(-[0-9]+)?([+]deb[0-9]+)?-amd64$"
    return _unpack(*packages.find(pattern, log, packages.anywhere()))


def _unpack(archive: packages.Archive, name: str) -> Path:
    directory = paths.BUILD / "image" / name
    found = sorted(directory.glob("vmlinuz*"))
    if found:
        return found[0]
    new = paths.BUILD / "image" / f"{name}.new"
    paths.remove(new)
    deb = archive.download([name], new / "deb")[0]
    packages.extract(deb, new / "files")
    kernels = sorted((new / "files/boot").glob("vmlinuz-*"))
    if not kernels:
        raise process.Failed(f"{deb} has no vmlinuz", 1)
    kernels[0].rename(new / kernels[0].name)
    paths.remove(new / "deb")
    paths.remove(new / "files")
    new.rename(directory)
    return directory / kernels[0].name
