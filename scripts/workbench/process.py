# SPDX-License-Identifier: GPL-2.0-only
"""Other programs: starting them so that they end with us, and what they say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Sequence, Union

from workbench import progress
from workbench.status import CannotTell

_WATCH = 0.2  # seconds between two looks at a log
_ENDS = 5  # seconds for a program to end that is asked to
_LIMIT = 600  # seconds for a program of which only the output is wanted
_TIMED_OUT = 124  # a status, as timeout(1) has it

# Descriptors of lock files. A program that writes inherits them: a lock is held until it ends
held: set[int] = set()

Words = Sequence[Union[str, Path]]

_children: set["subprocess.Popen[bytes]"] = set()
_lock = threading.Lock()
_ending = False


class Failed(CannotTell):
    """A program has failed: the text is one line, with why, and where its log is."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


# By these git is led to a repository: "git rev-parse --local-env-vars" names them
OF_A_REPOSITORY = {
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT"),
    *("GIT_CONFIG_PARAMETERS", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE"),
    *("GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE"),
    *("GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE"),
}


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a program: ours, in English, without what git is told.

    GIT_DIR and its like, as hooks set them, would lead git to a repository that nobody
    has named. GLIBC_TUNABLES gives compilers huge pages: a quarter faster where page
    faults are dear.
    """
    told = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
    told.update(LC_ALL="C", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    told.update(changes)
    return told


def start(command: Words, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program in a process group of its own, which end_all() ends whole."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("env", environment())
    with _lock:
        if _ending:
            raise SystemExit(128 + signal.SIGTERM)
        child = subprocess.Popen(
            [str(word) for word in command], start_new_session=True, **options
        )
        _children.add(child)
    return child


def kill(child: "subprocess.Popen[bytes]") -> None:
    """End a program that start() has started, with all that it has started.

    It is asked to first, since it may have started programs in groups of their own.
    """
    _signal(child, signal.SIGTERM)
    try:
        child.wait(_ENDS)
    except subprocess.TimeoutExpired:
        pass
    _signal(child, signal.SIGKILL)
    child.wait()
    forget(child)


def _signal(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def forget(child: "subprocess.Popen[bytes]") -> None:
    """Take note that a program has ended."""
    with _lock:
        _children.discard(child)


def end_all() -> None:
    """End every program that start() has started, and start none any more."""
    global _ending
    with _lock:
        _ending = True
        children = list(_children)
    for child in children:
        _signal(child, signal.SIGTERM)
    for child in children:
        kill(child)


def output(command: Words, **options: Any) -> str:
    """Return what a program prints, as text; raise Failed if it fails."""
    return output_bytes(command, **options).decode(errors="replace")


def output_bytes(command: Words, **options: Any) -> bytes:
    """Return what a program prints; raise Failed if it fails."""
    options.setdefault("env", environment())
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("timeout", _LIMIT)
    options.setdefault("pass_fds", tuple(held))
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, check=False, **options)
    except subprocess.TimeoutExpired:
        limit = options["timeout"]
        raise Failed(f"{Path(words[0]).name} has not ended in {limit} s", _TIMED_OUT) from None
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise Failed(f"{Path(words[0]).name}: {why.splitlines()[-1]}", done.returncode)
    said: bytes = done.stdout
    return said


def reason(log: Path) -> str:
    """Return the line of a log that tells best why the program behind it failed."""
    try:
        if shutil.disk_usage(log.parent).free < 1 << 20:
            return "no space left on the disk"  # not even for the log
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return str(error)
    for line in lines:
        if any(word in line for word in ("No space left", "error: ", "as asked for")):
            return line.strip()
        if line.startswith("E: "):
            return line
    return lines[-1].strip() if lines else "it has said nothing"


def _lines(log: Path) -> int:
    with open(log, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 16), b""))


def wait(child: "subprocess.Popen[bytes]", log: Path, activity: progress.Activity) -> int:
    """Wait for a program whose output goes to a log, and show how long that is."""
    while True:
        try:
            status = child.wait(_WATCH)
            break
        except subprocess.TimeoutExpired:
            activity.detail = f"{_lines(log)} lines of log"
    forget(child)
    return status


def step(label: str, log: Path, *commands: Words, **options: Any) -> None:
    """Run programs one after the other, with their output in a log, and say how long.

    options: Popen()'s. Raises Failed with the reason if one fails; then the rest is not
    run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with progress.activity(label) as activity, open(log, "wb") as file:
        for command in commands:
            file.write(f"$ {' '.join(str(word) for word in command)}\n".encode())
            file.flush()
            child = start(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(held),
                **options,
            )
            status = wait(child, log, activity)
            if status:
                raise Failed(f"{label} failed: {reason(log)} (all of it: {log})", status)
    progress.say(f"{label}: done in {activity.seconds()} s")


def stamp(program: str) -> str:
    """Return what changes when a compiler does: where it is, its size, date and version.

    Where ccache has its name it is the one behind. The version is also that of its libraries.
    """
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(program, path=directory)
        real = os.path.realpath(found or "")
        if found and os.path.basename(real) != "ccache":
            state = os.stat(real)
            version = output([found, "--version"]).partition("\n")[0]
            return f"{real} {state.st_size} {state.st_mtime_ns} {version}"
    return "none"
