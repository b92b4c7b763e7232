# SPDX-License-Identifier: GPL-2.0-only
"""The sums of scripts/bench: samples.csv to summary.csv, and two of these compared.

A row of the summary for each thing measured: the median, least and greatest under stock
and patched; how many times better patched is, which is the median of the ratios within
each pair; and the interval that holds the medians of 95 % of 2000 samples that are drawn
from these ratios with replacement (the bootstrap), widened as Student's t is, since of few
pairs it is too narrow. If 1 is in it, no difference has been seen. "high999" is its end
for 99.9 %. The sums are those of the ratios' logarithms, so that twice and half are as far
from 1.

Better is less, but for what is done in a second. "vtd-nopt:vtd" compares under patched the
first machine with the second, which there takes the place of stock. What is counted, once,
has no interval; its value is for 1000 unmaps.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Iterable, Iterator, Mapping, Sequence

from workbench.status import CannotTell

COLUMNS = (
    *("machine", "strict", "cpus", "devices", "metric", "word", "pairs"),
    *("stock", "stock_min", "stock_max", "patched", "patched_min", "patched_max"),
    *("ratio", "low", "high", "says", "high999"),
)
SAMPLES = (
    *("round", "half", "machine", "kernel", "strict", "cpus", "devices"),
    *("metric", "word", "value", "others", "stolen"),
)
NONE_SEEN = "no difference seen"
IN_A_SECOND = ("reads", "rate")
_TIMES = ("boot", "map", "unmap", "rate", "reads", "cpu")
_COMPARED = ("map", "unmap", "rate", "reads", "cpu")

# Student's t for 95 and 99.9 %, for 1 degree of freedom to 11, and for more
_T95 = (12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.1)
_T999 = (637, 31.6, 12.9, 8.61, 6.87, 5.96, 5.41, 5.04, 4.78, 4.59, 4.44, 4.2)
_DRAWS = 2000

Key = tuple[str, ...]  # machine, strict, cpus, devices, metric, word
Row = Mapping[str, str]


def _plain(value: float) -> str:
    return f"{value:.10g}"


def _drawn(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median by the bootstrap; the same every time."""
    state = 1
    medians = []
    for _ in range(_DRAWS):
        drawn = []
        for _ in ratios:
            state = state * 16807 % 2147483647
            drawn.append(ratios[int(state / 2147483647 * len(ratios))])
        medians.append(median(drawn))
    medians.sort()
    return medians[_DRAWS // 40], medians[_DRAWS - _DRAWS // 40]


def _widening(pairs: int, t: Sequence[float]) -> float:
    """By how much to widen an interval of so many pairs."""
    if pairs < 2:
        return 0.0
    return t[min(pairs - 1, len(t)) - 1] / 1.96 * math.sqrt(pairs / (pairs - 1))


def _says(pairs: int, low: float, high: float) -> str:
    if pairs < 2 or low <= 1 <= high:
        return NONE_SEEN
    return "better" if low > 1 else "worse"


@dataclass
class _Values:
    """What was measured of one thing, by kernel and pair."""

    stock: dict[str, float] = field(default_factory=dict)
    patched: dict[str, float] = field(default_factory=dict)

    def row(self, key: Key) -> Iterator[Row]:
        """Yield its row, if there are pairs."""
        both = [
            (self.stock[pair], self.patched[pair])
            for pair in self.stock
            if self.stock[pair] > 0 and self.patched.get(pair, 0) > 0
        ]
        if not both:
            return
        is_rate = key[4] in IN_A_SECOND
        ratios = sorted(math.log(p / s if is_rate else s / p) for s, p in both)
        low, high = _drawn(ratios)
        middle = median(ratios)
        pairs = len(both)
        low = math.exp(middle - _widening(pairs, _T95) * (middle - low))
        high999 = math.exp(middle + _widening(pairs, _T999) * (high - middle))
        high = math.exp(middle + _widening(pairs, _T95) * (high - middle))
        values = [*_spread([s for s, _ in both]), *_spread([p for _, p in both])]
        found = [*key, str(pairs), *map(_plain, values)]
        found += [f"{number:.3f}" for number in (math.exp(middle), low, high)]
        found += [_says(pairs, low, high), f"{high999:.3f}" if pairs > 1 else ""]
        yield dict(zip(COLUMNS, found))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return median(values), min(values), max(values)


def _thousand(invalidations: float, unmaps: float) -> str:
    value = 1000 * invalidations / unmaps
    return f"{value:.3g}" if value < 100 else f"{value:.1f}"


class _Sums:
    """Samples as they are added up."""

    def __init__(self) -> None:
        self.measured: dict[Key, _Values] = {}
        self.counted: dict[tuple[Key, str], float] = {}

    def add(self, sample: Row) -> None:
        """Take a sample."""
        names = ("machine", "strict", "cpus", "devices", "metric", "word")
        key = tuple(sample[name] for name in names)
        value = float(sample["value"])
        if sample["round"] == "0":
            self.counted[key, sample["kernel"]] = value
            return
        metric = sample["metric"]
        if metric == "unmaps" or metric.endswith("_sd"):
            return
        pair = f"{sample['round']},{sample['half']}"
        self._put(key, sample["kernel"], pair, value)
        name, strict, _, devices = key[:4]
        is_lazy = strict == "0" and devices == "0" and sample["kernel"] == "patched"
        if is_lazy and name in ("vtd", "vtd-nopt") and metric in _COMPARED:
            place = "stock" if name == "vtd" else "patched"
            self._put(("vtd-nopt:vtd", *key[1:]), place, pair, value)

    def _put(self, key: Key, kernel: str, pair: str, value: float) -> None:
        values = self.measured.setdefault(key, _Values())
        (values.stock if kernel == "stock" else values.patched)[pair] = value

    def _counts(self) -> Iterator[Row]:
        for key in dict.fromkeys(key for key, _ in self.counted):
            if key[4] != "invalidations":
                continue
            unmaps = (*key[:4], "unmaps", key[5])
            stock, patched = (
                _thousand(self.counted[key, kernel], self.counted[unmaps, kernel])
                for kernel in ("stock", "patched")
            )
            row = dict.fromkeys(COLUMNS, "")
            row.update(zip(COLUMNS, [*key, "0"]))
            row.update(stock=stock, patched=patched, says="counted")
            yield row

    def rows(self) -> list[Row]:
        """Return the summary."""
        found: list[Row] = []
        for key, values in self.measured.items():
            found += values.row(key)
        return found + list(self._counts())


def summarise(samples: Iterable[Row]) -> list[Row]:
    """Return the rows of the summary of samples."""
    sums = _Sums()
    for sample in samples:
        sums.add(sample)
    return sums.rows()


def read(file: Path, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """Return the rows of a file that write() has written; CannotTell if it is none."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            rows: list[Row] = list(reader)
            found = reader.fieldnames
    except (OSError, UnicodeDecodeError, csv.Error):
        found = None
    if list(found or ()) != list(columns):
        raise CannotTell(f"'{file}': must be a {_NAMES[tuple(columns)]} of scripts/bench")
    return rows


_NAMES = {COLUMNS: "summary.csv", SAMPLES: "samples.csv"}


def write(file: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write rows."""
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class Comparison:
    """What comparing a summary with that of before has found.

    lines: what there is to say. is_slower: patched is, where nothing may differ.
    """

    lines: list[str] = field(default_factory=list)
    is_slower: bool = False


def may_not_differ(row: Row) -> bool:
    """Whether a row is of what stock and patched do alike."""
    return row["strict"] == "1" or row["machine"] in ("vtd", "virtio-iommu")


def _where(row: Row) -> str:
    return (
        f"{row['machine']} iommu.strict={row['strict']} cpus={row['cpus']} "
        f"devices={row['devices']} {row['metric']} {row['word']}"
    )


def _interval(row: Row) -> str:
    return f"{row['ratio']} [{row['low']} to {row['high']}]"


def compare(before: Iterable[Row], now: Iterable[Row]) -> Comparison:
    """Compare the times of two summaries.

    Says where patched is slower than stock though nothing may differ. Of so many intervals
    of 95 % some are off by chance: here those of 99.9 % count, so that one of fifty is off
    in one run of twenty. And says which intervals have nothing in common with those of
    before. Raises CannotTell if nothing was measured in both.
    """

    def timed(rows: Iterable[Row]) -> dict[str, Row]:
        return {_where(row): row for row in rows if row["ratio"] and row["metric"] in _TIMES}

    old, found = timed(before), Comparison()
    equal = same = both = 0
    for where, row in timed(now).items():
        was = f", before {_interval(old[where])}" if where in old else ""
        if may_not_differ(row):
            equal += 1
            if row["high999"] and float(row["high999"]) < 1:
                found.lines.append(f"slower than stock, {where}: {_interval(row)}{was}")
                found.is_slower = True
        if where in old:
            both += 1
            is_apart = float(row["low"]) > float(old[where]["high"]) or float(
                row["high"]
            ) < float(old[where]["low"])
            if is_apart:
                found.lines.append(f"not as before, {where}: {_interval(row)}{was}")
            else:
                same += 1
    if not both:
        raise CannotTell("nothing of it was measured before, too")
    found.lines.append(f"{equal} rows where nothing may differ")
    found.lines.append(f"{same} of {both} ratios are as before: their intervals overlap")
    return found
