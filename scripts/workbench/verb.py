# SPDX-License-Identifier: GPL-2.0-only
"""What every verb does: read its arguments, and end with a status that says how it went."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Callable, NoReturn, Optional, Sequence

from workbench import paths, process, progress
from workbench.status import NOT_FOUND_OUT, CannotTell

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class _Once(argparse.Action):
    """Store a value; the same option a second time is an error, and does not win."""

    is_given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Optional[str] = None,
    ) -> None:
        if option_string and self.is_given:
            parser.error(f"{option_string} '{values}': given twice")
        self.is_given = bool(option_string)
        setattr(namespace, self.dest, values)


class Arguments(argparse.ArgumentParser):
    """A parser whose help is a verb's own text, and whose errors are one line."""

    def __init__(self, text: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        for name in (None, "store"):
            self.register("action", name, _Once)
        self.text = text
        self.add_argument("--help", action="store_true")

    def parse_help(self, arguments: Sequence[str]) -> None:
        """Print the help and end, if that is asked for."""
        if "--help" in arguments:
            print(self.text.strip())
            raise SystemExit(0)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, or print the help and end."""
        self.parse_help(arguments)
        return self.parse_intermixed_args(arguments)

    def error(self, message: str) -> NoReturn:
        raise CannotTell(f"{message}, see --help")


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a type for add_argument(): one of these words."""

    def convert(value: str) -> str:
        if value not in choices:
            raise argparse.ArgumentTypeError(f"'{value}': must be one of: {' '.join(choices)}")
        return value

    return convert


def number(value: str) -> int:
    """A type for add_argument(): a number, 1 or more."""
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"'{value}': must be a number, 1 or more")
    return int(value)


def _end(signal_number: int, frame: Optional[FrameType]) -> None:
    del frame
    for each in SIGNALS:  # a second one must not interrupt what cleans up
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + signal_number)


def _unexpected(error: Exception, crashes: Path) -> str:
    """Keep where an error came from; return the line that says so."""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        crashes.mkdir(parents=True, exist_ok=True)
        log = crashes / f"traceback.{os.getpid()}"
        log.write_text(traceback.format_exc())
        return f"{what} (where from: {log})"
    except OSError:
        return what


def run(
    name: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str], crashes: Path
) -> int:
    """Run a verb and return its exit status.

    name: what the verb is called, for messages.
    main: takes the arguments, and returns AS_EXPECTED or NOT_AS_EXPECTED. What it raises
    ends with NOT_FOUND_OUT and one line, since 1 is a verdict; a signal with 128 and its
    number.
    crashes: the directory that gets the traceback of an error that nobody expected.
    """
    for each in SIGNALS:
        signal.signal(each, _end)
    try:
        status = _run(name, main, arguments, crashes)
        progress.stop()
        sys.stdout.flush()
        return status
    except OSError:  # not even that can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return NOT_FOUND_OUT


def _run(
    name: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str], crashes: Path
) -> int:
    status = NOT_FOUND_OUT
    try:
        status = main(arguments)
        sys.stdout.flush()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else NOT_FOUND_OUT
    except CannotTell as error:
        progress.say(f"{name}: {error}")
    except BrokenPipeError:  # who reads us has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        progress.say(f"{name}: {error.strerror or error}{where}")
    except Exception as error:
        progress.say(f"{name}: {_unexpected(error, crashes)}")
    finally:
        process.end_all()
        paths.remove_run_directories()
    return status
