# SPDX-License-Identifier: GPL-2.0-only
"""The exit status of every verb, and the error that stands for the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

AS_EXPECTED = 0
NOT_AS_EXPECTED = 1
NOT_FOUND_OUT = 2


class CannotTell(Exception):
    """What was asked for could not be found out. The text is one clear line."""


def must_be_one_of(what: str, word: str, choices: Iterable[str]) -> None:
    """Raise CannotTell, which names what a word is for, unless it is one of the choices."""
    choices = list(choices)
    if word not in choices:
        raise CannotTell(f"{what} '{word}': must be one of: {' '.join(choices)}")


@dataclass
class Tally:
    """How many checks have passed, how many failed, and of how many there is no verdict."""

    passed: int = 0
    failed: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed + self.unknown} failed"

    @property
    def status(self) -> int:
        """The exit status that says so."""
        if self.unknown:
            return NOT_FOUND_OUT
        return NOT_AS_EXPECTED if self.failed else AS_EXPECTED
