# SPDX-License-Identifier: GPL-2.0-only
"""A bare Debian in a directory, to try in it what the README says."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from workbench import packages, paths, process
from workbench.status import CannotTell

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

    def inside(self, line: str) -> str:
        """Run a line of shell in it."""
        return self.good(*_OWN, "sh", "-c", _ENTER, "sh", self.top, line, self.ccache)

    def clone(self, place: str) -> None:
        """Have a clone of what is committed here."""
        self.good("git", "clone", "-q", "--no-hardlinks", paths.TOP, f"{self.top}{place}")


def as_root(call: Call, release: str, top: Path) -> None:
    """Do in a bare Debian what the README says, as root."""
    try:
        bare = Bare(call, release, top)
        bare.clone("/opt/checkout")
        bare.inside("/opt/checkout/scripts/boot")
        bare.inside(_TEST.format("/opt/checkout"))
    finally:
        paths.remove(top)


def as_user(call: Call, release: str, top: Path) -> None:
    """The same as a user, for whom root has installed packages once."""
    place = f"/home/{_USER}/checkout"
    try:
        bare = Bare(call, release, top)
        bare.inside(f"useradd -m {_USER}")
        bare.clone(place)
        bare.inside(f"chown -R {_USER}: {place} /mnt")
        bare.inside(f"{place}/scripts/setup")
        bare.inside(f"su {_USER} -c '{place}/scripts/boot && {_TEST.format(place)}'")
        bare.inside(f"{place}/scripts/boot vtd")  # root again, as by sudo
        owned = bare.inside(f"find /home/{_USER} -user root")
        if owned.strip():
            raise CannotTell(f"belongs to root: {owned.splitlines()[0]}")
    finally:
        paths.remove(top)
