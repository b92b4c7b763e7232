# SPDX-License-Identifier: GPL-2.0-only
"""A Debian in a disk image: the stable release, made by mmdebstrap.

Packages of kernels are installed in it by dpkg, which has initramfs-tools make an initramfs
for each. It has no boot loader: QEMU is given kernel and initramfs, taken out of the image.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from workbench import packages, paths, process

_GUEST = paths.SCRIPTS / "guest"
_INCLUDE = (
    *("systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "zstd", "iproute2"),
    *("fio", "iperf3", "libcap2"),
)
# Installed again with what has become newer since the release, so that there is something
_AGAIN = ("kmod", "udev", "initramfs-tools")
_DEBIANS = "linux-image-amd64"
_UPGRADE = "/var/lib/upgrade"  # where the guest finds what it is to be upgraded with
_BLOCK, _BLOCKS, _INODES = 4096, 1 << 19, 1 << 17  # 2 GiB, and most of it holes

# Nobody is to log in, and nothing may begin by itself while a load is measured
_MASKED = (
    *("serial-getty@ttyS0.service", "getty@tty1.service", "apt-daily.timer"),
    *("apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "systemd-tmpfiles-clean.timer"),
)


@dataclass(frozen=True)
class Contents:
    """What is put into the image.

    kernels: packages of kernels. with_debians: whether to have Debian's own, of its backports,
    too. program: that the unit runs. selftests: a directory with the kernel's, as they are
    installed.
    """

    kernels: Sequence[Path]
    with_debians: bool
    program: Path
    selftests: Path


def _sources(log: Path) -> Iterator[str]:
    """Yield lines of sources.list for what has become newer, from where this machine has it."""
    release, site = packages.stable(), packages.mirror(log)
    for suite in (f"{release}-updates", f"{release}-backports"):
        yield f"deb {site} {suite} main"
    if packages.security():
        yield f"deb {packages.security()} {release}-security main"


def _hooks(contents: Contents, log: Path) -> Iterator[str]:
    """Yield what is done in the system once Debian is in it, "$1" being its directory."""
    apt = 'chroot "$1" apt-get --yes --no-install-recommends'
    for line in _sources(log):
        yield f'echo "{line}" >> "$1/etc/apt/sources.list"'
    yield 'chroot "$1" apt-get update'
    if contents.with_debians:
        yield f"{apt} --target-release {packages.stable()}-backports install {_DEBIANS}"
    names = " ".join(f"/tmp/{deb.name}" for deb in contents.kernels)
    if names:
        yield f"copy-in {' '.join(map(str, contents.kernels))} /tmp"
        yield f'chroot "$1" dpkg --install {names}'
        yield f'chroot "$1" rm {names}'
    yield 'echo workbench > "$1/etc/hostname"'
    yield 'echo "/dev/nvme0n1 / ext4 defaults 0 1" > "$1/etc/fstab"'
    yield f"{apt} clean"
    yield f"{apt} --download-only --reinstall install {' '.join(_AGAIN)}"
    yield f"{apt} --download-only dist-upgrade"
    yield f'mkdir "$1{_UPGRADE}"'
    yield f'mv "$1"/var/cache/apt/archives/*.deb "$1{_UPGRADE}"'


def _make_root(contents: Contents, tar: Path) -> None:
    """Have a Debian with the kernels as a tar archive, unless it is there."""
    log = tar.parent / "log"
    command: list[str | Path] = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    command.append(f"--include={','.join(_INCLUDE)}")
    for line in process.output(["apt-config", "dump", "Acquire"]).splitlines():
        command.append(f"--aptopt={line}")
    command += [f"--customize-hook={hook}" for hook in _hooks(contents, log)]
    command += [packages.stable(), tar, packages.mirror(log)]
    digest = hashlib.sha256(repr(command).encode())
    for deb in contents.kernels:
        digest.update(deb.read_bytes())
    stamp = tar.with_suffix(".built")
    if tar.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    paths.remove(stamp)
    paths.remove(tar)
    process.step("make a Debian with the kernels", log / "root.log", command)
    paths.write(stamp, digest.hexdigest().encode())


class _Archive:
    """A tar archive for genext2fs: of each directory, and of nothing that is there already.

    Else genext2fs 1.5 gives directories the mode of what is in them.
    """

    def __init__(self, file: Path) -> None:
        self.tar = tarfile.open(file, "w", format=tarfile.GNU_FORMAT)
        self.directories: set[str] = set()

    def _add_parents(self, name: str) -> None:
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in self.directories:
                self.directories.add(str(parent))
                entry = tarfile.TarInfo(str(parent))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                self.tar.addfile(entry)

    def add(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file of root's."""
        self._add_parents(name)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        self.tar.addfile(entry, io.BytesIO(content))

    def link(self, name: str, to: str) -> None:
        """Add a symbolic link."""
        self._add_parents(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, to
        self.tar.addfile(entry)


def _write_ours(contents: Contents, file: Path) -> None:
    """Write what comes on top as an archive: our unit, what it runs, and the selftests."""
    units = "etc/systemd/system"
    archive = _Archive(file)
    archive.add("usr/lib/workbench/debian", contents.program.read_bytes(), 0o755)
    archive.add(f"{units}/debian.service", (_GUEST / "debian.service").read_bytes())
    archive.link(f"{units}/multi-user.target.wants/debian.service", "../debian.service")
    for name in _MASKED:
        archive.link(f"{units}/{name}", "/dev/null")
    for path in sorted(contents.selftests.rglob("*")):
        if path.is_file():
            name = f"usr/lib/kselftest/{path.relative_to(contents.selftests)}"
            archive.add(name, path.read_bytes(), path.stat().st_mode & 0o777)
    archive.tar.close()


def make(contents: Contents, image: Path) -> None:
    """Have the image."""
    image.parent.mkdir(parents=True, exist_ok=True)
    tar, ours = image.with_name("root.tar"), image.with_name("ours.tar")
    _make_root(contents, tar)
    _write_ours(contents, ours)
    size = ["-z", "-B", str(_BLOCK), "-b", str(_BLOCKS), "-N", str(_INODES)]
    paths.remove(image)  # and not written over: who boots it has a link of his own
    process.step(
        "write the image",
        image.parent / "log/image.log",
        ["genext2fs", *size, "-a", tar, "-a", ours, image],
        [packages.SBIN / "tune2fs", "-j", image],
    )


def kernels(image: Path) -> list[str]:
    """Return the releases of the kernels in the image."""
    said = process.output([packages.SBIN / "debugfs", "-R", "ls -p /boot", image])
    return re.findall(r"/vmlinuz-([^/]+)/", said)


def take_out(image: Path, name: str, to: Path) -> None:
    """Copy a file of the image."""
    process.output([packages.SBIN / "debugfs", "-R", f"dump {name} {to}", image])
    if not to.exists() or not to.stat().st_size:
        raise process.Failed(f"{image} has no {name}", 1)


def copy(image: Path, to: Path) -> None:
    """Copy the image, its holes being holes."""
    process.output(["cp", "--sparse=always", image, to])
