# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of somebody else's: their names, modules, and what is right of them."""

from __future__ import annotations

import gzip
import lzma
import re
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import boot, image, initramfs, job, machine, packages, paths, policy, process
from workbench import table
from workbench.status import CannotTell
from workbench.verdict import Skip

ALL = frozenset(("virtio_pci", "virtio_blk", "nvme"))
# The disks of vtd that may not be read if a driver is missing
MISSING = {"": (), "nvme": ("0000:00:03.0",), "virtio_blk": ("0000:00:02.0",)}


def _kernel(path: Path, version: bytes) -> Path:
    """Make what begins as a bzImage does."""
    content = bytearray(0x400)
    content[0x202:0x206] = b"HdrS"
    content[0x20E:0x210] = (0x100).to_bytes(2, "little")
    content[0x300 : 0x300 + len(version)] = version
    path.write_bytes(content)
    return path


def _job(name: str, version: tuple[int, int], drivers: frozenset[str] = ALL) -> image.ImageJob:
    one = image.Image("its", Path("kernel"), version, (Path("nvme.ko.xz"),), drivers)
    way = job.Way(policy.Setting("0"), ("iommu.strict=0",))
    return image.ImageJob(machine.read(name), one.name, way, image=one)


@pytest.mark.parametrize("name", ["debian:6.12", "debian:6.12-cloud", "debian:6.1-rt"])
def test_names_of_debians(name: str) -> None:
    image.check(name)
    assert image.is_debian(name)


@pytest.mark.parametrize("name", ["debian:6", "debian:6.12-", "debian:6.12-big", "/nowhere"])
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(CannotTell, match=f"'{name}': must be a file, or debian:X.Y"):
        image.check(name)


PACKAGES = (
    *(
        ("6.12", "", "linux-image-6.12.117+deb12-amd64"),
        ("6.1", "", "linux-image-6.1.0-56-amd64"),
    ),
    *(
        ("7.3", "", "linux-image-7.3.4-amd64"),
        ("6.12", "rt", "linux-image-6.12.9+deb12-rt-amd64"),
    ),
)


@pytest.mark.parametrize("version, flavour, name", PACKAGES)
def test_packages_of_debians(version: str, flavour: str, name: str) -> None:
    """Not the one that only depends on the newest, nor another flavour's, nor its symbols."""
    pattern = re.compile(image.package_pattern(version, flavour))
    assert pattern.match(name)
    rest = f"-{flavour}-amd64" if flavour else "-amd64"
    for other in (
        f"linux-image-{version}{rest}",
        name + "-dbg",
        name.replace("amd64", "x-amd64"),
    ):
        assert not pattern.match(other)


def test_a_version_that_debian_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object) -> None:
        raise packages.NotOffered("no package")

    monkeypatch.setattr(packages, "find", find)
    monkeypatch.setattr(packages, "anywhere", lambda: [[], ["stable"], ["next", "unstable"]])
    has_none = (
        "'debian:9.9-rt': Debian has no such kernel in apt's own suites, stable, next and"
    )
    with pytest.raises(CannotTell, match=has_none):
        image._fetch_debian("9.9", "rt", Path())


@pytest.mark.parametrize(
    "error", [process.Failed("no network", 100), CannotTell("no network")]
)
def test_without_a_network_what_is_here_is_used(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*_: object) -> None:
        raise error

    monkeypatch.setattr(packages, "find", find)
    monkeypatch.setattr(packages, "anywhere", lambda: [[]])
    with pytest.raises(CannotTell, match="^no network$"):
        image._fetch_debian("6.12", "", Path())
    for name in ("6.12.9", "6.12.117", "6.12.118.new", "7.3.4"):
        directory = paths.BUILD / "image" / f"linux-image-{name}-amd64"
        paths.write(directory / f"usr/lib/modules/{name}-amd64/vmlinuz", b"x")
    (paths.BUILD / "image/linux-image-6.12.200-amd64").mkdir()  # and nothing in it
    assert image._fetch_debian("6.12", "", Path()).name == "linux-image-6.12.117-amd64"
    assert "so linux-image-6.12.117-amd64 is used" in capsys.readouterr().err


def test_a_file_must_be_a_kernel(tmp_path: Path) -> None:
    image.check(str(_kernel(tmp_path / "vmlinuz", b"6.12.0-124.el10.x86_64 (mock)")))
    for content in (b"", b"\x7fELF" * 300):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(CannotTell, match="other': is no bzImage"):
            image.check(str(tmp_path / "other"))


def test_its_version_decides_what_is_right(tmp_path: Path) -> None:
    kernel = _kernel(tmp_path / "vmlinuz", b"6.1.0-56-amd64 (debian)")
    one = image.fetch(str(kernel), None, tmp_path, tmp_path / "fetched")
    assert one.version == (6, 1) and one.is_old and not one.drivers
    assert one.file.read_bytes() == kernel.read_bytes()
    new, old = _job("vtd-nopt", (6, 12)), _job("vtd-nopt", (6, 11))
    device = new.machine.devices[0]
    assert (new.type_of(device), old.type_of(device)) == ("DMA", "DMA-FQ")
    assert new.is_too_strict(device) and not old.is_too_strict(device)


def test_an_old_kernel_is_asked_for_less() -> None:
    new, old = _job("vtd-nopt-external", (7, 3)), _job("vtd-nopt-external", (6, 1))
    names = [{each.name for each in job.expected_results(its, 1)} for its in (new, old)]
    assert names[0] - names[1] == {"types written", "types as derived, and written"}
    told = job.told(old, 1)
    assert "no-writes" in told and "no-writes" not in job.told(new, 1)
    assert not [line for line in told if line.startswith("bounced=") or "/" in line]


def test_only_the_disk_whose_driver_is_missing_may_be_left_out() -> None:
    for missing, without in MISSING.items():
        its = _job("vtd", (7, 3), ALL - {missing})
        found = {each.name: each.skip for each in job.expected_results(its, 1)}
        maybe = {name for name, skip in found.items() if skip is Skip.MAYBE}
        results = ("is read", "bounces", "invalidates")
        assert maybe == {f"{disk} {what}" for disk in without for what in results}
        told = [line for line in job.told(its, 1) if line.startswith("no-driver")]
        assert told == [f"no-driver={disk}" for disk in without]
        assert "module=nvme" in job.told(its, 1)


def test_what_a_configuration_lacks() -> None:
    config = "CONFIG_INTEL_IOMMU=y\nCONFIG_VIRTIO_IOMMU=m\n# CONFIG_AMD_IOMMU is not set\n"
    one = image.Image("its", Path(), (7, 3), config=config + "CONFIG_PREEMPT_RT=y\n")
    has = {name: one.has_driver(machine.read(name)) for name in ("vtd", "amdvi", "none")}
    assert has == {"vtd": True, "amdvi": False, "none": True}
    assert one.has_driver(machine.read("virtio-iommu-deny"))
    assert image.Image("its", Path(), (7, 3)).has_driver(machine.read("amdvi"))
    its = replace(_job("vtd-nopt-external", (7, 3)), image=one)
    assert "replug=0" in job.told(its, 1)
    assert not [each for each in job.expected_results(its, 1) if "again" in each.name]


def test_a_machine_without_a_driver_is_not_left_out_in_silence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = image.Image("its", Path(), (7, 3), config="CONFIG_INTEL_IOMMU=y\n")
    plan = boot._plan(
        boot.options().parse(["--image", "its", "--strict", "0", "vtd", "amdvi"])
    )
    with pytest.raises(CannotTell, match="'its': no driver for the IOMMU of amdvi"):
        boot._image_jobs(plan, [one], is_named=True)
    jobs = boot._image_jobs(plan, [one], is_named=False)
    assert [its.machine.name for its in jobs] == ["vtd"]
    assert "amdvi, left out" in capsys.readouterr().err
    none = replace(one, config="# CONFIG_INTEL_IOMMU is not set\n")
    with pytest.raises(CannotTell, match="none has the driver for the IOMMU"):
        boot._image_jobs(plan, [none], is_named=False)


def test_modules_are_unpacked(tmp_path: Path) -> None:
    packed = {
        "a.ko": b"one",
        "b.ko.xz": lzma.compress(b"one"),
        "c.ko.gz": gzip.compress(b"one"),
    }
    for name, content in packed.items():
        paths.write(tmp_path / name, content)
    one = image.Image("its", Path(), (7, 3), tuple(tmp_path / name for name in packed))
    archive = tmp_path / "cpio"
    archive.write_bytes(initramfs.archive([]))
    one.add_modules(archive)
    content = archive.read_bytes()
    assert content.count(b"one\0") == 3 and b"modules/b\0" in content
    assert one.module_names == ["a", "b", "c"]


def test_a_modprobe_that_is_killed_does_not_say_that_there_is_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def output(command: object) -> str:
        raise process.Failed("modprobe: Killed", -9)

    monkeypatch.setattr(process, "output", output)
    with pytest.raises(process.Failed):
        image._needed(tmp_path, "7.3", "nvme")


def test_what_kmod_says_is_loaded_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "virtio_pci": "insmod /m/virtio.ko \ninsmod /m/virtio_pci.ko \n",
        "virtio_blk": "insmod /m/virtio.ko \ninsmod /m/virtio.ko \ninsmod /m/virtio_blk.ko \n",
        "nvme": "builtin nvme\n",
    }

    def output(command: "list[object]") -> str:
        name = str(command[-1])
        if name not in said:
            raise process.Failed(f"{name} not found", 1)
        return said[name]

    monkeypatch.setattr(process, "output", output)
    bare = image.Image("its", Path(), (7, 3))
    (tmp_path / "7.3-its").mkdir()
    one = image._with_modules(bare, tmp_path / "7.3-its", tmp_path / "to")
    assert one.module_names == ["virtio", "virtio_pci", "virtio_blk"]
    assert one.drivers == ALL


@pytest.mark.parametrize(
    "words, why",
    [
        (("--image", "a", "--image", "a"), "'a': given twice"),
        (("--modules", "/m"), "'/m': is for one --image that is a file"),
        (("--modules", "/m", "--image", "debian:6.1"), "is for one --image that is a file"),
        (("--modules", "/m", "--image", "a", "--image", "b"), "is for one --image"),
        (("--modules", "/nowhere", "--image", "a"), "'/nowhere': has no modules.dep.bin"),
    ],
)
def test_what_is_refused(words: "tuple[str, ...]", why: str) -> None:
    with pytest.raises(CannotTell, match=why):
        boot._refuse_together(boot.options().parse(list(words)))


def test_all_machines_for_an_image() -> None:
    chosen = boot.choose(boot.options().parse(["--image", "debian:6.1", "--all"]))
    assert {"vtd", "amdvi", "none"} <= {each.name for each in chosen}
    assert all(each.arch.name == "x86_64" and not each.probe for each in chosen)


def test_a_column_for_each() -> None:
    its = table.several(["debian:6.1", "debian:7.3"], 14)
    cells = [table.Cell("DMA-FQ", "-"), table.Cell("DMA", "-", (), "strict, though")]
    row = its.row("vtd-nopt", "iommu.strict=0", "0000:00:02.0", cells)
    assert row.split() == ["vtd-nopt", "iommu.strict=0", "0000:00:02.0", "FQ", "DMA*"]
    assert its.head[1].index("debian:7.3") == row.index("DMA*")
