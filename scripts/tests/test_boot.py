# SPDX-License-Identifier: GPL-2.0-only
"""What scripts/boot makes of its options, and of what guests have left."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Sequence

import pytest

from workbench import base as bases
from workbench import (
    boot,
    boots,
    job,
    kernel,
    machine,
    packages,
    policy,
    setup,
    table,
    verdict,
)
from workbench.guest import Outcome
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell


def _jobs(*arguments: str) -> list[job.Job]:
    asked = boot.options().parse(arguments)
    boot._refuse_together(asked)
    chosen = boot.choose(asked)
    names = [asked.kernel] if asked.kernel else ["stock", "patched"]
    return boot._jobs(chosen, boot.ways(asked, chosen), names)


def _machines(jobs: Sequence[job.Job]) -> list[str]:
    return list(dict.fromkeys(each.machine.name for each in jobs))


def test_the_main_job() -> None:
    jobs = _jobs()
    assert _machines(jobs) == ["vtd", "vtd-nopt", "vtd-nopt-external"]
    assert len(jobs) == 3 * 2 * 2


def test_all() -> None:
    assert len(_jobs("--all")) == 18 * len(machine.names())
    assert len(_jobs("--all", "vtd")) == 18
    assert len(_jobs("--all", "--arch", "s390")) == 2 * 18


@pytest.mark.parametrize("order", [("--strict", "1", "--all"), ("--all", "--strict", "1")])
def test_all_of_one_setting(order: Sequence[str]) -> None:
    jobs = _jobs(*order)
    assert {each.way.setting.strict for each in jobs} == {"1"}
    assert {each.way.setting.passthrough for each in jobs} == {"unset", "0", "1"}
    assert len(jobs) == len(machine.names()) * 3 * 2


def test_default() -> None:
    jobs = _jobs("--default", "passthrough", "vtd")
    settings = [each.way.setting for each in jobs if each.kernel == "stock"]
    asked = [(each.strict, each.passthrough) for each in settings]
    assert asked == [("unset", "unset"), ("0", "unset"), ("1", "unset")] + [
        ("unset", "0"),
        ("unset", "1"),
    ]
    assert {each.default for each in settings} == {"passthrough"}
    lazy = [each.way.setting for each in _jobs("--default", "lazy", "vtd")]
    assert lazy == [dataclasses.replace(each.way.setting, default="lazy") for each in jobs]
    only = _jobs("--default", "strict", "--strict", "0", "vtd", "--kernel", "stock")
    assert [each.way.words for each in only] == [("iommu.strict=0",)]
    assert len(_jobs("--default", "strict", "--all")) == 5 * 2 * len(machine.names())


def test_an_alternative_boots_with_vtd_and_without_a_probe() -> None:
    """The probe's diff does not apply to it."""
    names = _machines(_jobs("--alternative", "two-ops", "--all"))
    assert {"vtd", "vtd-nopt", "vtd-flts"} <= set(names)
    assert not {"vtd-mixed", "virtio-iommu", "amdvi"} & set(names)
    assert not any(machine.read(name).probe for name in names)


@pytest.mark.parametrize(
    "words, says",
    [
        ("vtd --events --kernel patched --strict 0", "these are 11: give one --event"),
        ("vtd --all --kernel patched --strict 0", "these are 3: give one --passthrough"),
        ("vtd", "these are 4: give one --kernel, one --strict"),
        ("--random 1", "these are 2: give one --kernel"),
        ("--image a --image b vtd --strict 0", "these are 2: give one --image"),
    ],
)
def test_what_is_missing_for_a_console(words: str, says: str) -> None:
    asked = boot.options().parse([*words.split(), "--console"])
    boot._refuse_together(asked)
    plan = boot._plan(asked)
    names = asked.image or ([asked.kernel] if asked.kernel else ["stock", "patched"])
    jobs = boot._asked_jobs(asked, plan.chosen, plan.ways, names)
    with pytest.raises(CannotTell, match=f"{says}$"):
        boot._check_console(asked, jobs)


def test_kvm_runs_what_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, how: True)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    assert _machines(_jobs("--accel", "kvm", "vtd")) == ["vtd"]
    with pytest.raises(CannotTell, match="'smmuv3': --accel 'kvm' cannot run arm64 here"):
        _jobs("--accel", "kvm", "smmuv3")


def test_what_debug_takes_is_in_mainline(stock: Path) -> None:
    assert (stock / boot.DEBUG_NEEDS).is_file()


def test_options_may_come_between_machines() -> None:
    assert _machines(_jobs("vtd", "--strict", "0", "vtd-nopt")) == ["vtd", "vtd-nopt"]


def test_a_machine_by_its_file(tmp_path: Path) -> None:
    text = (machine.MACHINES / "vtd").read_text()
    (tmp_path / "mine").write_text(text)
    jobs = _jobs(str(tmp_path / "mine"), "vtd", "--strict", "0")
    assert _machines(jobs) == ["mine", "vtd"]
    (tmp_path / "vtd").write_text(text + "strict yes\n")
    with pytest.raises(CannotTell, match="another one has this name"):
        _jobs("vtd", str(tmp_path / "vtd"))


def test_random(tmp_path: Path) -> None:
    asked = boot.options().parse(["--random", "3", "--seed", "7"])
    plan = boot._plan(asked)
    assert [each.seed for each in plan.drawn] == [7, 8, 9]
    assert [each.name for each in plan.chosen] == ["random-7", "random-8", "random-9"]
    alone = boot._plan(boot.options().parse(["--random", "1", "--seed", "8"]))
    assert (
        alone.chosen[0] == plan.chosen[1] and alone.ways["random-8"] == plan.ways["random-8"]
    )
    assert boot._how(asked).replugs == 0
    assert boot._plan(boot.options().parse(["--random", "1"])).drawn[0].seed > 0


def test_what_is_given_again_to_repeat_a_machine() -> None:
    words = ["--kernel", "patched", "--timeout", "90", "--with", "untrusted"]
    asked = boot.options().parse(["--random", "3", "--seed", "7", *words, "--debug"])
    assert boot._given(asked) == [*words, "--debug"]
    assert not boot._given(boot.options().parse(["--random", "3", "--accel", "tcg"]))


def test_what_a_base_lacks_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lts = bases.Base("lts", tmp_path)
    (tmp_path / "version").write_text("6.12")
    monkeypatch.setattr(kernel, "lacks", lambda base, needs, probe: "x" if probe else "")
    chosen = [machine.read(name) for name in ("smmuv3", "smmuv3-probe")]
    assert boot._leave_out(chosen, lts, []) == chosen[:1]
    assert "boot: smmuv3-probe is left out: 6.12 lacks x" in capsys.readouterr().err
    with pytest.raises(CannotTell, match="machine 'smmuv3-probe': 6.12 lacks x"):
        boot._leave_out(chosen, lts, chosen[1:])
    with pytest.raises(CannotTell, match="6.12 lacks what these machines need"):
        boot._leave_out(chosen[1:], lts, [])


def test_a_diff_whose_name_make_cannot_take_is_refused(tmp_path: Path) -> None:
    for name in ("my-1.patch", "my change.patch", "a:b.patch"):
        (tmp_path / name).write_text("")
    kernel.check_related([str(tmp_path / "my-1.patch")], own=True)
    for name in ("my change.patch", "a:b.patch"):
        with pytest.raises(CannotTell, match=f"{name}': the kernel's make wants a name"):
            kernel.check_related([str(tmp_path / name)], own=True)


@pytest.mark.parametrize("name, wanted", [("vtd", False), ("vtd-nopt-external", True)])
def test_iasl_is_installed_for_tables_alone(
    name: str, wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs: list[packages.Need] = []
    monkeypatch.setattr(packages, "install", lambda wants, log: needs.extend(wants))
    monkeypatch.setattr(bases, "fetch", lambda base: None)
    setup.prepare_machines(bases.Base("toy", tmp_path), [machine.read(name)])
    assert (packages.ACPI[0] in needs) is wanted
    assert "qemu-system-riscv64" not in [need.program for need in needs]


def test_odd() -> None:
    machines = ["amdvi", "vtd", "vtd-flts", "vtd-nopt", "zpci", "zpci-probe"]
    assert _machines(_jobs("--odd")) == machines
    assert all(each.way.words for each in _jobs("--odd"))


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--odd", "--all"), "--odd and --all"),
        (("--default", "strict", "--odd"), "--default and --odd"),
        (("--64k", "vtd"), "machine 'vtd': --64k is for those of arm64"),
        (("--64k", "--arch", "s390"), "--arch 's390': with --64k it must be arm64"),
        (("--debug", "--loads"), "--debug and --loads"),
        (("--default", "laxy"), "'laxy': must be one of: lazy strict passthrough"),
        (
            ("--default", "strict", "--strict", "0", "--passthrough", "0"),
            "'strict': --strict and --passthrough leave nothing unset",
        ),
        (("--odd", "--passthrough", "1"), "--odd and --passthrough"),
        (("--image", "x", "--kernel", "stock"), "--image and --kernel"),
        (("--image", "x", "--base", "lts"), "--image and --base"),
        (("--odd", "virtio-iommu"), "has none for virtio-iommu"),
        (("--odd", "--arch", "riscv"), "has none for --arch riscv"),
        (("--arch", "arm64", "vtd"), "'vtd' is not of --arch 'arm64'"),
        (("--arch", "arm64", "vtd", "smmuv3"), "'vtd' is not of --arch 'arm64'"),
        (("--arch", ""), "'': must be one of"),
        (("--replug", "50", "vtd"), "none of these machines plugs a device"),
        (("--image", "", "--kernel", "stock"), "--image and --kernel"),
        (("--arch", "vax"), "'vax': must be one of"),
        (("--strict",), "--strict"),
        (("--wrong",), "--wrong"),
        (("--replug", "-1"), "--replug"),
        (("--random", "0"), "'0': must be a number, 1 or more"),
        (("--random", "x"), "'x': must be a number"),
        (("--seed", "1"), "--seed '1': is for --random"),
        (("--random", "1", "--seed", "-5"), "--seed"),
        (("--random", "1", "vtd"), "machine 'vtd': --random draws its own"),
        (("--random", "1", "--odd"), "--random and --odd"),
        (("--random", "1", "--image", "x"), "--random and --image"),
        (("--random", "1", "--attack"), "--random and --attack"),
        (("--random", "1", "--loads"), "--random and --loads"),
        (("--random", "1", "--alternative", "two-ops"), "--random and --alternative"),
        (("--alternative", "two-ops", "smmuv3"), "'smmuv3': --alternative is for those"),
        (("--alternative", "two-ops", "vtd-mixed"), "'vtd-mixed': --alternative is for those"),
        (("--random", "1", "--strict", "0"), "--random and --strict"),
        (("--random", "1", "--default", "strict"), "--random and --default"),
        (("./nowhere",), "machine 'nowhere': no such file"),
        (("--64k", "--alternative", "two-ops"), "--64k and --alternative"),
        (("--all", "--default", "opt-in", "--arch", "s390"), "none of these machines is one"),
        (
            ("--loads", "--arch", "arm64"),
            "'arm64': none of vtd vtd-nopt is of it, name others",
        ),
        (("--odd", "--replug", "7"), "--odd and --replug"),
        (("--strict", "0", "--strict", "1"), "--strict '1': given twice"),
        (("--append", "a", "--append", "b"), "--append 'b': given twice"),
        (("--with", f"{kernel.RELATED}/untrusted.patch"), "is known as --with untrusted"),
    ],
)
def test_what_means_nothing_is_refused(arguments: Sequence[str], says: str) -> None:
    with pytest.raises(CannotTell) as raised:
        _jobs(*arguments)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def _console(type_: str) -> str:
    return f"# 0000:00:02.0 group 1 {type_}\r\n# 0000:00:03.0 group 2 {type_}\r\n"


class _Silent(verdict.Parser):
    """A parser that finds nothing wrong."""

    def __init__(self) -> None:
        pass

    def parse(self, console: str) -> verdict.Report:
        return verdict.Report("main", "SUCCESS")


def _judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: str, outcome: Outcome
) -> boots.Result:
    monkeypatch.setattr(verdict, "complaints", lambda report, expected: [])
    each = job.Job(machine.read("vtd"), "patched", job.Way(policy.Setting("1")))
    log = tmp_path / "log"
    log.write_text(_console(type_))
    return boots.Booter(boots.How(), tmp_path, _Silent()).judge(each, log, outcome)


def test_a_wrong_type_that_the_guest_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _judge(tmp_path, monkeypatch, "DMA", Outcome()).complaints
    wrong = _judge(tmp_path, monkeypatch, "DMA-FQ", Outcome())
    assert wrong.complaints == [
        "0000:00:02.0 should be DMA: the guest has another type, and passed"
    ]


def test_a_full_disk_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert not _judge(tmp_path, monkeypatch, "DMA", Outcome()).fault
    wrong = _judge(tmp_path, monkeypatch, "DMA-FQ", Outcome())
    assert wrong.fault == "no space left on the disk"


def test_the_end_of_a_guest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _judge(tmp_path, monkeypatch, "DMA", Outcome("killed")).complaints == ["killed"]


def _pool(tmp_path: Path, *results: boots.Result) -> boots.Pool:
    rows = boots.Rows(False, [result.job for result in results])
    pool = boots.Pool(boots.Booter(boots.How(), tmp_path, _Silent()), rows, len(results))
    pool.results += results
    return pool


def test_failures_and_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _judge(tmp_path, monkeypatch, "DMA", Outcome())
    assert boot._end(_pool(tmp_path, good)) == AS_EXPECTED
    bad = _judge(tmp_path, monkeypatch, "DMA-FQ", Outcome())
    assert boot._end(_pool(tmp_path, good, bad)) == NOT_AS_EXPECTED
    fault = _judge(tmp_path, monkeypatch, "DMA", Outcome(fault="QEMU failed, status 1"))
    with pytest.raises(CannotTell, match="QEMU failed"):
        boot._end(_pool(tmp_path, good, bad, fault))


def test_failures_are_told_when_a_later_build_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = _judge(tmp_path, monkeypatch, "DMA-FQ", Outcome())
    assert _pool(tmp_path, bad).tell_failures("boot") == [bad]
    assert "the guest has another type" in capsys.readouterr().err


def test_rows_appear_when_they_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _jobs("vtd", "--strict", "1")
    rows = boots.Rows(False, jobs)
    capsys.readouterr()
    types = {"0000:00:02.0": "DMA", "0000:00:03.0": "DMA"}
    rows.add(boots.Result(jobs[0], tmp_path / "log", types))
    assert capsys.readouterr().out == ""
    rows.add(boots.Result(jobs[1], tmp_path / "log", {**types, "0000:00:03.0": "DMA-FQ"}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and not lines[0].endswith("DMA-FQ")
    assert lines[1].endswith("differs UNEXPECTED: patched should be DMA")


@pytest.mark.parametrize("name, type_", [("tests", "DMA"), ("commit", "DMA-FQ")])
def test_what_series_test_has_made_is_judged_as_stock_or_as_patched(
    name: str, type_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _jobs("vtd-nopt", "--strict", "0", "--kernel", name)
    rows = boots.Rows(False, jobs)
    capsys.readouterr()
    types = {"0000:00:02.0": type_, "0000:00:03.0": type_}
    rows.add(boots.Result(jobs[0], tmp_path / "log", types))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and not any("UNEXPECTED" in line for line in lines)
    assert all(line.split()[3:] in ([type_, "-"], ["-", type_]) for line in lines)


def test_cells() -> None:
    assert table.Cell("DMA", "DMA-FQ").short() == "DMA>FQ"
    assert table.Cell("identity", "identity").short() == "ident"
    assert table.Cell("-", "DMA", ("FAILED",)).short() == "DMA!"
    assert table.Cell("-", "DMA").long() == ""
    assert table.Cell("DMA", "-", (), "strict, though it could be lazy").short() == "DMA"


def test_large_pages_are_of_arm64() -> None:
    assert {each.machine.arch.name for each in _jobs("--64k")} == {"arm64"}
    assert _machines(_jobs("--64k", "smmuv3")) == ["smmuv3"]


class _Submitted:
    """What _build_arch() has booted: by its kernel's image, the settings' defaults."""

    def __init__(self, run: Path) -> None:
        self.booter = self
        self.run = run
        self.defaults: dict[str, list[str]] = {}

    def submit(self, jobs: Sequence[job.Job], image: Path, files: Path) -> None:
        """Take what a pool would boot."""
        self.defaults[image.name] = [each.way.setting.default for each in jobs]


def test_each_default_is_booted_with_its_own_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workbench.build.build_one", lambda built, arch, to, more: to)
    monkeypatch.setattr("workbench.initramfs.guest_files", lambda *words: None)
    pool = _Submitted(tmp_path)
    ways = [
        job.Way(policy.Setting("unset", "unset", name)) for name in ("lazy", "strict", "lazy")
    ]
    jobs = [job.Job(machine.read("vtd"), "stock", way) for way in ways]
    plain = kernel.stock(bases.Base("toy", tmp_path))
    boot._build_arch(pool, {"stock": plain}, jobs, plain, ("events",))  # type: ignore
    assert pool.defaults == {
        "stock-x86_64-events": ["lazy", "lazy"],
        "stock-x86_64-default-strict-events": ["strict"],
    }


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("", ()),
        ("--loads", ("events", "loads")),
        ("--events", ("events", "loads")),
        ("--events --debug", ("events", "debug", "debug-iommu")),
        ("--events --kcsan", ("events", "kcsan")),
        ("--64k", ("64k",)),
    ],
)
def test_events_and_loads_have_the_same_configuration(
    words: str, more: tuple[str, ...]
) -> None:
    assert boot._more(boot.options().parse(words.split())) == more


class _Recorded(_Submitted):
    """What is built and booted, in its order: by the kernel's image."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.order: list[str] = []

    def submit(self, jobs: Sequence[job.Job], image: Path, files: Path) -> None:
        self.order.append(f"boot {len(jobs)} of {image.name}")


def test_each_kernel_boots_as_soon_as_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Machines may come in any order: an architecture is done before the next is built."""
    pool = _Recorded(tmp_path)

    def build(built: kernel.Kernel, arch: str, to: Path, more: object) -> Path:
        pool.order.append(f"build {to.name}")
        return to

    monkeypatch.setattr("workbench.build.build_one", build)
    monkeypatch.setattr("workbench.initramfs.guest_files", lambda *words: None)
    jobs = _jobs("vtd", "smmuv3", "vtd-nopt", "--strict", "0")
    stock = kernel.stock(bases.Base("toy", tmp_path))
    kernels = {"stock": stock, "patched": dataclasses.replace(stock, name="patched")}
    boot._build_all(pool, kernels, jobs, stock, ())  # type: ignore
    assert pool.order == [
        *("build stock-x86_64", "boot 2 of stock-x86_64"),
        *("build patched-x86_64", "boot 2 of patched-x86_64"),
        *("build stock-arm64", "boot 1 of stock-arm64"),
        *("build patched-arm64", "boot 1 of patched-arm64"),
    ]


class _Slow:
    """What boots, and ends a boot when it is told to."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.may_end = threading.Event()

    def boot(self, one: job.Job, image: Path, files: Path) -> boots.Result:
        assert self.may_end.wait(30)
        types = {device.address: "DMA" for device in one.machine.devices}
        return boots.Result(one, self.log, types)


def test_building_goes_on_while_machines_boot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _jobs("vtd", "--strict", "1")
    slow = _Slow(tmp_path)
    pool = boots.Pool(slow, boots.Rows(False, jobs), len(jobs))  # type: ignore
    capsys.readouterr()
    pool.submit(jobs, tmp_path, tmp_path)
    assert capsys.readouterr().out == ""
    slow.may_end.set()
    assert {result.job for result in pool.finish()} == set(jobs)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_debug_kernels_differ_by_one_lock(stock: Path) -> None:
    base = bases.Base("mainline", stock.parent)
    one = kernel.failing(kernel.debugged(kernel.probed(kernel.stock(base))))
    assert one.name == "stock-probe-debug-failing" and not one.is_whole
    path = "drivers/pci/hotplug/pciehp_hpc.c"
    assert b"lockdep_set_novalidate_class" in one.edits[path]
    assert set(kernel.debugged(kernel.stock(base)).edits) == {path}
    for name in kernel.alternatives():
        other = kernel.alternative(base, name)
        assert set(kernel.debugged(other).edits) == {path, *other.edits}
