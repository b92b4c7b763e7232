# SPDX-License-Identifier: GPL-2.0-only
"""Events: where each happens, what a guest is told, and what a table makes of its counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workbench import boot, boots, events, guest, job, machine, policy, test
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell


def _job(name: str, event: str, strict: str = "0", kernel: str = "patched") -> job.Job:
    way = job.Way(policy.Setting(strict), (f"iommu.strict={strict}",))
    return events.Happening(machine.read(name), kernel, way, (), event)


def _booter(tmp_path: Path, rounds: int = 40) -> events.Booter:
    return events.Booter(boots.How(), tmp_path, None, rounds=rounds)  # type: ignore[arg-type]


def _names(name: str) -> list[str]:
    plain = job.Job(machine.read(name), "patched", job.Way(policy.Setting("0")))
    return [events._event(each) for each in events.happenings([plain], [])]


def test_where_each_happens() -> None:
    everywhere = set(events.EVENTS) - {"plug", "suspend"}
    assert set(_names("vtd-nopt")) == everywhere | {"suspend"}
    assert set(_names("vtd-nopt-external")) == set(events.EVENTS)
    assert set(_names("vtd-nopt-hotplug")) == set(events.EVENTS)
    assert set(_names("smmuv3-probe")) == everywhere
    # A switch is in the group of its disk
    assert set(_names("vtd-nopt-dock")) == set(events.EVENTS) - {"faults", "nth"}


def test_an_event_that_happens_nowhere() -> None:
    plain = job.Job(machine.read("vtd"), "patched", job.Way(policy.Setting("0")))
    with pytest.raises(CannotTell, match="'plug'"):
        events.happenings([plain], ["plug"])


@pytest.mark.parametrize(
    "name",
    [
        *("riscv-iommu-probe", "virtio-iommu", "none", "zpci", "vtd-late", "vtd-nopt-late"),
        *("vtd-nopt-cm", "amdvi-external", "vtd-nopt-groups", "vtd-nopt-dock-late"),
    ],
)
def test_machines_that_cannot_be_judged(name: str) -> None:
    with pytest.raises(CannotTell, match=f"^machine '{name}'"):
        events.able([machine.read(name)], True)


def test_machines_that_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    every = list(machine.read_all().values())
    arm64 = [each for each in every if each.arch.name == "arm64"]
    found = [each.name for each in events.able(arm64, False)]
    assert found == ["smmuv3", "smmuv3-late", "smmuv3-mixed", "smmuv3-probe"]
    assert "virtio-iommu-arm64 is left out: " in capsys.readouterr().err
    with pytest.raises(CannotTell, match="^machine 'virtio-iommu-arm64'"):
        events.able(arm64, True)
    with pytest.raises(CannotTell, match="^--arch 's390': .* for x86_64 and arm64"):
        events.able([each for each in every if each.arch.name == "s390"], False)


@pytest.mark.parametrize("only", [["kexec"], ["reset"], ["nth"], ["queue", "reset"]])
def test_rounds_of_what_has_none(only: list[str]) -> None:
    events.check_only(only + ["cpu"], 3, None)
    with pytest.raises(CannotTell, match="^--rounds '3': "):
        events.check_only(only, 3, None)


def test_replug_of_what_ignores_it() -> None:
    events.check_only(["kexec", "reset"], None, 3)
    for only in ("", "cpu", "kexec plug"):
        with pytest.raises(CannotTell, match="^--replug '3': "):
            events.check_only(only.split(), None, 3)


def test_what_it_happens_to() -> None:
    found = [events.subject(machine.read(name)).address for name in events.MACHINES]
    assert found == ["0000:01:00.0", "0000:00:02.0", "0000:01:00.0"]


def test_what_is_told(tmp_path: Path) -> None:
    told = _booter(tmp_path).told(_job("vtd-nopt-external", "rebind"))
    assert told[:3] == ["events", "event=rebind", "rounds=10"]
    assert "0000:01:00.0=DMA" in told and "0000:00:02.0=DMA-FQ" in told
    disks = [line for line in told if line.startswith("disk=")]
    assert disks == ["disk=0000:01:00.0", "disk=0000:00:02.0", "disk=0000:00:03.0"]
    assert "write DMA-FQ auto DMA free" in told
    assert "write DMA-FQ auto EPERM bound" in told
    assert "write DMA DMA-FQ DMA-FQ bound" in told


@pytest.mark.parametrize("event", ["kexec", "reset"])
def test_what_is_judged_as_a_boot(tmp_path: Path, event: str) -> None:
    booter, each = _booter(tmp_path), _job("vtd-nopt", event)
    plain = boots.Booter(boots.How(), tmp_path, None)  # type: ignore[arg-type]
    assert booter.expected(each) == plain.expected(each)
    assert (booter.told(each) == plain.told(each)) == (event == "reset")


def test_what_has_been_tried_is_summed(capsys: pytest.CaptureFixture[str]) -> None:
    tried = test.Tried("a"), test.Tried("b"), test.Tried("nothing")
    both = "boot: 4 boots of stock and patched on 2 machines, 2 settings, 3 at a time\n"
    tried[0].add(both)
    alone = "boot: 3 boots of patched on 1 machines, 1 settings, 3 at a time\n"
    tried[1].add(f"{alone}boot: 7 events, 9 allocations that")
    tried[1].add("boot: 7 events, 9 allocations that failed\n")
    test.tell_tried(tried, 0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["4", "2", "2", "a:", "stock,", "patched"]
    assert lines[3] == ["3", "1", "1", "7", "9", "b:", "patched"]
    assert lines[4][:6] == ["7", "7", "9", "in", "all:", "no"] and len(lines) == 5
    test.tell_tried(tried, 1)
    assert "in all" not in capsys.readouterr().out


def test_what_boot_says_is_what_is_summed(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [_job(name, "", "1") for name in ("vtd", "vtd-nopt")]
    jobs = events.happenings(plain, ["type", "queue", "kexec"])
    boot._say_how_many(jobs, ["stock", "patched"], 3)
    tried = test.Tried("a")
    tried.add(capsys.readouterr().err)
    assert (tried.boots, tried.machines, tried.settings) == (6, 2, 1)
    assert tried.kernels == ("stock", "patched")


def test_resets_are_drawn_and_repeat(tmp_path: Path) -> None:
    booter = _booter(tmp_path)
    found = booter.resets(_job("vtd-nopt", "reset"))
    assert len(found) == 10 and found == booter.resets(_job("vtd-nopt", "reset"))
    assert found != booter.resets(_job("vtd-nopt", "reset", "1"))
    assert not booter.resets(_job("vtd-nopt", "cpu"))
    assert max(booter.resets(_job("smmuv3", "reset"))) <= 120 < max(found)


def test_only_vfio_has_an_its(tmp_path: Path) -> None:
    booter = _booter(tmp_path)
    assert "gic-version=3" in booter.options(_job("smmuv3-probe", "vfio"))
    assert "gic-version=3" not in booter.options(_job("smmuv3-probe", "kexec"))
    assert "gic-version=3" not in booter.options(_job("vtd", "vfio"))


def _words(name: str) -> dict[str, tuple[str, ...]]:
    plain = job.Job(machine.read(name), "patched", job.Way(policy.Setting("0"), ("a=1",)))
    return {events._event(each): each.way.words for each in events.happenings([plain], [])}


def test_no_queue_from_boot_on() -> None:
    words = _words("vtd")
    assert words.pop("queue") == ("a=1", "fail_iova_queue")
    assert set(words.values()) == {("a=1",), ("a=1", "maxcpus=1")}


def test_cpus_run_at_once_only_if_no_device_comes_or_goes(tmp_path: Path) -> None:
    booter, at_once = _booter(tmp_path), {"type", "fuzz", "cpu"}
    for name in ("vtd-nopt-hotplug", "smmuv3-probe"):
        for event, words in _words(name).items():
            assert ("maxcpus=1" in words) == (event in at_once)
            accel = "tcg" if event in at_once else "tcg,thread=single"
            assert booter.accel(_job(name, event)) == accel
    booter = replace(booter, how=boots.How(accel="kvm"))
    assert booter.accel(_job("vtd", "nth")) == "kvm"


def test_next_kernel_is_there(tmp_path: Path) -> None:
    (tmp_path / "initramfs.cpio").write_bytes(b"programs")
    image, initrd = tmp_path / "image", tmp_path / "initrd"
    image.write_bytes(b"the kernel")
    each = _job("vtd-nopt", "kexec")
    _booter(tmp_path).write_initrd(each, image, tmp_path, initrd)
    written = initrd.read_bytes()
    assert written.count(b"programs") == 2 and b"the kernel" in written
    assert b"event=kexec" in written and b"\n0000:00:02.0/DMA/auto=DMA-FQ\n" in written


def _lines(tmp_path: Path, jobs: list[job.Job], printed: list[str]) -> list[list[str]]:
    rows = events.Rows(jobs)
    for each, said in zip(jobs, printed):
        log = tmp_path / each.name
        log.write_text(said)
        wrong = ["wrong"] if "wrong" in said else []
        rows.results[each] = boots.Result(each, log, complaints=wrong)
    return [line.split() for line in rows.lines()[1:]]


def test_table(tmp_path: Path) -> None:
    jobs = [_job("vtd", "type", "0"), _job("vtd", "type", "1"), _job("vtd", "reset", "1")]
    printed = ["# event rounds 3\r\n# event writes 40\r\n", "wrong", ""]
    printed[2] = f"a\n{guest.RESET}\nb\n{guest.RESET}\nc\n"
    assert _lines(tmp_path, jobs, printed) == [
        ["vtd"],
        ["patched"],
        ["iommu.strict", "0", "1"],
        ["type", "rounds", "3", "-"],
        ["type", "writes", "40", "-"],
        ["type", "-", "1!"],
        ["reset", "-", "2"],
    ]


def test_how_many_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [_job("vtd", event, "1") for event in ("type", "queue", "reset", "nth")]
    told = ["rounds 3\n# event writes 40", "devices 2", "", "auto 7\n# event without-dma 5"]
    rows = events.Rows(jobs)
    for each, said in zip(jobs, told):
        log = tmp_path / each.name
        log.write_text(f"# event {said}\n\n{guest.RESET}\n")
        rows.add(boots.Result(each, log))
    assert "boot: 5 events, 7 allocations that failed" in capsys.readouterr().err


def test_what_else_the_guest_is_told(tmp_path: Path) -> None:
    for name, strict, words in (
        ("vtd-nopt-hotplug", "1", {"slot"}),
        ("vtd", "1", {"one-type"}),
        ("vtd", "0", set()),
        ("vtd-nopt-external", "1", {"slot"}),
    ):
        told = _booter(tmp_path).told(_job(name, "nth", strict))
        assert {"slot", "one-type"} & set(told) == words


def test_columns_of_a_kernel_are_side_by_side(tmp_path: Path) -> None:
    kernels = ("stock", "patched")
    jobs = [_job("vtd", "reset", strict, kernel) for strict in "01" for kernel in kernels]
    lines = _lines(tmp_path, jobs, [""] * 4)
    assert lines[1:3] == [["stock", "patched"], ["iommu.strict", "0", "1", "0", "1"]]


def test_stock_and_patched_fail_alike_where_they_do_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = ("stock", "patched")
    jobs = [_job("vtd-nopt", "nth", strict, kernel) for strict in "01" for kernel in kernels]
    more, less = "# event auto 272\n# event warned 3\n", "# event auto 271\n# event warned 3\n"
    for numbers, status in (
        ([less, more, less, less], AS_EXPECTED),
        ([less, less, less, more], NOT_AS_EXPECTED),
        ([less, less, less, less.replace("warned 3", "warned 4")], AS_EXPECTED),
        ([less, less, less, less.replace("warned 3", "warned 6")], NOT_AS_EXPECTED),
        ([less, less, less, less + "# event without-group 3\n"], NOT_AS_EXPECTED),
        ([less, less, less + "# event lazy-auto 1\n", less], NOT_AS_EXPECTED),
    ):
        rows = events.Rows(jobs)
        for each, said in zip(jobs, numbers):
            (tmp_path / each.name).write_text(said)
            rows.results[each] = boots.Result(each, tmp_path / each.name)
        assert rows.end() == status
        said = capsys.readouterr().err
        assert ("FAILED vtd-nopt+patched+iommu.strict=1+nth" in said) == bool(status)
        assert "compared 1 pairs" in said
    rows.results[jobs[3]].complaints = ["nth failed"]  # which is said already
    assert rows.end() == AS_EXPECTED and not capsys.readouterr().err
    for each in jobs:
        (tmp_path / each.name).write_text("nothing is told")
        rows.results[each].complaints = []
    assert rows.end() == NOT_AS_EXPECTED
    assert "FAILED vtd-nopt+stock+iommu.strict=0+nth: it has told" in capsys.readouterr().err


def test_what_is_written_while_a_driver_has_the_device() -> None:
    free = policy.CLASSES["free"]
    late = policy.with_related(policy.CLASSES["late-free"], ["untrusted"])
    assert policy.written_bound(free, "DMA", "DMA-FQ") == "DMA-FQ"
    assert policy.written_bound(late, "DMA", "DMA-FQ") == "EPERM"
    assert policy.written_bound(free, "DMA-FQ", "DMA-FQ") == "EPERM"
    assert policy.written_bound(free, "DMA", "auto") == "EPERM"
    assert policy.written_bound(free, "DMA", "nonsense") == "EINVAL"


def test_long_names_have_room(tmp_path: Path) -> None:
    jobs = [_job(name, "reset") for name in ("vtd-nopt", "vtd-nopt-external")]
    assert _lines(tmp_path, jobs, ["", ""])[0] == ["vtd-nopt", "vtd-nopt-external"]
