# SPDX-License-Identifier: GPL-2.0-only
"""The page that scripts/bench makes of its figures, and its parts in plain text."""

from __future__ import annotations

import re
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from workbench import figures, model, paths, process
from workbench.figures import Row
from workbench.status import CannotTell

TEMPLATES = Path(__file__).parent / "templates"
LOAD_COLUMNS = ("machine", "kernel", "with", "strict", "load", "least", "most")
CALLS = ("map", "unmap", "invalidations")

_STYLE = """
set terminal svg size 1100,420 dynamic font "sans-serif,13" background "white"
set grid ytics linecolor "#cccccc"
set key above
set border 3
set tics nomirror scale 0.5
orange = "linecolor \\"#d55e00\\""
blue = "linecolor \\"#0072b2\\""
"""  # two hues that the colour-blind tell apart, and a pattern, shapes or dashes for print

_INSTRUCTIONS = """
set style data histogram
set style histogram clustered gap 1.5
set style fill solid border -1
set boxwidth 0.9
set yrange [0:*]
set ylabel "instructions"
plot $data using 2:xtic(1) fillstyle solid 0.9 @orange title "stock", \\
  "" using 3 fillstyle pattern 2 @blue title "patched"
"""

_INVALIDATIONS = """
set logscale y
set xrange [-0.5:*]
set offsets 0, 0.5, 0, 0
set yrange [0.01:3000]
set ylabel "per 1000 unmaps"
plot $data using ($0-0.1):2:xtic(1) with points pointtype 5 pointsize 1.5 @orange title "stock", \\
  "" using ($0+0.1):3 with points pointtype 7 pointsize 1.5 @blue title "patched"
"""

_MODEL = """
set logscale xy
set xrange [100:10000]
set xlabel "L: ns that a CPU waits for an invalidation"
set ylabel "ns for an unmap"
strict(x) = {strict} + x
lazy(x) = {lazy} + x / {shared}
plot strict(x) linewidth 2 @orange title "strict: c + L", \\
  lazy(x) linewidth 2 dashtype 2 @blue title "lazy: c' + L/n", \\
  $data using 2:(strict($2)) with points pointtype 5 pointsize 1.5 linecolor "black" \\
  title "L that explains a published rate", \\
  $data using 2:(strict($2)):1 with labels offset 0,-1.5 notitle
"""


def _number(text: str) -> str:
    """Return a number as a table shows it: the digits that a reader compares."""
    value = Decimal(text)
    if value == value.to_integral_value():
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def _of(rows: Sequence[Row], **wanted: str) -> Optional[Row]:
    """Return the row that has these values."""
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            return row
    return None


def _change(rows: Sequence[Row], **wanted: str) -> str:
    """Return "STOCK → PATCHED" of a figure, "" if it was not measured."""
    found = [_of(rows, kernel=name, **wanted) for name in ("stock", "patched")]
    return " → ".join(_number(row["value"]) for row in found if row)


def _machines(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["machine"] for row in rows if row["metric"] == "unmap"))


def small_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table in scripts/README.md: of vtd-nopt, if it was measured."""
    machines = _machines(rows)
    machine = "vtd-nopt" if "vtd-nopt" in machines else machines[0]
    lazy = {"machine": machine, "strict": "0", "word": "1 single"}
    shown = {
        "instructions of an unmap": {**lazy, "metric": "unmap"},
        "instructions of a map": {**lazy, "metric": "map"},
        "invalidations per 1000 unmaps": {**lazy, "metric": "invalidations"},
        "instructions to choose a default domain": {**lazy, "metric": "choose", "word": ""},
        "bytes of iommu.o": {"metric": "size", "word": "iommu.o"},
    }
    yield f"| {machine}, iommu.strict=0 | stock | patched |"
    yield "|---|---|---|"
    for what, wanted in shown.items():
        found = [_of(rows, kernel=name, **wanted) for name in ("stock", "patched")]
        yield f"| {what} | {' | '.join(row['value'] if row else '' for row in found)} |"


def finding(rows: Sequence[Row]) -> str:
    """Return what the page has found, as a sentence."""
    where = {"machine": "vtd-nopt", "strict": "0", "word": "1 single"}
    unmap = _change(rows, metric="unmap", **where).split(" → ")
    count = _change(rows, metric="invalidations", **where).split(" → ")
    if len(unmap) != 2 or len(count) != 2:
        return "Nothing was measured of unmaps behind VT-d without pass-through."
    return (
        "Behind VT-d without pass-through, with iommu.strict=0, "
        f"1000 unmaps cause {count[1]} IOTLB invalidations instead of {count[0]}, "
        f"and an unmap takes {unmap[1]} instructions instead of {unmap[0]}."
    )


def calls(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield what the page's table has of maps and unmaps."""
    seen = dict.fromkeys(
        (row["machine"], row["strict"], row["word"])
        for row in rows
        if row["metric"] == "unmap"
    )
    for machine, strict, word in seen:
        pages, mode = word.split()
        what = "1 page" if pages == "1" else f"{pages} pages"
        where = {"machine": machine, "strict": strict, "word": word}
        yield {
            "machine": machine,
            "strict": strict,
            "what": what + (" in a list" if mode == "sg" else ""),
            "cells": [_change(rows, metric=metric, **where) for metric in CALLS],
        }


def costs(rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """Yield what the change itself costs: instructions and bytes, stock and patched."""
    for was, row in figures.pairs(rows):
        if row["metric"] in ("choose", "size"):
            strict = f" iommu.strict={row['strict']}" if row["strict"] else ""
            yield {
                "where": row["machine"] + strict,
                "what": row["word"] or "choosing a default domain",
                "stock": _number(was["value"]),
                "patched": _number(row["value"]),
                "more": f"{Decimal(row['value']) - Decimal(was['value']):+}",
                "unit": row["unit"],
            }


def unmap_of(rows: Sequence[Row]) -> Optional[model.Unmap]:
    """Return what an unmap takes on vtd-nopt, strict by stock and lazy by patched."""
    where = {"machine": "vtd-nopt", "strict": "0", "word": "1 single"}
    stock = _of(rows, kernel="stock", metric="unmap", **where)
    patched = _of(rows, kernel="patched", metric="unmap", **where)
    count = _of(rows, kernel="patched", metric="invalidations", **where)
    if not stock or not patched or not count:
        return None
    return model.Unmap(
        float(stock["value"]), float(patched["value"]), 1000 / float(count["value"])
    )


def _plot(data: Sequence[str], title: str, commands: str) -> str:
    """Return what gnuplot draws, as part of a page."""
    block = "\n".join(["$data << END", *(data or ['"not measured" 1 1']), "END"])
    done = subprocess.run(
        ["gnuplot"],
        input=f"{_STYLE}{block}\n{commands}",
        env=process.environment(LC_ALL="C.UTF-8"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotTell(f"gnuplot: {(done.stderr.strip() or 'fails').splitlines()[-1]}")
    svg = done.stdout[done.stdout.index("<svg") :]
    svg = re.sub(r' id="[^"]*"', "", svg)
    svg = re.sub("<title>.*?</title>", f"<title>{title}</title>", svg, count=1)
    return svg.replace("<svg", '<svg role="img"', 1)


def _bars(rows: Sequence[Row], metric: str) -> Iterator[str]:
    """Yield the lines for a plot: name, stock, patched; lazy, a page at a time."""
    for machine in _machines(rows):
        where = {"machine": machine, "strict": "0", "word": "1 single", "metric": metric}
        found = [_of(rows, kernel=name, **where) for name in ("stock", "patched")]
        if found[0] and found[1]:
            yield f'"{machine}" {found[0]["value"]} {found[1]["value"]}'


def _modelled(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the page has of the model."""
    unmap = unmap_of(rows)
    if not unmap:
        return {}
    waits, rates = model.read()
    slower = [rate for rate in rates if rate.strict < rate.lazy]
    points = [f"{rate.name} {model.needed_wait(rate, unmap):.0f}" for rate in slower]
    commands = _MODEL.format(
        strict=unmap.strict / model.MIDDLE,
        lazy=unmap.lazy / model.MIDDLE,
        shared=unmap.shared,
    )
    times = [
        (wait, [model.times(wait, unmap, is_lazy) for is_lazy in (False, True)])
        for wait in waits
    ]
    title = "Nanoseconds for an unmap, by the model"
    return {
        "unmap": unmap,
        "per_ns": model.PER_NS,
        "middle": model.MIDDLE,
        "times": times,
        "predicted": list(model.predict(rates, unmap)),
        "plot": _plot(points, title, commands),
    }


def page(rows: Sequence[Row], loads: Sequence[Mapping[str, str]], about: str) -> str:
    """Return the page."""
    import jinja2  # a package that only this needs

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    title = "Instructions for an unmap, iommu.strict=0"
    return environment.get_template("report.html.j2").render(
        finding=finding(rows),
        unmaps=_plot(list(_bars(rows, "unmap")), title, _INSTRUCTIONS),
        invalidations=_plot(
            list(_bars(rows, "invalidations")),
            "IOTLB invalidations per 1000 unmaps, iommu.strict=0",
            _INVALIDATIONS,
        ),
        calls=list(calls(rows)),
        alike=figures.alike(rows).lines,
        costs=list(costs(rows)),
        memory=list(figures.growth(rows)),
        fq_bytes=figures.FQ_BYTES,
        loads=loads,
        model=_modelled(rows),
        about=about,
    )


def write(
    directory: Path, rows: Sequence[Row], loads: Sequence[Mapping[str, str]], about: str
) -> None:
    """Write the page, and what it is made of, to a directory; nothing if no page comes of it."""
    report = page(rows, loads, about)
    figures.write(directory / "bench.csv", rows)
    figures.write(directory / "loads.csv", loads, LOAD_COLUMNS)
    paths.write(directory / "about", about.encode())
    paths.write(directory / "report.html", report.encode())
