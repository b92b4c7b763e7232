# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees meanwhile: lines that stay, and one that is written over."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import Iterator

_REDRAW = 0.2  # seconds

_lock = threading.RLock()
_began = time.monotonic()
_activities: list["Activity"] = []
_stopped = threading.Event()
_drawers: list[threading.Thread] = []


class Activity:
    """Something that goes on: what it is called, and how far it has come."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.detail = ""
        self.began = time.monotonic()

    def seconds(self) -> int:
        """Return for how many seconds it has gone on."""
        return round(time.monotonic() - self.began)

    def __str__(self) -> str:
        return self.label + (f", {self.detail}" if self.detail else "")


def elapsed() -> int:
    """Return the seconds since we have begun."""
    return round(time.monotonic() - _began)


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def _draw() -> None:
    line = f"{elapsed()} s: " + " | ".join(map(str, _activities))
    _clear()
    sys.stderr.write(line[: shutil.get_terminal_size().columns - 1])
    sys.stderr.flush()


def _keep_drawing() -> None:
    while not _stopped.wait(_REDRAW):
        with _lock:
            if _activities:
                _draw()


def say(*lines: str) -> None:
    """Print lines that stay, to stderr."""
    with _lock:
        _clear()
        for line in lines:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def result(line: str) -> None:
    """Print a line of what was asked for, to stdout, at once."""
    with _lock:
        _clear()
        sys.stderr.flush()
        print(line, flush=True)


@contextmanager
def activity(label: str) -> Iterator[Activity]:
    """Show that something goes on until the end of the block.

    On a terminal in the line that is written over, else once, as it begins.
    """
    it = Activity(label)
    with _lock:
        _activities.append(it)
        if not sys.stderr.isatty():
            say(f"{elapsed()} s: {label}")
        elif not _drawers:
            _drawers.append(threading.Thread(target=_keep_drawing, daemon=True))
            _drawers[0].start()
    try:
        yield it
    finally:
        with _lock:
            _activities.remove(it)
            _clear()


def stop() -> None:
    """Take the line that is written over away for good."""
    _stopped.set()
    with _lock:
        _clear()
