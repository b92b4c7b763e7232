# SPDX-License-Identifier: GPL-2.0-only
"""Where things are in the checkout, and whose turn it is to write below build/."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping

from workbench import process, progress

TOP = Path(__file__).resolve().parents[2]
SCRIPTS = TOP / "scripts"
BUILD = TOP / "build"

_DAY = 24 * 60 * 60  # seconds

_run_directories: set[Path] = set()


@contextmanager
def locked(directory: Path, name: str = "lock") -> Iterator[None]:
    """Keep other runs from writing below a directory; it is made if it is missing.

    It is held until we have ended, however that is, and what process.step() has started.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting until another run no longer uses {directory}")
            fcntl.flock(file, fcntl.LOCK_EX)
        process.held.add(file.fileno())
        try:
            yield
        finally:
            process.held.discard(file.fileno())


def run_directory(verb: str) -> Path:
    """Make a directory for what one run leaves: it goes when the run ends, unless kept.

    What earlier runs have kept goes after a day.
    """
    runs = BUILD / "run"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        try:
            if time.time() - old.lstat().st_mtime > _DAY:
                remove(old)
        except FileNotFoundError:
            pass  # another run was faster
    directory = Path(tempfile.mkdtemp(prefix=f"{verb}.", dir=runs))
    _run_directories.add(directory)
    return directory


def keep(directory: Path) -> None:
    """Have what run_directory() made outlive the run."""
    _run_directories.discard(directory)


def remove_run_directories() -> None:
    """Remove those that nobody keeps."""
    while _run_directories:
        remove(_run_directories.pop())


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, with a new date, and its directory if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        remove(new)
        raise


def write_all(files: Mapping[Path, bytes]) -> None:
    """Replace files that exist: all of them, or none if there is no room."""
    new = {path: path.with_name(f".{path.name}.new") for path in files}
    try:
        for path, content in files.items():
            new[path].write_bytes(content)
            shutil.copymode(path, new[path])
        for path in files:
            os.replace(new[path], path)
    finally:
        for path in new.values():
            remove(path)


def copy(directory: Path, to: Path) -> None:
    """Copy a directory to where there is none yet."""
    shutil.copytree(directory, to)
