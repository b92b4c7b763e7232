# SPDX-License-Identifier: GPL-2.0-only
"""Debian in QEMU: what a guest is told, and what the table makes of what guests say."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Sequence

import pytest

from workbench import boots, debian, machine, paths, root
from workbench.status import CannotTell


def _jobs(*words: str) -> list[debian.DebianJob]:
    asked = debian._arguments(words)
    return debian._jobs(asked, [machine.read(name) for name in asked.machines])


def _booter() -> debian.Booter:
    releases = {name: f"7.3-{name}" for name in debian.KERNELS}
    return debian.Booter(boots.How(), Path("/x"), None, releases=releases)  # type: ignore


def _told(job: debian.DebianJob) -> list[str]:
    return _booter().told(job)


def test_every_boot() -> None:
    jobs = _jobs("vtd", "vtd-nopt", "vtd-nopt-external")
    assert len({job.name for job in jobs}) == len(jobs) == 3 * 3 * 2 + 2 + 3
    assert [job.column for job in jobs if job.stage == "upgrade"] == ["stock", "patched"]
    tested = [job.column for job in jobs if job.stage == "selftests"]
    assert tested == ["stock", "patched", "related"]


def test_what_a_guest_is_told() -> None:
    strict, lazy = _jobs("vtd-nopt", "--kernel", "related", "--short")
    assert "release=7.3-related" in _told(lazy)
    assert "fio randread-128k-32 lazy randread 128k 32" in _told(lazy)
    assert "fio randread-128k-32 strict randread 128k 32" in _told(strict)
    assert "too-strict" not in _told(lazy)


@pytest.mark.parametrize("name", ["stock", "debian"])
def test_stock_is_too_strict(name: str) -> None:
    strict, lazy = _jobs("vtd-nopt", "--kernel", name, "--short")
    assert "too-strict" in _told(lazy) and "too-strict" not in _told(strict)
    assert "0000:00:03.0=DMA" in _told(lazy)
    assert "iperf3 virtio-to-e1000e strict --format=k" in _told(lazy)


def test_a_guest_that_upgrades_does_nothing_else() -> None:
    job = next(job for job in _jobs("vtd-nopt") if job.stage)
    assert "upgrade" in _told(job) and not [line for line in _told(job) if "fio" in line]


def test_boots_after_the_upgrade_with_the_initramfs_of_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(root, "take_out", lambda image, name, to: taken.append(name))
    paths.write(tmp_path / "kernel.initrd", b"")
    job = next(job for job in _jobs("vtd-nopt") if job.stage == "upgrade")
    booter = replace(_booter(), run=tmp_path)
    for stage in ("upgrade", "upgraded"):
        assert not taken
        each = replace(job, stage=stage)
        booter.write_initrd(each, tmp_path / "kernel", tmp_path, tmp_path / stage)
    assert taken == [f"/boot/initrd.img-7.3-{job.column}"]


def test_selftests_need_those_of_stock() -> None:
    for words in (["--kernel", "patched"], ["--config", "debian"]):
        assert not [job for job in _jobs("vtd-nopt", *words) if job.stage == "selftests"]


def test_selftests_have_to_do_as_on_stock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _jobs("vtd-nopt", "--kernel", "stock", "--kernel", "patched")
    rows = debian.Rows([job for job in jobs if job.stage == "selftests"])
    results = ("ok 2 b\r\n# result: ok 3 c # SKIP no", "not ok 2 b\n# result: ok 3 c\r")
    for each, second in zip(rows.jobs, results):
        assert "selftests=0000:00:0a.0" in _told(each)
        assert each.machine.append[-1] == "hugepages=96"
        assert [every.name for every in _booter().expected(each)][-1] == "selftests"
        log = tmp_path / each.column
        log.write_text(f"# result: ok 1 a\n# result: {second}\n# result: ok 9 selftests: a\n")
        rows.add(boots.Result(each, log))
    assert [result.complaints for result in rows.results.values()] == [
        [],
        ["b: not ok, and ok on stock", "c: ok, and skipped on stock"],
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "vtd-nopt, stock, iommufd and VFIO: 2 tests passed, 0 failed, 1 skipped",
        "vtd-nopt, patched, iommufd and VFIO: 2 tests passed, 1 failed, 0 skipped",
    ]


def _rows(tmp_path: Path, *said: tuple[Sequence[str], str]) -> debian.Rows:
    """Return rows of boots of vtd-nopt, each with what it has passed and what it has said."""
    jobs = _jobs("vtd-nopt", "--kernel", "stock", "--kernel", "patched", "--short")
    rows = debian.Rows(jobs)
    for number, (job, (passed, console)) in enumerate(zip(jobs, said)):
        log = tmp_path / str(number)
        log.write_text(console)
        rows.add(boots.Result(job, log, passed=passed))
    return rows


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    all_strict = [f"{load.name} strict" for load in debian.LOADS]
    said = "# load read-4k-1 512 512 100\n"
    rows = _rows(
        tmp_path,
        (all_strict, said),
        (all_strict, said),
        (all_strict, said),
        (["read-4k-1 lazy"], "# load read-4k-1 16 512 250\r\n# journal: it burns\n"),
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["read-4k-1", "1.00", "1.00", "1.00", "0.031"] in lines
    assert ["read-4k-1", "1.00", "1.00", "1.00", "2.50"] in lines
    wrong = [result.complaints for result in rows.results.values()]
    assert wrong == [[], [], [], ["only its journal has: it burns"]]


def test_the_journal_of_the_boot_that_upgraded_counts(tmp_path: Path) -> None:
    jobs = [job for job in _jobs("vtd-nopt") if job.stage == "upgrade"]
    rows = debian.Rows(_jobs("vtd-nopt"))
    for job in jobs:
        log = tmp_path / f"{job.name} again"
        log.write_text("# journal: as ever\n")
        (tmp_path / job.name).write_text(f"# journal: {job.column} burns\n")
        rows.add(boots.Result(job, log))
    assert [sorted(rows._errors(job)) for job in jobs] == [
        ["as ever", "stock burns"],
        ["as ever", "patched burns"],
    ]


def test_few_prove_nothing_unless_many_were_counted(tmp_path: Path) -> None:
    rows = _rows(tmp_path, *[(["read-4k-1 lazy"], "")] * 4)
    lazy = [result for job, result in rows.results.items() if job.way.setting.strict == "0"]
    assert all("read-4k-1 proves nothing" in str(result.complaints) for result in lazy)


@pytest.mark.parametrize(
    "words, says",
    [
        (["smmuv3"], "'smmuv3': must be one of: vtd"),
        (["--kernel", "mutant"], "'mutant': must be one of: stock"),
        (["--config", "big"], "'big': must be a file"),
    ],
)
def test_refused(words: list[str], says: str) -> None:
    with pytest.raises(CannotTell, match=says):
        debian._arguments(words)


def test_packages_are_installed_by_dpkg(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("stable", "trixie"), ("security", "")):
        monkeypatch.setattr(f"workbench.packages.{name}", lambda value=value: value)
    monkeypatch.setattr("workbench.packages.mirror", lambda log: "http://mirror/debian")
    contents = root.Contents([Path("/a/linux.deb")], False, Path("/p"), Path("/s"))
    hooks = list(root._hooks(contents, Path("/log")))
    assert 'chroot "$1" dpkg --install /tmp/linux.deb' in hooks
    assert not any("linux-image-amd64" in hook for hook in hooks)


def test_what_is_put_on_top(tmp_path: Path) -> None:
    selftests = tmp_path / "kselftest"
    (selftests / "iommu").mkdir(parents=True)
    (selftests / "iommu/default_domain").touch(0o755)
    (tmp_path / "program").write_bytes(b"judge")
    contents = root.Contents([], False, tmp_path / "program", selftests)
    root._write_ours(contents, tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as archive:
        entries = {entry.name: entry for entry in archive}
        assert entries["usr/lib/kselftest/iommu/default_domain"].mode == 0o755
        program = archive.extractfile("usr/lib/workbench/debian")
        assert program and program.read() == b"judge"
    wanted = entries["etc/systemd/system/multi-user.target.wants/debian.service"]
    assert wanted.linkname == "../debian.service"
