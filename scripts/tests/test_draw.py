# SPDX-License-Identifier: GPL-2.0-only
"""Drawn machines: their files, what they have for certain, and what their boots amount to."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import Sequence

import pytest

from workbench import boot, draw, drawn, job, machine, parameters, policy, topology, verdict
from workbench.boots import Result
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED

SEEDS = range(1, 241)


def _job(each: draw.Drawn, kernel: str = "patched") -> job.Job:
    return job.Job(each.machine, kernel, each.way)


def _passed(each: draw.Drawn, kernel: str = "patched") -> Result:
    """What comes of a boot in which all that is to be judged is as it should be."""
    its = _job(each, kernel)
    passed = [
        expected.name
        for expected in job.expected_results(its, 0)
        if expected.skip is not verdict.Skip.ALWAYS
    ]
    types = {device.address: its.type_of(device) for device in its.machine.devices}
    return Result(its, Path("log"), types, passed=passed)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Sequence[draw.Drawn]:
    """A machine for each of many seeds."""
    directory = tmp_path_factory.mktemp("machines")
    return [draw.write(seed, directory) for seed in SEEDS]


def test_a_seed_always_gives_the_same(machines: Sequence[draw.Drawn]) -> None:
    texts = [each.file.read_text() for each in machines]
    assert texts == [draw.text(draw.draw(seed)) for seed in SEEDS]
    assert len(set(texts)) == len(texts)


def test_what_is_drawn_can_be_told_and_judged(machines: Sequence[draw.Drawn]) -> None:
    for each in machines:
        its = each.machine
        told = job.told(_job(each), 0)
        assert len(told) < 256 and len("\n".join(told)) < 16384  # the room in init.c
        grouped = [address for group in its.groups for address in group]
        if its.devices[0].policy.iommu:
            assert {device.address for device in its.devices} <= set(grouped)
        assert len(grouped) == len(set(grouped))
        for number, (_, options) in enumerate(its.plugs, 1):
            bus = next(word[4:] for word in options.split(",") if word.startswith("bus="))
            port = next(word for word in its.qemu if f"id={bus}," in word)
            assert f"slot={number}" in port.split(",")


def test_all_kinds_of_machines_are_drawn(machines: Sequence[draw.Drawn]) -> None:
    names = {each.machine.about.split(",")[0] for each in machines}
    turned_off = {iommu.name for iommu in draw.OFF}
    assert names - turned_off == {iommu.name for iommu in (*draw.IOMMUS, *draw.SCALABLE)}
    assert names >= turned_off
    words = " ".join(word for each in machines for word in each.machine.qemu)
    assert all(driver in words for driver in draw.DRIVERS)
    assert {port.kind for each in machines for port in each.machine.external} == {
        "external",
        "usb4",
    }
    classes = {device.policy.name for each in machines for device in each.machine.devices}
    assert classes >= {"free", "required", "untrusted", "late-free", "late-required"}
    assert {each.way.setting.strict for each in machines} == {"unset", "0", "1"}
    assert {each.way.setting.passthrough for each in machines} == {"unset", "0", "1"}


def test_machines_in_a_row_have_every_class(machines: Sequence[draw.Drawn]) -> None:
    assert len(draw.FORCED) == len(drawn.CLASSES)
    for first in range(0, len(SEEDS), draw.PERIOD):
        row = [_passed(each) for each in machines[first : first + draw.PERIOD]]
        for name, has in drawn.CLASSES.items():
            assert any(map(has, row)), f"{name}, from seed {SEEDS[first]}"


def test_24_machines_in_a_row_have_every_iommu(machines: Sequence[draw.Drawn]) -> None:
    variants = {each.name: draw.NOPT.name for each in draw.SCALABLE}
    variants.update((each.name, draw.NONE.name) for each in draw.OFF)
    names = [each.machine.about.split(",")[0] for each in machines]
    names = [variants.get(name, name) for name in names]
    for first in range(len(names) - 23):
        assert set(names[first : first + 24]) == {iommu.name for iommu in draw.IOMMUS}


def test_what_is_not_judged_has_no_class(machines: Sequence[draw.Drawn]) -> None:
    for each in machines:
        result = _passed(each)
        result.passed = ["types as told"]
        assert not any(has(result) for has in drawn.CLASSES.values())


def test_a_file(tmp_path: Path) -> None:
    drawing = draw.Drawing(1)
    drawing.iommu = draw.NOPT
    drawing.plugs = [2, 1]
    outer = drawing.root_port(0x10, has_acs=False, is_external=True)
    drawing.late_disk(outer)
    inner = drawing.root_port(0x10, 1, has_acs=True)
    bridge = drawing.add("pcie-pci-bridge", inner)
    drawing.disk(bridge, 1)
    drawing.late_disk(drawing.root_port(0x11, has_acs=True, is_external=True, is_usb4=True))
    file = tmp_path / "machine"
    file.write_text(draw.text(drawing))
    each = machine.read_file(file)
    classes = {device.address: device.policy.name for device in each.devices}
    assert classes == {
        "0000:00:02.0": "required",
        "0000:00:03.0": "required",
        "0000:01:00.0": "late-required",
        "0000:03:01.0": "required",
        "0000:04:00.0": "untrusted",
    }
    assert each.groups[2:] == (
        ("0000:00:10.0", "0000:01:00.0"),
        ("0000:00:10.1",),
        ("0000:02:00.0", "0000:03:01.0"),
        ("0000:00:11.0",),
        ("0000:04:00.0",),
    )
    assert [port.table for port in each.external] == ["external-S80.aml", "usb4-S88.aml"]
    assert [address for address, _ in each.plugs] == ["0000:01:00.0", "0000:04:00.0"]
    assert each.bounced == ("0000:01:00.0", "0000:04:00.0")
    assert each.writes == ("0000:04:00.0", "0000:01:00.0")


def test_a_default_is_drawn_where_a_parameter_is_left_to_it(
    machines: Sequence[draw.Drawn],
) -> None:
    settings = {each.seed: each.way.setting for each in machines}
    others = {seed: each for seed, each in settings.items() if each.default != "lazy"}
    assert {each.default for each in others.values()} == {"strict", "passthrough"}
    for seed, each in others.items():
        assert "unset" in (each.strict, each.passthrough)
        assert seed % draw.PERIOD >= len(draw.FORCED) or not each.is_strict
        assert draw.options(each)[-2:] == ["--default", each.default]
        assert f"--default {each.default}\n" in draw.text(draw.draw(seed))
    forty = [each.way.setting for each in machines[:40] if draw.draw(each.seed).iommu.requires]
    assert {"strict", "passthrough"} <= {each.default for each in forty if not each.is_strict}


def test_no_conventional_bridge_behind_virtio_iommu(machines: Sequence[draw.Drawn]) -> None:
    for each in machines:
        if each.machine.about.startswith("virtio-iommu"):
            assert "bridges" not in each.machine.about


def test_amdvi_has_only_what_qemu_knows(machines: Sequence[draw.Drawn]) -> None:
    its = [each.machine for each in machines if each.machine.about.split(",")[0] == "amdvi"]
    assert any(not device.policy.trusted for each in its for device in each.devices)
    for each in its:
        plugged = {address for address, _ in each.plugs}
        assert {
            device.address for device in each.devices if device.address[5:7] != "00"
        } == plugged
        assert each.strict and "intremap=off" in each.append


def _rows(machines: Sequence[draw.Drawn], kernels: Sequence[str]) -> drawn.Rows:
    jobs = [_job(each, kernel) for each in machines for kernel in kernels]
    return drawn.Rows(machines, jobs)


def test_rows(machines: Sequence[draw.Drawn], capsys: pytest.CaptureFixture[str]) -> None:
    some = machines[: draw.PERIOD]
    rows = _rows(some, ("stock", "patched"))
    for kernel in ("stock", "patched"):
        for each in some:
            rows.add(_passed(each, kernel))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(some)
    assert all("as expected" in line for line in lines[1:])
    assert any(line.endswith(" differ") for line in lines)
    assert rows.end() == AS_EXPECTED and not rows.failed()
    assert all(rows.counts.values())


def test_a_class_that_none_has(
    machines: Sequence[draw.Drawn], capsys: pytest.CaptureFixture[str]
) -> None:
    some = machines[: draw.PERIOD]
    rows = _rows(some, ("patched",))
    for each in some:
        result = _passed(each)
        result.passed = [name for name in result.passed if name != "types written"]
        rows.add(result)
    assert rows.end() == NOT_AS_EXPECTED
    assert (
        capsys.readouterr().err
        == "boot: no machine counts for this class: types are written\n"
    )
    few = _rows(some[:1], ("patched",))
    assert few.end() == AS_EXPECTED  # so few need not have any
    stock = _rows(some, ("stock",))  # where none that requires translation can be lazy
    for each in some:
        stock.add(_passed(each, "stock"))
    assert not all(stock.counts.values()) and stock.end() == AS_EXPECTED


def test_a_machine_that_fails(
    machines: Sequence[draw.Drawn], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _rows(machines[:2], ("stock", "patched"))
    for each in machines[:2]:
        for kernel in ("stock", "patched"):
            result = _passed(each, kernel)
            if each is machines[1] and kernel == "patched":
                result.complaints = ["groups as told failed"]
            rows.add(result)
    lines = capsys.readouterr().out.splitlines()
    assert "as expected" in lines[1] and lines[2].endswith("FAILED: patched, see below")
    assert rows.failed() == [machines[1]]
    again, file = drawn.repeat(machines[1], ["--kernel", "patched"])
    assert again.endswith("scripts/boot --random 1 --seed 2 --kernel patched")
    strict = machines[1].way.setting.strict
    assert f"scripts/boot {machines[1].file} --strict {strict} " in file


def test_how_deep(machines: Sequence[draw.Drawn]) -> None:
    depths = set()
    for each in SEEDS:
        for function in draw.draw(each).drivers:
            above = [bridge.kind for bridge in function.above()]
            depths.add(above.count(topology.UPSTREAM))
    assert depths == {0, 1, 2}


_TRUTH = re.compile(r"(?i:(?P<yes>[1ety]|on)|(?P<no>[0dfn]|of))")


def _as_the_kernel_reads(words: Sequence[str]) -> dict[str, str]:
    """Return what is in force, by kstrtobool() and x86's iommu_setup()."""
    found = {"iommu.strict": "unset", "iommu.passthrough": "unset"}
    for word in words:
        name, _, value = word.partition("=")
        match = _TRUTH.match(value)
        if name in found and match:
            found[name] = "1" if match["yes"] else "0"
        if name == "iommu" and value in ("pt", "nopt"):
            found["iommu.passthrough"] = "1" if value == "pt" else "0"
    options = [
        option
        for word in words
        if word.startswith("intel_iommu=")
        for option in word[12:].split(",")
    ]
    if any(option.startswith("strict") for option in options):
        found["iommu.strict"] = "1"  # wherever it stands: it is read last
    return found


def test_parameters(machines: Sequence[draw.Drawn]) -> None:
    """Whatever else is drawn, the setting of a machine is in force."""
    overruled = set()
    drawn_words: set[str] = set()
    for each in machines:
        words = each.machine.append
        drawn_words.update(words)
        setting = each.way.setting
        want = {"iommu.strict": setting.strict, "iommu.passthrough": setting.passthrough}
        assert _as_the_kernel_reads([*words, *each.way.words]) == want
        is_off = each.machine.about.split(",")[0].endswith("-off")
        given = [*words, *each.way.words]
        assert is_off == any(re.search(r"iommu=(.*,)?off", word) for word in given)
        for name, value in _as_the_kernel_reads(words).items():
            overruled |= {name} if value not in ("unset", want[name]) else set()
    assert overruled == {"iommu.strict", "iommu.passthrough"}
    assert drawn_words >= {"intel_iommu=sm_on,strict", "intel_iommu=banana"}
    deciding = {word for each in machines for word in each.way.words}
    assert deciding >= {"intel_iommu=strict", "iommu=pt", "iommu=nopt", "iommu.strict=OFF"}


def test_scalable_mode_is_judged_where_it_is(machines: Sequence[draw.Drawn]) -> None:
    for each in machines:
        its = _job(each)
        has = each.machine.about.split(",")[0] in ("vtd-scalable", "vtd-flts")
        assert not has or "bridges" not in each.machine.about
        names = [expected.name for expected in job.expected_results(its, 0)]
        assert ("scalable" in job.told(its, 0)) == ("scalable mode" in names) == has


def test_scalable_mode_that_is_off_is_not_judged() -> None:
    way = job.Way(policy.Setting("1"), ("intel_iommu=sm_off",))
    off = job.Job(machine.read("vtd-scalable"), "patched", way)
    assert not job.is_scalable(off)
    assert job.is_scalable(dataclasses.replace(off, way=job.Way(policy.Setting("1"))))


@pytest.mark.parametrize("has_scalable", [True, False])
def test_scalable_mode_is_not_turned_off_by_chance(has_scalable: bool) -> None:
    words = [
        word
        for seed in SEEDS
        for word in parameters.drawn(random.Random(seed), policy.Setting("0"), has_scalable)
    ]
    assert any("sm_off" in word for word in words) != has_scalable


def test_settings_are_counted_however_they_are_spelled(
    machines: Sequence[draw.Drawn], capsys: pytest.CaptureFixture[str]
) -> None:
    boot._say_how_many([_job(each) for each in machines], ["patched"], 3)
    found = len({each.way.setting for each in machines})
    assert f" {found} settings," in capsys.readouterr().err


def test_a_file_has_the_parameters_as_usual(machines: Sequence[draw.Drawn]) -> None:
    for each in machines:
        said = drawn.repeat(each, ["--append", "quiet"])[1]
        assert said.endswith(" --append quiet")
        assert ("parameters as usual" in said) == bool(each.way.words)
