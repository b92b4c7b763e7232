# SPDX-License-Identifier: GPL-2.0-only
"""Trees of a kernel's source, each kept as it should be by content.

A tree follows an origin, another tree, but for edits. What has been looked at once is not
read again while its size, inode, mode, mtime and ctime stay, as in git's index. Every file
that is written gets a new date, and so does one that has been touched, since make goes by
dates.

Beside the tree NAME, the directory NAME.state holds what was seen when it was last right:
"own" and "origin", listings of the two, and "edits", the hashes of the edits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Mapping, Optional, Sequence

from workbench import paths, process
from workbench.status import CannotTell

# What is made in a tree, and is none of it: objects, and what Python leaves
_MADE = ("./obj-*", "__pycache__")
_STATED = r"%P\t%s %i %m %T@ %C@\n"


def listing(top: Path, leave_out: Sequence[str] = ()) -> bytes:
    """Return a line for each file and link: its path, and what stands for its content.

    leave_out: names, or paths that begin with "./", as globs.
    """
    pruned: list[str] = []
    for glob in (*_MADE, *leave_out):
        pruned += ["-o", "-path" if glob.startswith("./") else "-name", glob]
    words = ["find", ".", "(", *pruned[1:], ")", "-prune", "-o"]
    words += ["(", "-type", "f", "-o", "-type", "l", ")", "-printf", _STATED]
    return process.output_bytes(words, cwd=top)


def _parse(lines: bytes) -> dict[str, bytes]:
    parsed = {}
    for line in lines.splitlines():
        path, _, state = line.partition(b"\t")
        parsed[os.fsdecode(path)] = state
    return parsed


def differing(one: bytes, other: bytes) -> set[str]:
    """Return the paths whose lines in two listings are not the same."""
    if one == other:
        return set()
    lines = set(one.splitlines()) ^ set(other.splitlines())
    return set(_parse(b"\n".join(lines)))


def _state(top: Path) -> Path:
    return top.with_name(top.name + ".state")


def _seen(top: Path, what: str) -> bytes:
    try:
        return (_state(top) / what).read_bytes()
    except FileNotFoundError:
        return b""


def exists(top: Path) -> bool:
    """Return whether a tree has once been made to its end."""
    return top.is_dir() and bool(_seen(top, "own"))


def is_untouched(top: Path) -> bool:
    """Return whether nothing in a tree has changed since it was last right."""
    return listing(top) == _seen(top, "own")


def record(top: Path) -> None:
    """Take note that a tree is right as it is."""
    paths.write(_state(top) / "own", listing(top))


def identity(top: Path, of: str = "") -> str:
    """Return what changes whenever a file in the tree has, whose path has this in it."""
    own = _seen(top, "own")
    if of:
        own = b"\n".join(line for line in own.splitlines() if of.encode() in line)
    return hashlib.sha256(own).hexdigest()


def content(top: Path, form: str) -> str:
    """Return a hash of the files whose path matches a regular expression.

    Two trees with the same files have the same hash. identity() depends on dates, too.
    """
    found = hashlib.sha256()
    for path in sorted(_parse(_seen(top, "own") or listing(top))):
        if re.search(form, path) and (top / path).is_file():
            held = (top / path).read_bytes()
            found.update(f"{path}\0{len(held)}\0".encode() + held)
    return found.hexdigest()


def _hashes(edits: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in edits.items()}


def _is_same(path: Path, other: Path) -> bool:
    if path.is_symlink() or other.is_symlink():
        return (
            path.is_symlink()
            and other.is_symlink()
            and os.readlink(path) == os.readlink(other)
        )
    try:
        return path.read_bytes() == other.read_bytes() and _mode(path) == _mode(other)
    except (FileNotFoundError, IsADirectoryError):
        return False


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _check_is_inside(path: Path, top: Path) -> None:
    """Raise CannotTell if a file is not in the tree: a link of a user's may lead out of it."""
    if not path.parent.resolve().is_relative_to(top.resolve()):
        raise CannotTell(f"'{path}' is not written: a link leads out of the tree there")


def touch(top: Path, names: Sequence[str]) -> None:
    """Give files of a tree a new date: what has been made of them is made again."""
    for name in names:
        if (top / name).is_file():
            os.utime(top / name)
    record(top)


def _put_as_in(origin: Path, path: Path, is_suspect: bool) -> None:
    """Have a file be as in the origin, or be gone, as there.

    It gets a new date if it was not, or was touched.
    """
    if not _exists(origin):
        paths.remove(path)
    elif _is_same(path, origin):
        if is_suspect:
            os.utime(path, follow_symlinks=False)
    elif origin.is_symlink():
        paths.remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.readlink(origin))
    else:
        if path.is_dir():
            paths.remove(path)
        paths.write(path, origin.read_bytes(), _mode(origin))


def _put(content: bytes, origin: Path, path: Path, is_suspect: bool) -> None:
    """Have a file hold this, with a new date if it did not, or was touched."""
    mode = _mode(origin) if origin.is_file() else 0o644
    if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
        os.chmod(path, mode)
        if is_suspect:
            os.utime(path)
    else:
        if path.is_dir():
            paths.remove(path)
        paths.write(path, content, mode)


def remove(top: Path) -> None:
    """Have no such tree."""
    paths.remove(_state(top))
    paths.remove(top)


def _copy(origin: Path, listed: bytes, top: Path) -> None:
    """Make a tree anew, with the origin's dates."""
    remove(top)
    top.mkdir(parents=True)
    names = _state(top) / "names"
    paths.write(
        names, b"\n".join(line.split(b"\t")[0] for line in listed.splitlines()) + b"\n"
    )
    process.step(
        f"copy {origin.name} to {top.name}",
        _state(top) / "copy.log",
        ["rsync", "-a", f"--files-from={names}", f"{origin}/", f"{top}/"],
    )
    paths.write(_state(top) / "own", listing(top))
    paths.write(_state(top) / "origin", listed)
    paths.write(_state(top) / "edits", b"{}")


def follow(
    top: Path, origin: Path, edits: Mapping[str, bytes], leave_out: Sequence[str] = ()
) -> None:
    """Make a tree, or make it right again: the origin's files, but for edits.

    leave_out: what of the origin is not taken, see listing(). The origin is only read.
    """
    from_now = listing(origin, leave_out)
    if not exists(top):
        _copy(origin, from_now, top)
    own = listing(top)
    suspects = differing(own, _seen(top, "own"))
    last: dict[str, str] = json.loads(_seen(top, "edits") or b"{}")
    hashes = _hashes(edits)
    changed = differing(from_now, _seen(top, "origin"))
    changed |= {
        path for path in last.keys() | hashes.keys() if last.get(path) != hashes.get(path)
    }
    if not suspects and not changed:
        return
    taken = _parse(from_now)
    for path in sorted(suspects | changed):
        _check_is_inside(top / path, top)
        if path in edits:
            _put(edits[path], origin / path, top / path, path in suspects)
        elif path not in taken:
            paths.remove(top / path)
        else:
            _put_as_in(origin / path, top / path, path in suspects)
    state = _state(top)
    paths.write(state / "edits", json.dumps(hashes).encode())
    paths.write(state / "origin", from_now)
    record(top)


def repair(top: Path, fresh: Path) -> None:
    """Put what has been changed in a tree back as it is in a fresh one."""
    for path in sorted(differing(listing(top), _seen(top, "own"))):
        _put_as_in(fresh / path, top / path, is_suspect=True)
    record(top)


def edits(top: Path) -> Optional[Mapping[str, bytes]]:
    """Return the edits that a tree was made with last, None if there is none.

    Raises CannotTell if they have been changed since.
    """
    if not exists(top):
        return None
    kept: dict[str, str] = json.loads(_seen(top, "edits") or b"{}")
    found = {path: (top / path).read_bytes() for path in kept if (top / path).is_file()}
    changed = [path for path, digest in kept.items() if _hashes(found).get(path) != digest]
    if changed:
        raise CannotTell(f"'{top / changed[0]}' has been changed: what it was is not kept")
    return found
