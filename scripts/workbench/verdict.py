# SPDX-License-Identifier: GPL-2.0-only
"""What a guest has reported, read by the kernel's own kunit_parser, and what that is worth."""

from __future__ import annotations

import importlib
import inspect
import io
import re
import sys
import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence


# kunit_parser drops the reason, in 6.12 for good
_SKIP = re.compile(r"(?:^|.*\s)ok \d+ (?:- )?(.*?) *# SKIP *(.*)")


class Skip(Enum):
    """Whether a result may be a skip."""

    NEVER = "has to be judged"
    ALWAYS = "has to be skipped"
    MAYBE = "may be either"


@dataclass(frozen=True)
class Expected:
    """A result that a guest has to report.

    parts_skipped: how the reasons begin for which its parts may be skipped.
    is_empty: it has no parts, since there is nothing to check.
    """

    name: str
    skip: Skip = Skip.NEVER
    parts_skipped: tuple[str, ...] = ()
    is_empty: bool = False


@dataclass
class Report:
    """What a document in KTAP says: each result that has no parts, and the whole.

    planned, printed: how many results it says there are, and how many there were.
    errors: mistakes that the parser has found.
    """

    name: str
    status: str
    reason: str = ""
    parts: Sequence["Report"] = field(default_factory=list)
    planned: int = 0
    errors: int = 0
    printed: int = 0
    log: Sequence[str] = ()

    def leaves(self) -> Iterator["Report"]:
        """Yield the results that have no parts."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


class Parser:
    """The kernel's kunit_parser, from its tree. Several threads may use it."""

    def __init__(self, tree: Path) -> None:
        self.reasons: dict[str, list[str]] = {}
        self.turn = threading.Lock()  # kunit_parser prints, or is told where to, for all
        directory = str(tree / "tools/testing/kunit")
        sys.path.insert(0, directory)
        try:
            self.module: Any = importlib.import_module("kunit_parser")
            self.printer: Any = importlib.import_module("kunit_printer")
        finally:
            sys.path.remove(directory)

    def _parse(self, lines: Sequence[str]) -> Any:
        parse = self.module.parse_run_tests
        if len(inspect.signature(parse).parameters) > 1:
            return parse(lines, self.printer.Printer(False))
        self.module.stdout = self.printer.Printer(io.StringIO())  # 6.12's prints by itself
        return parse(lines)

    def parse(self, console: str) -> Report:
        """Return what the one document on a console says."""
        lines = console.replace("\r", "").splitlines()
        with self.turn:
            test = self._parse(lines)
            self.reasons = {}
            for match in filter(None, map(_SKIP.match, lines)):
                self.reasons.setdefault(match[1].strip(), []).append(match[2])
            report = self._convert(test)
        report.planned = test.expected_count or 0
        report.errors = test.counts.errors
        report.printed = sum(bool(self.module.TEST_RESULT.match(line)) for line in _top(lines))
        return report

    def _convert(self, test: Any) -> Report:
        parts = [self._convert(part) for part in test.subtests]
        # Parts are printed, and converted, before the whole
        reasons = self.reasons.get(test.name.strip(), [])
        reason = reasons.pop(0) if test.status.name == "SKIPPED" and reasons else ""
        return Report(test.name.strip(), test.status.name, reason, parts, log=test.log)


def _top(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line[:1] not in (" ", "\t", "["))


def _of_part(parent: Report, expected: Expected) -> Iterator[str]:
    for part in parent.parts:
        for leaf in part.leaves():
            if leaf.status == "SKIPPED":
                if not leaf.reason.startswith(expected.parts_skipped):
                    yield f"{parent.name}: {leaf.name} was skipped: {leaf.reason}"
            elif leaf.status != "SUCCESS":
                yield f"{parent.name}: {leaf.name} failed"


def _of_result(result: Report, expected: Expected) -> Iterator[str]:
    if result.status == "SKIPPED" and not result.parts:
        if expected.skip is Skip.NEVER:
            yield f"{result.name} was skipped: {result.reason}"
        return
    if expected.is_empty:
        if result.status != "NO_TESTS":
            yield f"{result.name} has checked something, or failed"
        return
    if result.status not in ("SUCCESS", "SKIPPED"):
        yield f"{result.name} failed"
    elif expected.skip is Skip.ALWAYS:
        yield f"{result.name} was judged, and should have been skipped"
    yield from _of_part(result, expected)


def complaints(report: Report, expected: Sequence[Expected]) -> list[str]:
    """Return what is wrong with a report; nothing is if it has just the expected results."""
    if report.status in ("FAILURE_TO_PARSE_TESTS", "NO_TESTS"):
        return ["it has reported nothing"]
    wanted: Mapping[str, Expected] = {each.name: each for each in expected}
    found = []
    if report.printed != report.planned:
        found.append(f"{report.printed} results, and {report.planned} planned")
    names = [result.name for result in report.parts]
    found += [f"'{each.name}' was not reported" for each in expected if each.name not in names]
    for result in report.parts:
        if result.name not in wanted:
            found.append(f"'{result.name}' was not asked for, and is {result.status}")
        else:
            found += _of_result(result, wanted[result.name])
    if len(names) != len(set(names)):
        found.append("a result was reported twice")
    # The parser takes what has no parts for a mistake
    empty = sum(each.is_empty for each in expected)
    if not found and (report.errors != empty or report.status != "SUCCESS"):
        found.append("its report is damaged")
    return found
