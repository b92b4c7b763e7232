# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts on consoles as guests have left them, by the kernel's own parser."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workbench import job, machine, mutate, policy, suites, verdict
from workbench.guest import Outcome
from workbench.status import CannotTell
from workbench.verdict import Expected, Skip

GOOD = """command: qemu
[    0.1] Linux version\r
TAP version 13\r
1..3\r
    TAP version 13\r
    # 0000:00:02.0 group 1 DMA\r
    1..2\r
    ok 1 group 1 type\r
    ok 2 group 2 type # SKIP DMA: by sysfs\r
    # Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0\r
ok 1 types\r
ok 2 0000:00:02.0 bounces # SKIP no bounce buffers here\r
# the kernel says nothing\r
ok 3 kernel log\r
"""
WANTED = [
    Expected("types", parts_skipped=("DMA: ",)),
    Expected("0000:00:02.0 bounces", Skip.ALWAYS),
    Expected("kernel log"),
]


def _said(parser: verdict.Parser, console: str, wanted: "list[Expected]" = WANTED) -> str:
    return "; ".join(verdict.complaints(parser.parse(console), wanted))


def test_good(parser: verdict.Parser) -> None:
    assert _said(parser, GOOD) == ""


def test_threads_share_a_parser(parser: verdict.Parser) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    consoles = [GOOD.replace("by sysfs", f"reason {number % 5}") for number in range(200)]
    try:
        with ThreadPoolExecutor(4) as executor:
            found = list(executor.map(parser.parse, consoles))
    finally:
        sys.setswitchinterval(before)
    reasons = [[leaf.reason for leaf in report.leaves()][1] for report in found]
    assert reasons == [f"DMA: reason {number % 5}" for number in range(200)]


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("ok 3 kernel log\r\n", "", "2 results, and 3 planned"),
        ("ok 3", "not ok 3", "kernel log failed"),
        ("ok 3 kernel log", "ok 3 kernel log # SKIP a reason", "was skipped: a reason"),
        (" # SKIP no bounce buffers here", "", "should have been skipped"),
        (
            "ok 3 kernel log\r\n",
            "ok 3 kernel log\r\nok 4 more\r\n",
            "4 results, and 3 planned",
        ),
        ("1..3\r", "1..2\r", "results, and 2 planned"),
        ("kernel log", "another", "'another' was not asked for"),
        ("    ok 1 group", "    not ok 1 group", "types: group 1 type failed"),
        ("DMA: by sysfs", "nobody knows", "types: group 2 type was skipped: nobody knows"),
        ("    ok 2 group 2 type # SKIP DMA: by sysfs\r\n", "", "types"),
        ("TAP version", "tap version", "it has reported nothing"),
        ("ok 3 kernel log", "ok 3 types", "'kernel log' was not reported"),
    ],
)
def test_each_fault_is_found(parser: verdict.Parser, old: str, new: str, says: str) -> None:
    assert old in GOOD
    said = _said(parser, GOOD.replace(old, new))
    assert says in said


def test_a_skip_does_not_hide_behind_one_of_the_same_name(parser: verdict.Parser) -> None:
    part = """    TAP version 13
    1..1
    ok 1 group 1 type # SKIP {}
ok {} {}
"""
    console = "TAP version 13\n1..2\n"
    console += part.format("nobody knows", 1, "first") + part.format(
        "DMA: by sysfs", 2, "second"
    )
    wanted = [Expected(name, parts_skipped=("DMA: ",)) for name in ("first", "second")]
    assert _said(parser, console, wanted) == "first: group 1 type was skipped: nobody knows"


def test_nothing_at_all(parser: verdict.Parser) -> None:
    assert _said(parser, "") == "it has reported nothing"
    assert _said(parser, "Kernel panic\n") == "it has reported nothing"


def test_a_judge_without_parts(parser: verdict.Parser) -> None:
    empty = "TAP version 13\n1..2\n    TAP version 13\n    1..0 # SKIP no IOMMU\n"
    empty += "ok 1 types\nok 2 kernel log\n"
    wanted = [Expected("types", is_empty=True), WANTED[2]]
    assert _said(parser, empty, wanted) == ""
    assert _said(parser, empty, [Expected("types"), WANTED[2]]) == "types failed"
    assert _said(parser, empty.replace("ok 1", "not ok 1"), wanted)
    assert _said(parser, GOOD, [wanted[0], *WANTED[1:]])


KTAP = """KTAP version 1
1..1
    KTAP version 1
    # Subtest: iommu
    # module: iommu
    1..2
        KTAP version 1
        # Subtest: every_group
        ok 1 lazy
        ok 2 strict
    ok 1 every_group
    ok 2 no_dma_iommu # SKIP needs CONFIG_IOMMU_DMA unset
# iommu: pass:1 fail:0 skip:1 total:2
ok 1 iommu
reboot soon
TAP version 13
1..2
    KTAP version 1
    1..1
        KTAP version 1
        # Subtest: iommu
        1..2
            KTAP version 1
            # Subtest: every_group
            ok 1 lazy
            ok 2 strict
        ok 1 every_group
        ok 2 no_dma_iommu # SKIP
    ok 1 iommu
ok 1 iommu again
ok 2 kernel log
"""
REASON = ("needs CONFIG_IOMMU_DMA unset",)


def _tally(parser: verdict.Parser, console: str, why: str = "") -> suites.Tally:
    return suites.tally(console, Outcome(why), parser, REASON)


def test_kunit(parser: verdict.Parser) -> None:
    found = _tally(parser, KTAP)
    assert (found.passed, found.failed, found.skipped, found.why) == (5, 0, 2, "")
    assert found.skips == {("no_dma_iommu", REASON[0]), ("no_dma_iommu", "")}


@pytest.mark.parametrize(
    "old, new, name",
    [
        (
            "        ok 2 strict\n    ok 1",
            "        not ok 2 strict\n    not ok 1",
            "every_group",
        ),
        (
            "needs CONFIG_IOMMU_DMA unset",
            "I am tired",
            "no_dma_iommu was skipped (I am tired)",
        ),
        ("ok 2 kernel log", "not ok 2 kernel log", "kernel log"),
        ("ok 2 kernel log\n", "ok 2 kernel log\nnot ok 3 more\n", "3 results of 2"),
        ("reboot soon", "not ok 2 other", "2 results of 1"),
    ],
)
def test_kunit_that_fails(parser: verdict.Parser, old: str, new: str, name: str) -> None:
    found = _tally(parser, KTAP.replace(old, new, 1))
    assert found.failed and any(each.startswith(name) for each in found.names)


def test_kunit_that_did_not_run(parser: verdict.Parser) -> None:
    assert _tally(parser, "KTAP version 1\n1..0\nTAP version 13\n1..1\nok 1 kernel log\n").why
    assert (
        _tally(parser, KTAP.split("TAP version 13")[0]).why
        == "it has not run the suites again"
    )
    assert _tally(parser, KTAP, "no end within 1 s, killed").failed == 1
    assert _tally(parser, "").failed
    with pytest.raises(CannotTell, match="QEMU failed"):
        suites.tally(KTAP, Outcome(fault="QEMU failed, status 1"), parser, REASON)


def test_what_kills_a_mutant(parser: verdict.Parser) -> None:
    assert not mutate.killers(_tally(parser, KTAP))
    died = _tally(parser, KTAP.split("TAP version 13")[0])
    assert mutate.killers(died) == "it has not run the suites again"
    assert not mutate.killers(_tally(parser, "Linux version 7.3\n", "no end, killed"))


def _job(name: str, kernel: str, strict: str = "0", passthrough: str = "unset") -> job.Job:
    way = job.Way(policy.Setting(strict, passthrough))
    return job.Job(machine.read(name), kernel, way)


def test_what_is_told_is_what_has_to_be_reported() -> None:
    each = _job("vtd-nopt-external", "patched")
    names = [expected.name for expected in job.expected_results(each, 1)]
    assert len(names) == len(set(names)) == 2 + 1 + 9 + 1 + 9 + 2 + 1
    told = job.told(each, 1)
    assert "0000:01:00.0=DMA" in told and "0000:00:02.0=DMA-FQ" in told
    assert "count=host" in told and "plug=0000:01:00.0" in told and "remapped" in told


# What scripts/boot vtd-nopt-external --kernel patched --strict 0 --console has printed
RECORDED = (Path(__file__).parent / "console").read_text()
_RESULT = re.compile(r"^(?: {4})?(?=ok \d+ )", re.M)


def test_a_recorded_console(parser: verdict.Parser) -> None:
    wanted = job.expected_results(_job("vtd-nopt-external", "patched"), 1)
    assert _said(parser, RECORDED, wanted) == ""
    results = [match.end() for match in _RESULT.finditer(RECORDED)]
    assert len(results) > len(wanted)
    for place in results:
        before, after = RECORDED[:place], RECORDED[place:]
        line, _, rest = after.partition("\n")
        assert _said(parser, before + rest, wanted), line
        if " # SKIP " not in line:
            assert _said(parser, f"{before}not {after}", wanted), line


@pytest.mark.parametrize("name", ["amdvi", "smmuv3", "virtio-iommu", "none"])
def test_interrupts_are_remapped_by_vtd_alone(name: str) -> None:
    assert job.is_remapped(_job("vtd", "stock"))
    assert not job.is_x2apic(_job("vtd", "stock")) and job.is_x2apic(_job("vtd-flts", "stock"))
    assert not job.is_x2apic(_job("vtd-flts", "stock", "off"))
    assert not job.is_remapped(_job(name, "stock"))
    assert not job.is_remapped(_job("vtd", "stock", "off"))


def test_skips_are_expected_only_where_nothing_can_be_judged() -> None:
    skips = {
        expected.name: expected.skip
        for expected in job.expected_results(_job("vtd-nopt", "stock"), 1)
    }
    assert skips["0000:00:02.0 invalidates"] is Skip.NEVER
    assert skips["0000:00:03.0 invalidates"] is Skip.ALWAYS  # NVMe
    assert skips["0000:00:02.0 bounces"] is Skip.ALWAYS
    assert skips["types as told"] is skips["kernel log"] is Skip.NEVER


def test_the_selftest_has_to_fail_on_stock_where_it_can_see_why() -> None:
    assert "too-strict" in job.told(_job("vtd-nopt", "stock"), 1)
    assert "too-strict" in job.told(_job("vtd-nopt", "tests"), 1)
    assert "too-strict" not in job.told(_job("vtd-nopt", "patched"), 1)
    assert "too-strict" not in job.told(_job("vtd-nopt", "commit"), 1)
    assert "too-strict" not in job.told(_job("vtd-nopt", "stock", "1"), 1)
    assert "too-strict" not in job.told(_job("vtd-nopt", "stock", "0", "1"), 1)
    assert "too-strict" not in job.told(_job("smmuv3-probe", "stock"), 1)
    assert "too-strict" not in job.told(_job("vtd", "stock"), 1)


def test_a_driver_that_forces_strict() -> None:
    each = _job("vtd-nopt-cm", "patched", "0")
    assert each.type_of(each.machine.devices[0]) == "DMA"
    off = _job("amdvi", "patched", "off")
    assert off.type_of(off.machine.devices[0]) == "none"
