# SPDX-License-Identifier: GPL-2.0-only
"""Figures: what becomes of what a guest says, and how they are compared; and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from workbench import bench, figures, kernel, machine, measures, model, page
from workbench.status import CannotTell

CALLS = measures.Measure(measures.CALLS, "vtd-nopt", ("map=1,single", "map=16,sg"))
TRACE = """serial_write write addr 0x00 val 0x41
vtd_inv_desc_iotlb_pages before
serial_write write addr 0x03 val 0x02
serial_write write addr 0x00 val 0x02
vtd_inv_desc_iotlb_pages one
serial_write write addr 0x00 val 0x42
vtd_inv_desc_iotlb_domain two
serial_write write addr 0x00 val 0x03
vtd_inv_desc_iotlb_pages between
pl011_write addr 0x000 value 0x00000002 reg DR
pl011_write addr 0x000 value 0x00000003 reg DR
"""
CONSOLE = """# bench all 1,single 1250
# bench loops 1,single 1000
# bench map 1,single 500250
# bench unmap 1,single 700000
# bench all 16,sg 1250
# bench loops 16,sg 1000
# bench map 16,sg 1000
# bench unmap 16,sg 2000
# bench choose - 93
"""


def _outcome(console: str, counts: list[int]) -> bench.Outcome:
    machines = {"vtd-nopt": machine.read("vtd-nopt")}
    boot = bench.plan([CALLS], machines)[0]
    return bench.Outcome(boot, console, counts)


def _row(value: str, **more: str) -> figures.Row:
    row = dict.fromkeys(figures.COLUMNS, "")
    row.update(machine="vtd-nopt", kernel="patched", strict="0", metric="unmap")
    row.update(word="1 single", unit="instructions", value=value)
    return {**row, **more}


def test_a_plan() -> None:
    machines = {"vtd-nopt": machine.read("vtd-nopt")}
    memory = measures.Measure(measures.MEMORY, "vtd-nopt", ("1,255", "0,60"))
    load = measures.Measure(measures.LOAD, "vtd-nopt", ("nvme-1",))
    boots = bench.plan([CALLS, memory, load], machines, ("untrusted",))
    assert len(boots) == 4 + 2 * 4 + 4 * bench.TIMES
    assert len({boot.name for boot in boots}) == len(boots)
    assert {boot.columns["with"] for boot in boots} == {"untrusted"}


def test_what_is_between_marks(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(TRACE)
    assert list(bench._between_marks(trace)) == [2, 0]


def test_figures_of_a_boot() -> None:
    rows = list(_outcome(CONSOLE, [1250, 1250]).rows())
    found = {(row["metric"], row["word"]): row["value"] for row in rows}
    assert found["map", "1 single"] == "500.25" and found["unmap", "1 single"] == "700"
    assert found["invalidations", "1 single"] == "1000"
    assert found["invalidations", "16 sg"] == "1000" and found["choose", ""] == "93"
    with pytest.raises(CannotTell, match="not every invalidation is counted"):
        list(_outcome(CONSOLE, [1250, 5]).rows())
    with pytest.raises(CannotTell, match="marks are missing"):
        list(_outcome(CONSOLE, [1]).rows())
    with pytest.raises(CannotTell, match="marks are missing"):
        list(_outcome(CONSOLE, []).rows())


def test_a_file_of_figures(tmp_path: Path) -> None:
    file = tmp_path / "bench.csv"
    figures.write(file, [_row("700.25")])
    assert figures.read(file) == [_row("700.25")]
    written = file.read_text()
    broken = (written.replace("700.25", "many"), written.rpartition(",")[0])
    for content in ("", "x,y\n1,2\n", *broken):
        file.write_text(content)
        with pytest.raises(CannotTell, match="must be a bench.csv"):
            figures.read(file)


def test_a_baseline_names_what_differs() -> None:
    slower = _row("720.25", **{"with": "slower"})
    found = figures.compare([_row("700.25"), _row("5", metric="map")], [slower])
    assert not found.is_good
    assert found.lines[0] == (
        "not as before, vtd-nopt patched iommu.strict=0 unmap 1 single with slower: "
        "700.25 → 720.25: +20.00, +2.86 %, instructions"
    )
    assert found.lines[1:] == [
        "0 of 1 figures are the same as before",
        "1 of the baseline were not measured",
    ]
    assert figures.compare([_row("700.25")], [_row("700.25")]).is_good
    with pytest.raises(CannotTell):
        figures.compare([_row("1", metric="map")], [_row("1")])


@pytest.mark.parametrize(
    "machine_, strict, now, is_good",
    [
        ("vtd-nopt", "1", "1000", True),
        ("vtd-nopt", "1", "1002", True),
        ("vtd-nopt", "1", "1003", False),
        ("vtd", "0", "990", False),
        ("vtd-nopt", "0", "500", True),  # there they have to differ
    ],
)
def test_where_nothing_may_differ(machine_: str, strict: str, now: str, is_good: bool) -> None:
    where = {"machine": machine_, "strict": strict}
    rows = [_row("1000", kernel="stock", **where), _row(now, **where)]
    assert figures.alike(rows).is_good is is_good


def _memory(kernel_: str, percpu: int) -> list[figures.Row]:
    where = {"kernel": kernel_, "cpus": "4", "ports": "0", "word": ""}
    values = {"groups": 3, "percpu": percpu, "pages": 4 * percpu}
    return [_row(str(value), metric=metric, **where) for metric, value in values.items()]


@pytest.mark.parametrize(
    "more, is_good", [(30768, True), (30784, True), (30832, False), (0, False)]
)
def test_how_memory_grows(more: int, is_good: bool) -> None:
    rows = [*_memory("stock", 1000), *_memory("patched", 1000 + more), _row("5")]
    assert list(figures.growth(rows)) == [figures.Growth(4, 3, 4 * more, 4 * more)]
    found = figures.grows_as_told(rows)
    assert found.is_good is is_good and f"{int(is_good)} of 1 times" in found.lines[-1]
    assert not figures.grows_as_told([_row("5")]).lines


def test_a_diff_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.patch"
    file.write_text("")
    kernel.check_related([str(file), "untrusted"], own=True)
    for names, own in (([str(file)], False), ([f"{file}x"], True), ([str(file)] * 2, True)):
        with pytest.raises(CannotTell, match="--with"):
            kernel.check_related(names, own)


UNMAP = model.Unmap(strict=800, lazy=600, shared=250)


def _rate(limit: str, passthrough: Optional[float] = None) -> model.Rate:
    wait = model.Wait("IOMMU", 500, None, "", "")
    return model.Rate("some", limit, 2, 1e6, passthrough, 8, 2, wait, "", "")


def test_the_model() -> None:
    assert UNMAP.time(1000, is_lazy=False) == 800 / model.MIDDLE + 1000
    assert UNMAP.time(1000, is_lazy=True) == 600 / model.MIDDLE + 4
    by_unit, by_cpu = _rate("unit", 8), _rate("cpu")
    assert model.strict_rate(by_unit, UNMAP, 500) == 4  # 2 units, each 2 million a second
    assert model.strict_rate(by_unit, UNMAP, 100) == 8  # no more than when lazy
    assert model.lazy_rate(by_unit, UNMAP, 500) == 8 and not model.lazy_rate(by_cpu, UNMAP, 5)
    for rate in (by_unit, by_cpu):
        needed = model.needed_wait(rate, UNMAP)
        assert model.strict_rate(rate, UNMAP, needed) == pytest.approx(rate.strict)
    how = [each.how for each in model.predict([by_unit, by_cpu], UNMAP)]
    assert how == ["strict", "lazy", "strict"]
    assert model.times(model.Wait("", 100, None, "", ""), UNMAP, False) == [300, 900]
    assert model.ends([3, 1, 2]) == [1, 3] and model.ends([1, 1]) == [1] and not model.ends([])
    assert model.error(3, 2) == "+50.0 %"


def test_what_is_published() -> None:
    waits, rates = model.read()
    sources = [each.source for each in waits] + [each.source for each in rates]
    assert waits and rates and all(sources)


@pytest.mark.parametrize(
    "line, says",
    [
        ("wait a 1 2 b", "not enough values"),
        ("wait a x 2 b c", "could not convert"),
        ("rate a disk 1 1 1 1 1 - b c", "'disk': must be one of: unit cpu"),
        ("rate a cpu 1 1 1 1 1 SMMU b c", "'SMMU': must be one of: -"),
        ("figure a", "'figure': must be one of: wait rate"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "published"
    file.write_text(line)
    with pytest.raises(CannotTell) as raised:
        model.read(file)
    assert f"{file}:1: " in str(raised.value) and says in str(raised.value)


def test_the_small_table() -> None:
    rows = [_row("1400.5", kernel="stock"), _row("700"), _row("9", machine="vtd")]
    lines = list(page.small_table(rows))
    assert len(lines) == 2 + 5 and lines[2] == "| instructions of an unmap | 1400.5 | 700 |"
    assert "Nothing was measured" in page.finding(rows)
