# SPDX-License-Identifier: GPL-2.0-only
"""A model: what hardware makes of figures that are exact in an emulator.

An unmap takes c + L when strict and c' + L/n when lazy: c and c' by the instructions that it
takes, n by how many unmaps share an invalidation, L the time that a CPU waits for one. Only L
is the hardware's. scripts/published has what others say of it, and what they have measured.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Optional, Sequence

from workbench import paths
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "published"
LIMITS = ("unit", "cpu")
PER_NS = (1.0, 4.0)  # instructions in a nanosecond: assumed, for slow and for fast CPUs
MIDDLE = 2.0  # of them, for the plot


@dataclass(frozen=True)
class Wait:
    """How long a CPU waits for an invalidation, in ns. most is None if nobody says it."""

    name: str
    least: float
    most: Optional[float]
    what: str
    source: str


@dataclass(frozen=True)
class Rate:
    """What somebody has reached on hardware, see scripts/published."""

    name: str
    limit: str
    units: int
    unmaps: float
    passthrough: Optional[float]
    lazy: float
    strict: float
    wait: Optional[Wait]
    what: str
    source: str


@dataclass(frozen=True)
class Unmap:
    """What an unmap takes: instructions when strict and when lazy, and unmaps for each
    invalidation when lazy."""

    strict: float
    lazy: float
    shared: float

    def time(self, wait: float, is_lazy: bool, per_ns: float = MIDDLE) -> float:
        """Return the ns that it takes."""
        if is_lazy:
            return self.lazy / per_ns + wait / self.shared
        return self.strict / per_ns + wait


def _number(text: str) -> Optional[float]:
    return None if text == "-" else float(text)


def read(file: Path = FILE) -> tuple[list[Wait], list[Rate]]:
    """Return all rows."""
    waits: dict[str, Wait] = {}
    rates = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        where = f"{file}:{number}"
        try:
            if words[0] == "wait":
                name, least, most, what, source = words[1:]
                waits[name] = Wait(name, float(least), _number(most), what, source)
            else:
                must_be_one_of(f"{where}:", words[0], ("wait", "rate"))
                rates.append(_rate(words[1:], waits, where))
        except ValueError as error:
            raise CannotTell(f"{where}: {error}") from None
    return list(waits.values()), rates


def _rate(words: Sequence[str], waits: Mapping[str, Wait], where: str) -> Rate:
    name, limit, units, unmaps, passed, lazy, strict, wait, what, source = words
    must_be_one_of(f"{where}:", limit, LIMITS)
    must_be_one_of(f"{where}:", wait, [*waits, "-"])
    return Rate(
        name=name,
        limit=limit,
        units=int(units),
        unmaps=float(unmaps),
        passthrough=_number(passed),
        lazy=float(lazy),
        strict=float(strict),
        wait=waits.get(wait),
        what=what,
        source=source,
    )


def strict_rate(rate: Rate, unmap: Unmap, wait: float, per_ns: float = MIDDLE) -> float:
    """Return what strict should reach, if lazy reaches what was published."""
    if rate.limit == "unit":
        return min(rate.lazy, rate.units * 1e9 / wait / rate.unmaps)
    lazy_ns = 1e9 / (rate.lazy * rate.unmaps)
    more = unmap.time(wait, False, per_ns) - unmap.time(wait, True, per_ns)
    return 1e9 / ((lazy_ns + more) * rate.unmaps)


def lazy_rate(rate: Rate, unmap: Unmap, wait: float) -> Optional[float]:
    """Return what lazy should reach, if it is known what is reached with pass-through."""
    if rate.passthrough is None or rate.limit != "unit":
        return None
    return min(rate.passthrough, rate.units * unmap.shared * 1e9 / wait / rate.unmaps)


def needed_wait(rate: Rate, unmap: Unmap, per_ns: float = MIDDLE) -> float:
    """Return the L by which strict would reach just what was published."""
    if rate.limit == "unit":
        return rate.units * 1e9 / (rate.strict * rate.unmaps)
    more = 1e9 / rate.unmaps * (1 / rate.strict - 1 / rate.lazy)
    return (more - (unmap.strict - unmap.lazy) / per_ns) / (1 - 1 / unmap.shared)


def error(predicted: float, published: float) -> str:
    """Return by how much a prediction is off, in percent."""
    return f"{100 * (predicted / published - 1):+.1f} %"


@dataclass(frozen=True)
class Prediction:
    """A row of the page: what was published, and what the model says, from least to most.

    needed: the L that would fit, from least to most.
    """

    rate: Rate
    how: str
    published: float
    predicted: Sequence[float]
    needed: Sequence[float] = ()

    @property
    def errors(self) -> list[str]:
        """By how much each prediction is off."""
        return [error(each, self.published) for each in self.predicted]


def ends(values: Iterable[float]) -> list[float]:
    """Return the least and the most, or the one value that there is, or nothing."""
    found = sorted(set(values))
    return found[:1] + found[1:][-1:]


def known(wait: Optional[Wait]) -> list[float]:
    """Return what is known of a wait."""
    return [each for each in (wait.least, wait.most) if each is not None] if wait else []


def predict(rates: Sequence[Rate], unmap: Unmap) -> Iterator[Prediction]:
    """Yield what the model makes of everything that was published."""
    for rate in rates:
        waits = known(rate.wait)
        strict = [
            strict_rate(rate, unmap, wait, per_ns) for wait in waits for per_ns in PER_NS
        ]
        needed = [needed_wait(rate, unmap, per_ns) for per_ns in PER_NS]
        yield Prediction(rate, "strict", rate.strict, ends(strict), ends(needed))
        lazy = [lazy_rate(rate, unmap, wait) for wait in waits]
        reached = [each for each in lazy if each is not None]
        if reached:
            yield Prediction(rate, "lazy", rate.lazy, ends(reached))


def times(wait: Wait, unmap: Unmap, is_lazy: bool) -> list[float]:
    """Return the ns that an unmap takes, from least to most."""
    return ends(unmap.time(each, is_lazy, per_ns) for each in known(wait) for per_ns in PER_NS)
