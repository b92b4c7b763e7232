# SPDX-License-Identifier: GPL-2.0-only
"""A bare Debian in a directory, to try in it what the README says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

from workbench import packages, paths, process, progress
from workbench.status import NOT_AS_EXPECTED, CannotTell

Call = Callable[..., tuple[int, str]]

# Mounts and processes end with it
_OWN = ("unshare", "--mount", "--fork", "--pid", "--kill-child")
_ENTER = """
mount -t proc none "$1/proc" && mount --rbind /dev "$1/dev" &&
mount --bind "$3" "$1/mnt" && exec chroot "$1" sh -c "$2"
"""
# After scripts/boot, which has compiled with an empty ccache, one that is kept is used
_TEST = "CCACHE_DIR=/mnt {}/scripts/test"
_USER = "somebody"
NEEDS = (packages.Need("debootstrap", "debootstrap"),)


class Failed(Exception):
    """A check in there has failed. The text is what was said."""


class Bare:
    """A Debian with no more than it needs, and what apt of this machine is told."""

    def __init__(self, call: Call, release: str, top: Path) -> None:
        self.call = call
        self.top = top
        self.ccache = paths.BUILD / f"ccache-{release}"
        self.ccache.mkdir(parents=True, exist_ok=True)
        site = packages.mirror(paths.BUILD / "log")
        self.good("debootstrap", "--variant=minbase", release, top, site)
        acquire = process.output(["apt-config", "dump", "Acquire"])
        paths.write(top / "etc/apt/apt.conf.d/99host", acquire.encode())
        for name in ("resolv.conf", "hosts"):
            if Path("/etc", name).exists():
                paths.write(top / "etc" / name, Path("/etc", name).read_bytes())

    def good(self, *command: str | Path) -> str:
        """Run a program outside; return what it says, CannotTell if it fails."""
        status, said = self.call(*command)
        if status:
            raise CannotTell(f"{Path(command[0]).name} ends with {status}: {said[-200:]}")
        return said

    def _enter(self, line: str) -> list[str | Path]:
        return [*_OWN, "sh", "-c", _ENTER, "sh", self.top, line, self.ccache]

    def inside(self, line: str) -> str:
        """Run a line of shell in it."""
        return self.good(*self._enter(line))

    def timed(self, what: str, line: str) -> str:
        """Run one of scripts/ in it, and say how long that took; Failed if that finds so."""
        began = time.monotonic()
        status, said = self.call(*self._enter(line))
        if status == NOT_AS_EXPECTED:
            raise Failed(said)
        if status:
            raise CannotTell(f"{what} ends with {status}: {said[-200:]}")
        progress.say(f"{what}: {time.monotonic() - began:.0f} s")
        return said

    def clone(self, place: str) -> None:
        """Have a clone of what is committed here."""
        self.good("git", "clone", "-q", "--no-hardlinks", paths.TOP, f"{self.top}{place}")


def as_root(call: Call, release: str, top: Path) -> str:
    """Do in a bare Debian what the README says, as root; return what scripts/test says."""
    try:
        bare = Bare(call, release, top)
        bare.clone("/opt/checkout")
        bare.timed("scripts/boot", "/opt/checkout/scripts/boot")
        return bare.timed("scripts/test", _TEST.format("/opt/checkout"))
    finally:
        paths.remove(top)


def as_user(call: Call, release: str, top: Path) -> str:
    """The same as a user, for whom root has installed packages once."""
    place = f"/home/{_USER}/checkout"
    try:
        bare = Bare(call, release, top)
        bare.inside(f"useradd -m {_USER}")
        bare.clone(place)
        bare.inside(f"chown -R {_USER}: {place} /mnt")
        bare.inside(f"{place}/scripts/setup")
        bare.timed("scripts/boot", f"su {_USER} -c {place}/scripts/boot")
        said = bare.timed("scripts/test", f"su {_USER} -c '{_TEST.format(place)}'")
        bare.timed("scripts/boot vtd, by root", f"{place}/scripts/boot vtd")  # as by sudo
        owned = bare.inside(f"find /home/{_USER} -user root")
        if owned.strip():
            raise Failed(f"belongs to root: {owned.splitlines()[0]}")
        return said
    finally:
        paths.remove(top)
