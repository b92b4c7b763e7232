# SPDX-License-Identifier: GPL-2.0-only
"""Loads: the data file, what is right for each, and what a table makes of what guests say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Sequence

import pytest

from workbench import boots, guest, job, loads, machine, policy
from workbench.status import CannotTell

ROW = "nvme-32 0000:00:03.0 iova 32"
LOADS = [loads.Load("disk", "0000:00:02.0", "read", 32), loads.Load("iova", "x", "iova", 32)]


def _job(name: str, kernel: str, strict: str, *related: str) -> job.Job:
    way = next(way for way in loads.STRICT_FIRST if way.setting.strict == strict)
    return job.Job(machine.read(name), kernel, way, related)


def test_all_of_ours() -> None:
    found = loads.read()
    assert {load.how for load in found} == set(loads.HOWS)
    for name in loads.MACHINES:
        loads.check(machine.read(name), found)


@pytest.mark.parametrize(
    "line, says",
    [
        ("disk 0000:00:02.0 read", "must be NAME DEVICE HOW NUMBER"),
        ("disk 0000:00:02.0 read many", "must be NAME DEVICE HOW NUMBER"),
        ("disk 00:02.0 read 1", "'00:02.0': must be a PCI device"),
        ("disk 0000:00:02.0 write 1", "'write': must be one of: read iova"),
        (ROW, "'nvme-32' comes a second time"),
        ("disk 0000:00:02.0 read 1 -device 'a", "no closing quotation"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "loads"
    file.write_text(f"# a comment\n{ROW}\n{line}\n")
    with pytest.raises(CannotTell) as raised:
        loads.read(file)
    assert f"{file}:3: " in str(raised.value) and says in str(raised.value)


@pytest.mark.parametrize("name", ["virtio-iommu", "zpci", "vtd-late", "vtd-nopt-external"])
def test_machines_that_cannot_be_judged(name: str) -> None:
    with pytest.raises(CannotTell, match=f"'{name}'"):
        loads.check(machine.read(name), loads.read())


def test_a_device_that_nobody_adds() -> None:
    added = dataclasses.replace(LOADS[1], device="0000:00:0c.0")
    with pytest.raises(CannotTell, match="has no 0000:00:0c.0 for iova"):
        loads.check(machine.read("vtd"), [added])
    loads.check(machine.read("vtd"), [dataclasses.replace(added, qemu=("-device", "a"))])


# Machine, kernel, setting and patches; then what a disk is, and what dma_iova_destroy() is
@pytest.mark.parametrize(
    "name, kernel, strict, related, disk, iova",
    [
        ("vtd", "stock", "1", (), "strict", "strict"),
        ("vtd", "stock", "0", (), "lazy", "waits"),
        ("vtd", "patched", "0", ("untrusted",), "lazy", "waits"),
        ("vtd", "patched", "0", ("untrusted", "iova-destroy"), "lazy", "lazy"),
        ("vtd", "patched", "1", ("iova-destroy",), "strict", "strict"),
        ("vtd-nopt", "stock", "0", (), "strict", "strict"),
        ("vtd-nopt", "patched", "0", (), "lazy", "waits"),
        ("vtd-nopt-cm", "patched", "0", ("iova-destroy",), "strict", "strict"),
    ],
)
def test_what_is_right(
    name: str, kernel: str, strict: str, related: Sequence[str], disk: str, iova: str
) -> None:
    each = _job(name, kernel, strict, *related)
    assert [loads.expectation(each, load) for load in LOADS] == [disk, iova]


def test_what_is_told_is_what_has_to_be_reported(tmp_path: Path) -> None:
    booter = loads.Booter(boots.How(), tmp_path, None, loads=LOADS)  # type: ignore[arg-type]
    each = _job("vtd", "patched", "0")
    told = booter.told(each)
    assert told == [
        "loads",
        "count=host",
        "disk lazy 0000:00:02.0 read 32",
        "iova waits x iova 32",
    ]
    assert [each.name for each in booter.expected(each)] == [
        "disk lazy",
        "iova waits",
        "kernel log",
    ]


def test_no_disk_has_a_file(tmp_path: Path) -> None:
    booter = loads.Booter(boots.How(), tmp_path, None, loads=LOADS)  # type: ignore[arg-type]
    disks = [word for word in booter.options(_job("vtd", "stock", "1")) if "node-name" in word]
    assert len(disks) == guest.DISKS
    assert all(word.startswith("null-co,node-name=disk") for word in disks)


def _result(
    tmp_path: Path, each: job.Job, passed: Sequence[str], disk: str, iova: str
) -> boots.Result:
    log = tmp_path / each.name
    log.write_text(f"# load disk 9999 9999\r\n# load disk {disk}\r\n# load iova {iova}\r\n")
    return boots.Result(each, log, passed=passed)


def _table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strict_passed: Sequence[str]
) -> tuple[list[str], boots.Result]:
    jobs = [_job("vtd-nopt", "patched", strict) for strict in ("0", "1")]
    rows = loads.Rows(LOADS, jobs)
    lazy = _result(tmp_path, jobs[0], ["disk lazy", "iova waits"], "35 8700", "515 512")
    rows.add(lazy)
    assert not capsys.readouterr().out
    rows.add(_result(tmp_path, jobs[1], strict_passed, "8700 8700", "524 512"))
    return capsys.readouterr().out.splitlines(), lazy


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, lazy = _table(tmp_path, capsys, ["disk strict", "iova strict"])
    assert [line.split() for line in lines[1:6]] == [
        ["vtd-nopt"],
        ["patched"],
        ["iommu.strict", "1", "0"],
        ["disk", "1.00", "0.004"],
        ["iova", "1.02", "1.01*"],
    ]
    assert lines[6].startswith("* ") and not lazy.complaints


def test_lazy_proves_nothing_where_strict_was_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, lazy = _table(tmp_path, capsys, ["iova strict"])
    assert lines[4].split() == ["disk", "1.00!", "0.004!"]
    assert lines[5].split() == ["iova", "1.02", "1.01*"]
    assert list(lazy.complaints) == [
        "disk proves nothing: the boot with iommu.strict=1 did not pass it"
    ]


def test_what_did_not_boot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [_job("vtd", "stock", strict) for strict in ("1", "0")]
    rows = loads.Rows(LOADS, jobs)
    for each in jobs:
        rows.add(boots.Result(each, tmp_path / "none", complaints=["killed"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split() == ["disk", "-!", "-!"]


def test_what_is_invalidated() -> None:
    assert policy.invalidates("DMA", True, ["iova-destroy"]) == "strict"
    assert policy.invalidates("DMA-FQ", False, []) == "lazy"
