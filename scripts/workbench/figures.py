# SPDX-License-Identifier: GPL-2.0-only
"""The figures of scripts/bench: the file that holds them, and two of these compared.

They are exact: what is not the same differs. Where stock and patched have to do alike, they
may differ by code that is elsewhere, and by no more than TOLERANCE.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Sequence

from workbench import paths
from workbench.status import CannotTell

COLUMNS = (
    *("machine", "kernel", "with", "strict", "cpus", "ports"),
    *("metric", "word", "value", "unit"),
)
TOLERANCE = Decimal("0.002")
UNITS = {
    "choose": "instructions",
    "map": "instructions",
    "unmap": "instructions",
    "invalidations": "per 1000 unmaps",
    "groups": "groups",
    "percpu": "bytes for each possible CPU",
    "pages": "bytes",
    "size": "bytes",
}
# What a flush queue takes of each possible CPU: 256 entries of 40 bytes, and 16 beside them
FQ_BYTES = 256 * 40 + 16

Row = Mapping[str, str]


def key(row: Row) -> tuple[str, ...]:
    """Return what a row is of. Related patches are no part of it: what they cost is asked."""
    return tuple(row[name] for name in COLUMNS if name not in ("with", "value", "unit"))


def name(row: Row) -> str:
    """Return how a message calls what a row is of."""
    words = [row["machine"], row["kernel"]]
    words += [f"iommu.strict={row['strict']}"] if row["strict"] else []
    if row["ports"]:
        words += [f"{row['cpus']} CPUs", f"{row['ports']} ports"]
    return " ".join([*words, row["metric"], row["word"]]).rstrip()


def read(file: Path) -> list[Row]:
    """Return the rows of a file that write() has written; CannotTell if it is none."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            rows: list[Row] = list(reader)
            found = reader.fieldnames
    except (OSError, UnicodeDecodeError, csv.Error):
        found = None
    if list(found or ()) != list(COLUMNS) or not all(_is_sound(row) for row in rows):
        raise CannotTell(f"'{file}': must be a bench.csv that scripts/bench has written")
    return rows


def _is_sound(row: Row) -> bool:
    is_whole = set(row) == set(COLUMNS) and None not in row.values()
    return is_whole and row["value"].replace(".", "", 1).isdigit()


def write(file: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write rows, whole or not at all."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    paths.write(file, lines.getvalue().encode())


def _difference(was: Decimal, now: Decimal) -> str:
    percent = 100 * (now - was) / was if was else Decimal(0)
    share = f"{percent:+.2f} %" if abs(percent) >= Decimal("0.01") else "less than 0.01 %"
    return f"{was} → {now}: {now - was:+}" + (f", {share}" if was else "")


@dataclass
class Comparison:
    """What comparing has found: what there is to say, and whether all is as it should be."""

    lines: list[str] = field(default_factory=list)
    is_good: bool = True


def compare(before: Iterable[Row], now: Iterable[Row]) -> Comparison:
    """Return what is not the same as before; CannotTell if nothing was measured in both."""
    old = {key(row): row for row in before}
    found = Comparison()
    same = differ = 0
    for row in now:
        was = old.pop(key(row), None)
        if not was:
            continue
        if was["value"] == row["value"]:
            same += 1
            continue
        differ += 1
        change = _difference(Decimal(was["value"]), Decimal(row["value"]))
        related = f" with {row['with']}" if row["with"] != was["with"] else ""
        found.lines.append(f"not as before, {name(row)}{related}: {change}, {row['unit']}")
    if not same + differ:
        raise CannotTell("nothing of the baseline was measured now, too")
    found.lines.append(f"{same} of {same + differ} figures are the same as before")
    if old:
        found.lines.append(f"{len(old)} of the baseline were not measured")
    found.is_good = not differ
    return found


def _may_not_differ(row: Row) -> bool:
    """Whether a row is of what stock and patched do alike."""
    is_call = row["metric"] in ("map", "unmap", "invalidations")
    return is_call and (row["strict"] == "1" or row["machine"] in ("vtd", "virtio-iommu"))


def pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield the rows of stock with those of patched."""
    stock = {key({**row, "kernel": ""}): row for row in rows if row["kernel"] == "stock"}
    for row in rows:
        was = stock.get(key({**row, "kernel": ""}))
        if row["kernel"] == "patched" and was:
            yield was, row


def alike(rows: Sequence[Row]) -> Comparison:
    """Return where stock and patched differ though they may not."""
    found = Comparison()
    same = differ = 0
    for was, row in pairs(rows):
        if not _may_not_differ(row):
            continue
        if was["value"] == row["value"]:
            same += 1
            continue
        differ += 1
        one, other = Decimal(was["value"]), Decimal(row["value"])
        is_near = abs(other - one) <= TOLERANCE * one
        found.is_good &= is_near
        what = "nearly the same" if is_near else "NOT THE SAME"
        change = _difference(one, other)
        found.lines.append(f"{what}, stock → {name(row)}: {change}, {row['unit']}")
    if same + differ:
        found.lines.append(
            f"where nothing may differ, {same} of {same + differ} figures of stock and patched "
            "are the same"
        )
    return found


@dataclass(frozen=True)
class Growth:
    """What patched takes of memory that stock does not, in bytes.

    allocated: for all CPUs; the kernel has small counters there, too, that come and go.
    pages: that hold it.
    """

    cpus: int
    groups: int
    allocated: int
    pages: int

    @property
    def formula(self) -> int:
        """What it should take if each group has become lazy."""
        return FQ_BYTES * self.cpus * self.groups


def growth(rows: Sequence[Row]) -> Iterator[Growth]:
    """Yield how memory grows by possible CPUs and groups, all of which become lazy."""
    of: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for was, row in pairs(rows):
        if row["ports"]:
            both = int(was["value"]), int(row["value"])
            of.setdefault((row["cpus"], row["ports"]), {})[row["metric"]] = both
    for (cpus, _), found in of.items():
        more = {metric: now - was for metric, (was, now) in found.items()}
        allocated = more["percpu"] * int(cpus)
        yield Growth(int(cpus), found["groups"][1], allocated, more["pages"])


def grows_as_told(rows: Sequence[Row]) -> Comparison:
    """Return where memory does not grow by a queue for each possible CPU and group."""
    found = Comparison()
    all_of_them = list(growth(rows))
    wrong = [
        each
        for each in all_of_them
        if abs(each.allocated - each.formula) > TOLERANCE * each.formula
    ]
    for each in wrong:
        found.lines.append(
            f"{each.cpus} CPUs and {each.groups} groups take {each.allocated} bytes more, "
            f"NOT {each.formula}"
        )
    if all_of_them:
        found.lines.append(
            f"{len(all_of_them) - len(wrong)} of {len(all_of_them)} times, memory grows by "
            f"{FQ_BYTES} bytes for each possible CPU and group, to {100 * TOLERANCE:.1f} %"
        )
    found.is_good = not wrong
    return found
