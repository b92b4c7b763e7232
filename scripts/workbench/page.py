# SPDX-License-Identifier: GPL-2.0-only
"""The page that scripts/bench makes of a summary, and its parts in plain text."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from workbench import process, summary
from workbench.status import CannotTell
from workbench.summary import Row


TEMPLATES = Path(__file__).parent / "templates"

MEMORY = ("used", "percpu", "vmalloc")

_QUEUE = {"zpci": 32767}  # entries less one, when it is full; others have 256

_STYLE = """
set terminal svg size 1100,420 dynamic font "sans-serif,12" background "white"
set grid ytics linecolor "#cccccc"
set key above
set border 3
set bmargin 4
set tics nomirror scale 0.5
orange = "linecolor \\"#d55e00\\" title \\"stock\\""
blue = "linecolor \\"#0072b2\\" title \\"patched\\""
"""  # two hues that the colour-blind tell apart, and a pattern or shapes for print

_UNMAPS = """
set style data histogram
set style histogram errorbars gap 1.5 linewidth 1
set boxwidth 0.9
set yrange [0:*]
set ylabel "ns"
plot $data using 2:3:4:xtic(1) fillstyle solid 0.9 @orange, \\
  "" using 5:6:7 fillstyle pattern 2 @blue
"""

_INVALIDATIONS = """
set logscale y
set xrange [-0.5:*]
set offsets 0, 0.5, 0, 0
set yrange [0.01:3000]
set ylabel "per 1000 unmaps"
plot $data using ($0-0.1):2:xtic(1) with points pointtype 5 pointsize 1.5 @orange, \\
  "" using ($0+0.1):5 with points pointtype 7 pointsize 1.5 @blue, \\
  "" using 0:8:(0.3) with xerrorbars pointtype -1 linewidth 2 linecolor "black" title "a full queue"
"""


def _threads(word: str) -> str:
    count = word.split()[0]
    return f"{count} thread" + ("" if count == "1" else "s")


def _unit(value: str) -> str:
    return f"{float(value):.0f}" if float(value) >= 100 else value


def _times(row: Row) -> str:
    return f"{float(row['ratio']):.2f}"


def _interval(row: Row) -> str:
    """Return the interval, with more digits where it would be 1 if it were rounded."""
    ends = (float(row["low"]), float(row["high"]))
    digits = 3 if any(0.99 < end < 1.01 for end in ends) else 2
    return "–".join(f"{end:.{digits}f}" for end in ends)


def _where(row: Row) -> str:
    name = "vtd → vtd-nopt, both patched" if ":" in row["machine"] else row["machine"]
    if row["devices"] != "0":
        name += f", {row['devices']} device{'' if row['devices'] == '1' else 's'} more"
    if row["cpus"] != "2":
        name += f", {row['cpus']} CPU{'' if row['cpus'] == '1' else 's'}"
    return name


_OTHERS = {
    "boot": "boot to process 1 (µs)",
    "used": "memory in use then (bytes)",
    "percpu": "of that in copies for each CPU (bytes)",
    "vmalloc": "of that by vmalloc() (bytes)",
}


def _what(row: Row) -> str:
    metric, words = row["metric"], row["word"].split()
    if metric in _OTHERS:
        return _OTHERS[metric]
    if metric in ("reads", "cpu"):
        size = int(words[1]) * 4
        if metric == "reads":
            return f"reads of {size} KiB, {words[0]}, in a second"
        return f"CPU time (ns) of a read of {size} KiB, {words[0]}"
    names = {
        "rate": "maps and unmaps, in a second",
        "invalidations": "invalidations per 1000 unmaps",
    }
    if len(words) < 3:
        return f"{names.get(metric, metric)} {row['word']}"
    pages = "page" if words[1] == "1" else "pages in a list" if words[2] == "sg" else "pages"
    return (
        f"{names.get(metric, f'{metric} (ns)')}, {_threads(row['word'])}, {words[1]} {pages}"
    )


def _is_time(row: Row) -> bool:
    return row["metric"] not in ("boot", "groups", *MEMORY)


def _range(row: Row, kernel: str) -> tuple[str, str]:
    low, high = row[f"{kernel}_min"], row[f"{kernel}_max"]
    return _unit(row[kernel]), f"{_unit(low)}–{_unit(high)}" if low else ""


def _cells(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Iterator[dict[str, Any]]:
    """Yield what the page's table has of the wanted rows."""
    for row in filter(wanted, rows):
        cells: dict[str, Any] = {"where": _where(row), "what": _what(row)}
        cells.update(strict=row["strict"], stock=_range(row, "stock"))
        cells["patched"] = _range(row, "patched")
        if row["metric"] in MEMORY:
            cells["says"] = f"{float(row['patched']) - float(row['stock']):+.0f} bytes"
        elif row["ratio"]:
            cells.update(times=_times(row), interval=_interval(row), says=row["says"])
        yield cells


def _is_main(row: Row) -> bool:
    """Whether a row is lazy, and of a machine as it is."""
    return row["strict"] == "0" and row["devices"] == "0"


def small_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table in scripts/README.md."""
    columns = {
        "unmap": "an unmap (ns)",
        "rate": "maps and unmaps in a second",
        "invalidations": "invalidations per 1000 unmaps",
    }
    yield f"| stock → patched: times better | {' | '.join(columns.values())} |"
    yield "|---|---|---|---|"
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        is_shown = re.search("nopt|probe", row["machine"]) and " 1 single " in row["word"]
        if not _is_main(row) or not is_shown:
            continue
        text = f"{_unit(row['stock'])} → {_unit(row['patched'])}"
        if row["ratio"]:
            times = row["says"] if row["says"] == summary.NONE_SEEN else _times(row)
            text += f": {times} ({_interval(row)})"
        label = f"{_where(row)}, {_threads(row['word'])}"
        cells.setdefault(label, {})[row["metric"]] = text
    for label, found in cells.items():
        yield f"| {label} | {' | '.join(found.get(metric, '') for metric in columns)} |"


def finding(rows: Sequence[Row]) -> str:
    """Return what the page has found, as a sentence."""
    text = "In QEMU, behind VT-d without pass-through, with iommu.strict=0, "
    parts = []
    for row in rows:
        if not _is_main(row) or row["machine"] != "vtd-nopt":
            continue
        if not row["word"].startswith("1 1 single"):
            continue
        if row["metric"] == "unmap":
            times = f"{_times(row)} times as fast as before"
            interval = f"95 % interval {_interval(row).replace('–', ' to ')}"
            if row["says"] == summary.NONE_SEEN:
                parts.append(
                    f"no difference is seen in how long an unmap takes ({times}, {interval})"
                )
            else:
                parts.append(f"an unmap is {times} ({interval})")
        if row["metric"] == "invalidations":
            parts.append(
                f"the emulated IOMMU sees {row['patched']} IOTLB invalidations in 1000 unmaps "
                f"instead of {float(row['stock']):.4g}"
            )
    return text + (", and ".join(parts) or "nothing has been measured of unmaps") + "."


def per_domain(rows: Sequence[Row], cpus: str) -> Optional[int]:
    """Return how many bytes more each group takes when it is lazy, or None.

    By the difference between the most and the fewest groups. Flush queues are there for
    each CPU, and what is counted is all of them.
    """
    grown = {}
    groups = {}
    for row in rows:
        if row["cpus"] == cpus and row["devices"] != "0":
            devices = int(row["devices"])
            if row["metric"] == "percpu":
                grown[devices] = float(row["patched"]) - float(row["stock"])
            elif row["metric"] == "groups":
                groups[devices] = float(row["patched"])
    least, most = min(grown, default=0), max(grown, default=0)
    if least == most or not {least, most} <= groups.keys():
        return None
    return round((grown[most] - grown[least]) / (groups[most] - groups[least]))


def _data(rows: Sequence[Row], metric: str) -> Iterator[str]:
    """Yield the lines for a plot: name, values with least and greatest, a full queue."""
    for row in rows:
        is_shown = ":" not in row["machine"] and re.match("[12] 1 single", row["word"])
        if row["metric"] != metric or not _is_main(row) or not is_shown:
            continue
        values = []
        for kernel in ("stock", "patched"):
            value = row[kernel]
            values += [value, row[f"{kernel}_min"] or value, row[f"{kernel}_max"] or value]
        queue = _QUEUE.get(row["machine"].partition("-")[0], 255)
        label = f"{row['machine']}\\n{_threads(row['word'])}"
        yield f'"{label}" {" ".join(values)} {1000 / queue:.10g}'


def _plot(rows: Sequence[Row], metric: str, title: str, commands: str) -> str:
    """Return what gnuplot draws, as part of a page."""
    data = list(_data(rows, metric)) or ['"not measured"' + " 0.01" * 7]
    block = "\n".join(["$data << END", *data, "END"])
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


def _is_required(row: Row) -> bool:
    is_of_both = ":" in row["machine"] and " 1 single " not in row["word"]
    named = re.search("nopt|probe|^vtd$", row["machine"])
    return bool(_is_main(row) and named and not is_of_both and _is_time(row))


def _is_cost(row: Row) -> bool:
    is_shown = row["devices"] != "0" or row["machine"] == "zpci-probe"
    return row["metric"] == "boot" or (row["metric"] in MEMORY and is_shown)


def page(rows: Sequence[Row], about: str) -> str:
    """Return the page."""
    import jinja2  # a package that only this needs

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    nothing = [
        row
        for row in rows
        if summary.may_not_differ(row) and row["devices"] == "0" and _is_time(row)
    ]
    grown = [(cpus, per_domain(rows, cpus)) for cpus in ("1", "4")]
    return environment.get_template("report.html.j2").render(
        finding=finding(rows),
        unmaps=_plot(rows, "unmap", "Nanoseconds for an unmap", _UNMAPS),
        invalidations=_plot(
            rows, "invalidations", "IOTLB invalidations per 1000 unmaps", _INVALIDATIONS
        ),
        required=list(_cells(rows, _is_required)),
        equal=list(_cells(nothing, lambda row: True)),
        cost=list(_cells(rows, _is_cost)),
        sizes=re.findall(r"^(iommu\.o .*)$", about, re.M),
        grown=[(cpus, size) for cpus, size in grown if size is not None],
        about=about,
    )
