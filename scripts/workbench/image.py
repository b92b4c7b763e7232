# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that somebody else has built: a file, or of a package of Debian's.

What their disks need may be modules. kmod says which, and in which order they are loaded;
the guest gets those in its initramfs, see scripts/guest/init.c.
"""

from __future__ import annotations

import gzip
import lzma
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence

from workbench import initramfs, machine, packages, paths, policy, process, progress
from workbench.job import Job
from workbench.machine import Device, Machine
from workbench.status import CannotTell

FLAVOURS = ("cloud", "rt")

# What it takes to read a kind of device; virtio_iommu is for the machines that have one
_DRIVERS = {"virtio-blk": ("virtio_pci", "virtio_blk"), "nvme": ("nvme",), "edu": ()}
_MORE = ("virtio_iommu",)

# What a kernel has to be configured with for an IOMMU of QEMU's
_IOMMUS = {
    "intel-iommu": "INTEL_IOMMU",
    "amd-iommu": "AMD_IOMMU",
    "virtio-iommu-pci": "VIRTIO_IOMMU",
}

_DEBIAN = re.compile(rf"debian:(\d+\.\d+)(?:-({'|'.join(FLAVOURS)}))?$")
_KERNEL = "usr/lib/modules/*/vmlinuz"  # in a directory with a package's files

# See Documentation/arch/x86/boot.rst of the kernel
_MAGIC = (0x202, b"HdrS")
_VERSION = 0x20E  # where it says where its version is, less 0x200


@dataclass(frozen=True)
class Image:
    """A kernel that somebody else has built.

    name: by which it was asked for. file: that boots. version: as (6, 12).
    modules: what is to be loaded, in this order.
    drivers: the modules that it has, or has built in. config: its configuration, if known.
    """

    name: str
    file: Path
    version: tuple[int, int]
    modules: tuple[Path, ...] = ()
    drivers: frozenset[str] = frozenset()
    config: str = ""

    @property
    def files(self) -> Path:
        """The directory of what its guests boot with, see boots.Booter."""
        return self.file.parent / "guest"

    @property
    def is_old(self) -> bool:
        """Whether it is older than what policy says of stock."""
        return self.version < policy.NEW

    @property
    def module_names(self) -> list[str]:
        """Return what its modules are called in the guest."""
        return [module.name.partition(".ko")[0] for module in self.modules]

    def has_driver(self, each: Machine) -> bool:
        """Return whether it has the driver of a machine's IOMMU, as far as that is known."""
        words = {word for option in each.qemu for word in option.split(",")}
        wanted = [symbol for name, symbol in _IOMMUS.items() if name in words]
        found = [re.search(rf"^CONFIG_{name}=[ym]$", self.config, re.M) for name in wanted]
        return not self.config or all(found)

    def add_modules(self, archive: Path) -> None:
        """Add its modules to an initramfs."""
        files = zip(self.module_names, map(_unpacked, self.modules))
        initramfs.add(archive, "modules", dict(files))


@dataclass(frozen=True)
class ImageJob(Job):
    """A boot of a kernel that somebody else has built."""

    image: Optional[Image] = None

    def _image(self) -> Image:
        assert self.image
        return self.image

    def has_driver(self, device: Device) -> bool:
        """Return whether the guest has the driver of a disk for certain."""
        return all(name in self._image().drivers for name in _DRIVERS[device.kind])

    @property
    def can_replug(self) -> bool:
        """Whether a slot of the guest can lose its power and get it again.

        With PREEMPT_RT who writes that to sysfs waits for ever, seen with 6.12.
        """
        return "CONFIG_PREEMPT_RT=y" not in self._image().config

    @property
    def modules(self) -> Sequence[str]:
        """Return what the guest has to load, in this order."""
        return self._image().module_names

    @property
    def sees_registers(self) -> bool:
        """Distributions refuse that."""
        return False

    @property
    def is_old(self) -> bool:
        """Whether sysfs takes other words than policy says, and bounces are not counted."""
        return self._image().is_old

    @property
    def does_as(self) -> str:
        """As which kernel it has to do."""
        return policy.OLD if self.is_old else policy.STOCK

    def is_too_strict(self, device: Device) -> bool:
        """Whether it is a kernel of somebody else's, and strict where patched would not be."""
        patched = policy.boot_type(device.policy, self.setting, "patched")
        return self.type_of(device) == "DMA" != patched


def is_for(each: Machine) -> bool:
    """Return whether a machine can have such a kernel: of x86_64, without a diff of probe/."""
    return each.arch.name == "x86_64" and not each.probe


def machines() -> list[str]:
    """Return the names of the machines for --all.

    Where QEMU 10 is needed, that is on vtd-flts, Debian's kernels of 6.1 to 7.3 find no NVMe
    disk, and log no error. Why is not known.
    """
    every = machine.read_all().items()
    return [name for name, each in every if is_for(each) and not each.emulator]


def is_debian(name: str) -> bool:
    """Return whether a name is that of a kernel of Debian's."""
    return bool(_DEBIAN.match(name))


def check(name: str) -> None:
    """Raise CannotTell if a name is neither a kernel's file nor "debian:X.Y"."""
    if is_debian(name):
        return
    if not Path(name).is_file():
        raise CannotTell(
            f"image '{name}': must be a file, or debian:X.Y as in debian:6.12, "
            f"also with -{' or -'.join(FLAVOURS)} behind it"
        )
    _version(Path(name))


def check_modules(directory: Path) -> None:
    """Raise CannotTell if a directory is not one of modules, as /lib/modules/VERSION is."""
    if not (directory / "modules.dep.bin").is_file():
        raise CannotTell(
            f"--modules '{directory}': has no modules.dep.bin, as /lib/modules/VERSION has"
        )


def _version(file: Path) -> tuple[int, int]:
    """Return the version of a kernel's file; CannotTell if that is no kernel for x86_64."""
    content = file.read_bytes()
    place, magic = _MAGIC
    begin = int.from_bytes(content[_VERSION : _VERSION + 2], "little") + 0x200
    found = re.match(rb"(\d+)\.(\d+)", content[begin : begin + 64])
    if content[place : place + len(magic)] != magic or not found:
        raise CannotTell(f"image '{file}': is no bzImage, which x86_64 boots")
    return int(found[1]), int(found[2])


def fetch(name: str, modules: Optional[Path], log: Path, to: Path) -> Image:
    """Have the kernel of this name as a file, and what it needs.

    modules: the directory with those of a file, if it is given. to: where it goes.
    """
    match = _DEBIAN.match(name)
    to.mkdir()
    kernel = to / "kernel"
    if not match:
        kernel.write_bytes(Path(name).read_bytes())
        one = Image(name, kernel, _version(kernel), config=_config_beside(Path(name)))
        return _with_modules(one, modules and modules.resolve(), to)
    with paths.locked(paths.BUILD / "image"):
        found = _fetch_debian(match[1], match[2] or "", log)
    progress.say(f"{name} is {found.name}")
    file = next(iter(found.glob(_KERNEL)))
    kernel.write_bytes(file.read_bytes())
    one = Image(name, kernel, _version(kernel), config=_config_beside(file))
    return _with_modules(one, file.parent, to)


def _config_beside(file: Path) -> str:
    """Return the configuration that a distribution puts beside a kernel, or ""."""
    config = file.with_name(file.name.replace("vmlinuz", "config"))
    return config.read_text() if config.is_file() and config != file else ""


def _with_modules(one: Image, directory: Optional[Path], to: Path) -> Image:
    """Return a kernel with what it needs of its modules. directory: where they are."""
    if not directory:
        return one
    root = to / "root"
    (root / "usr/lib/modules").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")  # kmod looks here or there, as it was built
    (root / "usr/lib/modules" / directory.name).symlink_to(directory.resolve())
    modules: list[Path] = []
    drivers = set()
    for driver in [name for names in (*_DRIVERS.values(), _MORE) for name in names]:
        found = _needed(root, directory.name, driver)
        if found is not None:
            drivers.add(driver)
            modules += found
    return replace(one, modules=tuple(dict.fromkeys(modules)), drivers=frozenset(drivers))


def _needed(root: Path, version: str, driver: str) -> Optional[list[Path]]:
    """Return the modules that are to be loaded for a driver, None if there is no such driver.

    There is none to load if it is built in.
    """
    where: list[str | Path] = ["-C", "/dev/null", "-d", root, "-S", version]
    try:
        said = process.output([packages.SBIN / "modprobe", *where, "--show-depends", driver])
    except process.Failed as error:
        if error.status != 1 or "not found" not in str(error):
            raise
        return None
    words = [line.split() for line in said.splitlines()]
    return [Path(word[1]) for word in words if word[0] == "insmod"]


def _unpacked(module: Path) -> bytes:
    """Return what is in a module, which may be compressed."""
    content = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(content)
    if module.suffix == ".gz":
        return gzip.decompress(content)
    if module.suffix == ".zst":
        return process.output_bytes(["zstd", "-dcq", module])
    return content


def _fetch_debian(version: str, flavour: str, log: Path) -> Path:
    """Return a directory with what Debian's packages of a kernel hold.

    That is what has been fetched before, if nothing can be fetched now.
    """
    pattern = package_pattern(version, flavour)
    where = packages.anywhere()
    new = paths.BUILD / "image/new"
    try:
        archive, name = packages.find(pattern, log, where)
        directory = new.with_name(name)
        if any(directory.glob(_KERNEL)):
            return directory
        paths.remove(new)
        debs = archive.download([name, *_parts(archive, name)], new / "deb")
    except CannotTell as error:
        kept = [each for each in new.parent.glob("linux-image-*") if _is(each, pattern)]
        if kept:
            newest = max(kept, key=lambda each: packages.numbers(each.name))
            progress.say(f"{error}", f"so {newest.name} is used, which is here")
            return newest
        if not isinstance(error, packages.NotOffered):
            raise
        suites = ", ".join(" and ".join(each) or "apt's own suites" for each in where)
        asked = "-".join([f"debian:{version}", *([flavour] if flavour else [])])
        raise CannotTell(f"image '{asked}': Debian has no such kernel in {suites}") from None
    _unpack(debs, new)
    paths.remove(directory)
    new.rename(directory)
    return directory


def _is(directory: Path, pattern: str) -> bool:
    """Return whether a directory has what such a package holds."""
    return bool(re.match(pattern, directory.name)) and any(directory.glob(_KERNEL))


def package_pattern(version: str, flavour: str) -> str:
    """Return what the name of a kernel's package matches; not one that only depends on it."""
    last = f"{flavour}-amd64" if flavour else "amd64"
    return rf"^linux-image-{re.escape(version)}([.][0-9]+)+(-[0-9]+)?([+]deb[0-9]+)?-{last}$"


def _unpack(debs: Sequence[Path], into: Path) -> None:
    """Unpack the packages of a kernel, which are below the same directory."""
    for deb in debs:
        packages.extract(deb, into)
    paths.remove(into / "deb")
    _put_together(into)
    if not any(into.glob(_KERNEL)):
        raise process.Failed(f"{debs[0].name} has no vmlinuz", 1)


def _parts(archive: packages.Archive, name: str) -> list[str]:
    """Return the packages of the same kernel that its package depends on."""
    said = process.output(["apt-cache", *archive.options, "depends", name])
    version = name.removeprefix("linux-image")
    found = re.findall(r"Depends: (linux-\S+)$", said, re.M)
    return [each for each in found if each.endswith(version)]


def _put_together(root: Path) -> None:
    """Have a kernel with its modules, as Debian does since 7.2, and kmod list these.

    That is what installing a package does otherwise.
    """
    if not (root / "usr/lib/modules").is_dir():
        (root / "usr").mkdir(exist_ok=True)
        (root / "lib").rename(root / "usr/lib")
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    for modules in sorted((root / "usr/lib/modules").iterdir()):
        process.output([packages.SBIN / "depmod", "-b", root, modules.name])
        for name in ("vmlinuz", "config"):
            file = root / "boot" / f"{name}-{modules.name}"
            if file.exists():
                file.rename(modules / name)
