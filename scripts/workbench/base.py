# SPDX-License-Identifier: GPL-2.0-only
"""The bases: where a kernel's source comes from, and having it under build/."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from workbench import packages, paths, process, progress, tree
from workbench.status import CannotTell

PINNED = "linux-source-7.3"
LTS = "linux-source-6.12"

# What a build leaves in a user's own tree. With it in, the kernel's Makefile would refuse
# our copy, or take it for its own.
LEFTOVERS = (
    *("./.git", "./.config*", "./vmlinux*", "./include/config", "./include/generated"),
    *("./arch/*/include/generated", "*.o", "*.a", "*.ko", "*.mod", "*.mod.c", ".*.cmd"),
)


@dataclass(frozen=True)
class Base:
    """A kernel to apply the series to.

    name: "mainline", "newest", "lts", or what the user has called a directory.
    directory: all that is made of it, below build/.
    source: the user's own tree, or None for a package of Debian's.
    """

    name: str
    directory: Path
    source: Optional[Path] = None

    @property
    def stock(self) -> Path:
        """The tree as it is."""
        return self.directory / "stock"

    @property
    def log(self) -> Path:
        """Where logs go."""
        return self.directory / "log"

    @property
    def version(self) -> str:
        """What it is, in words; it has been fetched."""
        return _version_file(self).read_text().strip()


def find(name: str) -> Base:
    """Return the base of this name; raise CannotTell if there is none."""
    if name in ("mainline", "newest", "lts"):
        return Base(name, paths.BUILD / name)
    source = Path(name)
    if not (source / "Kbuild").is_file() or not (source / "drivers/iommu/iommu.c").is_file():
        raise CannotTell(
            f"base '{name}' is neither mainline, newest, lts nor a directory with a kernel tree"
        )
    source = source.resolve()
    number = hashlib.sha256(bytes(source)).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", source.name)
    return Base(name, paths.BUILD / f"{plain}-{number}", source)


def check_place(place: Path = paths.BUILD) -> None:
    """Raise CannotTell if the kernel's make cannot work below a path."""
    if re.search(r"[^\w./+,=@-]", str(place)):
        raise CannotTell(
            f"'{place}': the kernel's make wants a path without blanks, colons and the like"
        )


def fetch(base: Base) -> None:
    """Have the base's stock tree under build/ as its source has it.

    A package is fetched once; a file of it that has been changed or deleted since is put
    back. A directory is followed. The base's lock must be held.
    """
    check_place()
    if base.source:
        tree.follow(base.stock, base.source, {}, LEFTOVERS)
        _check_is_as_before(base)
        version = process.output(["make", "-s", "-C", base.stock, "kernelversion"])
        paths.write(_version_file(base), version.encode())
    elif not tree.exists(base.stock) or not _version_file(base).is_file():
        paths.write(_version_file(base), _unpack(base, base.stock))
        tree.record(base.stock)
    elif not tree.is_untouched(base.stock):
        _repair(base)


_followed: dict[Path, str] = {}  # what a directory was when it was first followed, by base


def _check_is_as_before(base: Base) -> None:
    """Raise CannotTell if a directory is not as at the beginning: edits are made of that."""
    now = tree.identity(base.stock)
    if _followed.setdefault(base.directory, now) != now:
        raise CannotTell(f"base '{base.source}' has been changed meanwhile, begin again")


def _version_file(base: Base) -> Path:
    return base.directory / "version"


_ANY = "linux-source-[0-9]+[.][0-9]+"


def _find_package(base: Base) -> tuple[packages.Archive, str]:
    """Return the name of the base's package, and what carries it."""
    if base.name == "lts":
        return packages.find(f"^{LTS}$", base.log, packages.anywhere())
    archive, newest = packages.find(f"^{_ANY}$", base.log, packages.latest())
    if base.name == "newest" or archive.names(f"^{PINNED}$"):
        return archive, newest if base.name == "newest" else PINNED
    progress.say(f"{archive.site} has no {PINNED} any more, the newest is {newest}")
    return archive, newest


def _package(base: Base) -> Path:
    """Return the file of the base's package, fetched if need be."""
    directory = base.directory / "deb"
    kept = sorted(directory.glob("*.deb"))
    if kept:
        return kept[0]
    archive, name = _find_package(base)
    new = directory.with_suffix(".new")
    paths.remove(new)
    paths.remove(directory)
    archive.download([name], new)
    new.rename(directory)
    return next(directory.glob("*.deb"))


def _unpack(base: Base, into: Path) -> bytes:
    """Unpack the base's package; return its name and version."""
    paths.remove(into)
    package = _package(base)
    packages.unpack_source(package, into, base.log)
    return packages.name_and_version(package).encode()


def _repair(base: Base) -> None:
    """Put back what has been changed in a stock tree, from its package.

    If that was fetched again and is a newer one, all of the tree is taken from it.
    """
    progress.say(f"{base.stock} has been changed: its package is unpacked again")
    fresh = base.directory / "stock.fresh"
    try:
        version = _unpack(base, fresh)
        if version == _version_file(base).read_bytes():
            tree.repair(base.stock, fresh)
        else:
            tree.follow(base.stock, fresh, {})
            paths.write(_version_file(base), version)
    finally:
        paths.remove(fresh)
