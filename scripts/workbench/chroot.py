# SPDX-License-Identifier: GPL-2.0-only
"""A bare Debian in a directory, to try in it what the README says."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

from workbench import packages, paths
from workbench.status import CannotTell

Call = Callable[..., tuple[int, str]]

_SCRIPT = """
set -e
mount -t proc none "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" sh -ec "$2"
"""
_USER = "somebody"
_PLACE = "/home/somebody/checkout"


def _make(call: Call, release: str, top: Path) -> None:
    log = paths.BUILD / "log"
    packages.install([packages.Need("debootstrap", "debootstrap")], log)
    site = packages.mirror(log)
    # A name of its own is of no use to a bare system: it has no resolver but ours
    _good(call, "debootstrap", "--variant=minbase", release, top, site)
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).exists():
            paths.write(top / name.lstrip("/"), Path(name).read_bytes())
    for file in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        paths.write(top / str(file).lstrip("/"), file.read_bytes())


def _good(call: Call, *command: str | Path) -> str:
    status, said = call(*command)
    if status:
        raise CannotTell(f"{Path(command[0]).name} ends with {status}")
    return said


def _inside(call: Call, top: Path, line: str) -> str:
    """Run a line of shell in the chroot, whose mounts end with it."""
    return _good(
        call,
        "unshare",
        "--mount",
        "--fork",
        "--pid",
        "--kill-child",
        "sh",
        "-c",
        _SCRIPT,
        "sh",
        top,
        line,
    )


def try_out(call: Call, release: str, directory: Path, lines: Sequence[str] = ()) -> None:
    """Do in a bare Debian what the README says: as root, and as a user after setup.

    Raises CannotTell if something fails.
    """
    top = directory / release
    try:
        _make(call, release, top)
        _inside(call, top, f"useradd -m {_USER}")
        _good(call, "git", "clone", "-q", "--no-hardlinks", paths.TOP, f"{top}{_PLACE}")
        _inside(call, top, f"chown -R {_USER}: {_PLACE}")
        _inside(call, top, f"{_PLACE}/scripts/setup")
        as_user = f"su {_USER} -c '{_PLACE}/scripts/boot'"
        _inside(call, top, as_user)
        owned = _inside(call, top, f"find {_PLACE} /home/{_USER} -user root")
        if owned.strip():
            raise CannotTell(f"belongs to root: {owned.splitlines()[0]}")
        for line in lines:
            _inside(call, top, line)
    finally:
        paths.remove(top)
