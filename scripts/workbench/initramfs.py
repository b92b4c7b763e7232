# SPDX-License-Identifier: GPL-2.0-only
"""What a guest boots with beside its kernel: its programs, what it is told, disk and tables."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from workbench import dmar, machine, paths, process
from workbench.packages import LLVM

GUEST = paths.SCRIPTS / "guest"
JUDGE = paths.TOP / "tools/testing/selftests/iommu/default_domain.c"

OPT_IN = "opt-in.aml"  # the table with which the firmware asks for VT-d to be used
UPGRADE = "kernel/firmware/acpi/dmar.aml"  # where in an initramfs the kernel looks for it
EVENTS_NEED = "tools/include/nolibc/dirent.h"  # which 6.12 does not have

_RECORDS = 65536
_FLAGS = (
    *("-Wall", "-Werror", "-Os", "-static", "-nostdlib", "-ffreestanding"),
    "-fno-stack-protector",
)


@dataclass(frozen=True)
class Sources:
    """Of what the guest's programs are compiled.

    tree: a kernel's source, for its nolibc and kselftest.h.
    headers: directories with the kernel's headers for programs.
    """

    tree: Path
    headers: Sequence[Path]


def system_headers() -> list[Path]:
    """Return where this machine has the kernel's headers for its own programs."""
    return [Path("/usr/include"), Path(f"/usr/include/{platform.machine()}-linux-gnu")]


def _compiler(target: str) -> list[str]:
    """Return the compiler for a target: the machine's own, or Clang for others."""
    if target.startswith(platform.machine()):
        return ["gcc"]
    return [f"clang{LLVM}", f"--target={target}", "-fuse-ld=lld"]


def programs_of(sources: Sources) -> dict[str, Path]:
    """Return the sources of the guest's programs that can be compiled, by their names."""
    programs = {"init": GUEST / "init.c", "default_domain": JUDGE}
    # 6.12 keeps to itself how to call its benchmark, and so does Debian
    if any((path / "linux/map_benchmark.h").exists() for path in sources.headers):
        programs["bench"] = GUEST / "bench.c"
        programs["loads"] = GUEST / "loads.c"
    has_iommufd = any((path / "linux/iommufd.h").exists() for path in sources.headers)
    if has_iommufd and (sources.tree / EVENTS_NEED).exists():
        programs["events"] = GUEST / "events.c"
    # Only kernels that are made for it have what attacks
    if any((path / "linux/edu.h").exists() for path in sources.headers):
        programs["attack"] = GUEST / "attack.c"
    return programs


def command(source: Path, sources: Sources, target: str, out: Path) -> list[str | Path]:
    """Return the command that compiles a program."""
    nolibc = sources.tree / "tools/include/nolibc"
    include = [nolibc, *sources.headers, sources.tree / "tools/testing/selftests"]
    words: list[str | Path] = [*_compiler(target), *_FLAGS, "-include", nolibc / "nolibc.h"]
    for directory in include:
        words += ["-isystem" if directory == Path("/usr/include") else "-I", directory]
    words += ["-o", out, source]
    if words[0] == "gcc":
        words.append("-lgcc")
    return words


def build(sources: Sources, arch: machine.Arch, directory: Path) -> Path:
    """Compile the guest's programs into a directory; return the initramfs.

    Nothing is done if the sources are those of the last time.
    """
    programs = programs_of(sources)
    commands = [
        command(source, sources, arch.target, directory / name)
        for name, source in programs.items()
    ]
    inputs = [*programs.values(), *sorted(GUEST.glob("*.h"))]
    inputs += sorted((sources.tree / "tools/include/nolibc").rglob("*.h"))
    inputs += [sources.tree / "tools/testing/selftests/kselftest.h"]
    for headers in sources.headers:
        if headers not in system_headers():
            inputs += sorted(headers.rglob("*.h"))
    compiler = process.stamp(str(commands[0][0]))
    digest = hashlib.sha256(f"{compiler} {commands}".encode())
    for path in inputs:
        digest.update(path.read_bytes())
    stamp = directory / "built"
    initramfs = directory / "initramfs.cpio"
    made = [initramfs, directory / "disk.img", *(directory / name for name in programs)]
    is_whole = all(path.exists() for path in made)
    if is_whole and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return initramfs
    paths.remove(directory)
    directory.mkdir(parents=True)
    process.step(f"compile the guest for {arch.name}", directory / "log", *commands)
    disk = "".join(f"{record:015d}\n" for record in range(_RECORDS))  # see init.c
    (directory / "disk.img").write_text(disk)
    entries = [_directory(name) for name in ("dev", "proc", "sys")] + [_CONSOLE]
    entries += [_file(name, (directory / name).read_bytes(), 0o755) for name in programs]
    paths.write(initramfs, archive(entries))
    paths.write(stamp, digest.hexdigest().encode())
    return initramfs


@dataclass(frozen=True)
class Entry:
    """A file in an archive for the kernel to unpack: its path without "/", and so on."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


_CONSOLE = Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))


def _directory(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def _file(name: str, content: bytes, mode: int) -> Entry:
    return Entry(name, stat.S_IFREG | mode, content)


def archive(entries: Sequence[Entry]) -> bytes:
    """Return an archive in cpio's "newc" format, see buffer-format.rst of the kernel."""
    packed = b""
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = os.fsencode(entry.name) + b"\0"
        fields = [number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0]
        fields += [*entry.device, len(name), 0]
        packed += _padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        packed += _padded(entry.content)
    return packed


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)


def tell(
    initramfs: Path, told: Sequence[str], to: Path, more: Mapping[str, bytes] = {}
) -> None:
    """Write an initramfs with what a guest is told, a line each, in its file /told.

    more: other files of its, by their names.
    """
    files = {"told": "".join(f"{line}\n" for line in told).encode(), **more}
    entries = [_file(name, content, 0o644) for name, content in files.items()]
    to.write_bytes(_padded(initramfs.read_bytes()) + archive(entries))


def add(initramfs: Path, directory: str, files: Mapping[str, bytes]) -> None:
    """Add a directory with files to an initramfs."""
    entries = [_directory(directory)]
    entries += [_file(f"{directory}/{name}", files[name], 0o644) for name in files]
    initramfs.write_bytes(_padded(initramfs.read_bytes()) + archive(entries))


def tables(machines: Iterable[machine.Machine], directory: Path) -> None:
    """Have the ACPI tables of machines with external-facing ports.

    Those that mark the ports, and OPT_IN.
    """
    ports = {port for each in machines for port in each.external}
    if ports:
        (directory / OPT_IN).write_bytes(dmar.opting_in())
    for port in ports:
        text = (machine.MACHINES / f"{port.kind}.asl").read_text()
        table = directory / port.table
        source = table.with_suffix(".asl")
        source.write_text(text.replace("PORT", port.acpi_name))
        process.output(["iasl", "-p", table.with_suffix(""), source])


def guest_files(
    sources: Sources,
    arch: machine.Arch,
    kept: Path,
    to: Path,
    machines: Iterable[machine.Machine] = (),
) -> None:
    """Have what a guest of these machines boots with beside its kernel.

    kept: where it is built, and stays for the next time. to: where a copy goes.
    """
    with paths.locked(sources.tree.parent):
        build(sources, arch, kept)
        paths.copy(kept, to)
    tables(machines, to)
