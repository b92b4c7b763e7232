# SPDX-License-Identifier: GPL-2.0-only
"""Configuring and compiling kernels, and what has been built of them already.

What has been built for an architecture is in the kernel's tree, in obj-ARCH: there every
path is relative, so that ccache serves any other checkout. "built" in it says from what.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from workbench import paths, process, progress, tree
from workbench.kernel import Kernel
from workbench.machine import Arch
from workbench.packages import LLVM
from workbench.status import CannotTell

CONFIG = paths.SCRIPTS / "config"
CLANG = (f"LLVM={LLVM}", f"CC=ccache clang{LLVM}", f"HOSTCC=ccache clang{LLVM}")
GCC = ("CC=ccache gcc", "HOSTCC=ccache gcc")
HEADERS = "obj-headers"  # where those for programs are that User Mode Linux runs


@dataclass(frozen=True)
class Target:
    """For what a kernel is built.

    arch: as the kernel's make calls it; "um" is User Mode Linux.
    image: the file that boots, below obj-ARCH.
    more: fragments of scripts/config/ beside those that each kernel has, as debug.
    """

    arch: str
    image: str
    more: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called, and its objects."""
        return "-".join([self.arch, *self.more])

    @property
    def differs_in_a_default(self) -> bool:
        """Whether what is built differs from what is without more in few objects."""
        return all(name.startswith("default-") for name in self.more) and bool(self.more)


def make(source: Path, obj: str, arch: str, *words: str) -> list[str]:
    """Return the command for the kernel's make, its objects in a directory of the source."""
    jobs = f"-j{os.cpu_count() or 1}"
    return ["make", "-C", str(source), f"O={obj}", f"ARCH={arch}", jobs, *words]


def environment() -> dict[str, str]:
    """Return the environment for make: what is built does not tell when and by whom.

    Nor does it depend on what the user has told the kernel's make, as in KCFLAGS, nor on a
    ccache in depend mode: that one does not see what assembly includes with .incbin.
    """
    told = {
        name: value
        for name, value in process.environment().items()
        if name not in _OF_MAKE and not name.startswith(("KBUILD_", "KCONFIG_", "LLVM"))
    }
    told.update(KBUILD_BUILD_TIMESTAMP="@0", KBUILD_BUILD_USER="build")
    return {**told, "KBUILD_BUILD_HOST": "build", "CCACHE_NODEPEND": "1"}


_OF_MAKE = {
    *("ARCH", "SUBARCH", "CROSS_COMPILE", "INSTALL_HDR_PATH", "MAKEFLAGS", "MFLAGS", "O"),
    *("KCFLAGS", "KCPPFLAGS", "KAFLAGS", "KRUSTFLAGS", "HOSTCFLAGS", "HOSTLDFLAGS", "CHECK"),
    *(
        "CC",
        "LD",
        "HOSTCC",
        "CFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "CPATH",
        "C_INCLUDE_PATH",
        "C",
        "W",
        "CCACHE_DEPEND",
    ),
}


def fragments(kernel: Kernel, target: Target) -> list[Path]:
    """Return the fragments of configuration of a kernel that boots."""
    names = ["common", target.arch, *kernel.fragments, *target.more]
    return [CONFIG / f"{name}.config" for name in names]


def words_for_make(files: Sequence[Path]) -> list[str]:
    """Return what fragments want make to be told beside the configuration: "# make: WORDS"."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [word for line in lines if line.startswith("# make: ") for word in line.split()[2:]]


def not_configured(asked: str, config: str) -> list[str]:
    """Return the lines of fragments that a configuration does not have.

    Where they have two of a symbol the last one counts, as for merge_config.sh.
    """
    lines = set(config.splitlines())
    last = {}
    for line in asked.splitlines():
        if line.startswith("CONFIG_") and line.endswith("=n"):
            line = f"# {line[:-2]} is not set"
        is_asked = line.startswith("CONFIG_") or (
            line.startswith("# CONFIG_") and line.endswith(" is not set")
        )
        if is_asked:
            last[line.removeprefix("# ").replace("=", " ").split()[0]] = line
    return [line for line in last.values() if line not in lines]


def configure(obj: Path, files: Sequence[Path], command: Sequence[str], log: Path) -> None:
    """Configure what a make command builds: tinyconfig, with fragments on top.

    The base's lock is held. Raises CannotTell, and names it, if a symbol that a fragment
    asks for is not in the result.
    """
    obj.mkdir(exist_ok=True)
    kept, made = _tinyconfig_file(obj, command), obj / ".tinyconfig"
    tiny = _signed(kept)
    begin: list[Sequence[str | Path]] = []
    if tiny:
        paths.write(obj / ".config", tiny)
    else:
        begin = [[*command, "tinyconfig"], ["cp", obj / ".config", made]]
    asked = "".join(file.read_text() for file in files)
    merge: list[str | Path] = [
        "../scripts/kconfig/merge_config.sh",
        "-m",
        "-O",
        ".",
        ".config",
        *files,
    ]
    process.step(
        f"configure {obj.parent.name}, {obj.name}",
        log,
        *begin,
        ["env", "-C", obj, *merge],
        [*command, "olddefconfig"],
        env=environment(),
    )
    if not tiny:
        tiny = made.read_bytes()
        with _one_writes:
            paths.write(kept, f"{_hash(tiny)}\n".encode() + tiny)
    lost = not_configured(asked, (obj / ".config").read_text())
    if lost:
        raise CannotTell(
            f"not in the configuration as asked for: {' '.join(lost)} (see {log})"
        )


# The files that make tinyconfig what it is
_OF_TINYCONFIG = (
    r"(^|/)Kconfig[^/]*$|^(arch|kernel)/.*[.]config$|^(arch/[^/]*/)?Makefile$"
    r"|^scripts/(kconfig/|include/|Makefile|[^/]*[.]sh$)"
)
_INSTALLED = Path("/var/lib/dpkg/status")  # changes whenever a package is installed
# Of make's words those that do not matter: directories, jobs, and which warnings there are
_NO_CONFIG = ("O=", "-j", "W=", "C=", "CHECK=")
_one_writes = threading.Lock()  # of the threads that configure two kernels at once


def _tinyconfig_file(obj: Path, command: Sequence[str]) -> Path:
    """Return the file in which tinyconfig is kept, since make needs ten seconds for it.

    It may not exist yet. Its name says on what it depends: files of the tree, the compilers,
    what is installed, and what make is told.
    """
    top = obj.parent
    words = [word for word in command if not word.startswith((*_NO_CONFIG, str(top)))]
    compilers = [*_compiler("x86_64"), *_compiler("um")]
    installed = str(_INSTALLED.stat().st_mtime_ns) if _INSTALLED.exists() else ""
    parts = [tree.content(top, _OF_TINYCONFIG), *words, *compilers, installed]
    return top.parent / "tinyconfig" / _hash(*(part.encode() for part in parts))


def _signed(file: Path) -> bytes:
    """Return what a file holds behind its hash, which is its first line.

    Return nothing if there is no such file, or if somebody has edited it.
    """
    try:
        digest, _, held = file.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return b""
    return held if digest == _hash(held).encode() else b""


def _compiler(arch: str) -> list[str]:
    """Return what changes when the compiler does: where it is, its size and date."""
    names = ["gcc", "ld"] if arch == "um" else [f"clang{LLVM}", f"ld.lld{LLVM}"]
    return [process.stamp(name) for name in names]


def _hash(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def _wanted(kernel: Kernel, target: Target) -> dict[str, Any]:
    """Return from what a kernel would be built now."""
    return {
        "tree": tree.identity(kernel.tree),
        "kconfig": tree.identity(kernel.tree, "onfig"),  # of Kconfig, kconfig/, tiny.config
        "config": _hash(*(file.read_bytes() for file in fragments(kernel, target))),
        "compiler": _compiler(target.arch),
    }


def read_stamp(file: Path) -> dict[str, Any]:
    """Return what was written down of a build, nothing if it is not there or damaged."""
    try:
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else {}
    except (FileNotFoundError, ValueError):
        return {}


def outlook(kernel: Kernel, target: Target) -> str:
    """Return what there is to build of a kernel, and about how long that takes.

    The times are of 2 cores of an AMD EPYC, with an empty ccache.
    """
    obj = kernel.tree / f"obj-{target.name}"
    if (obj / "built").exists():
        return "is built; is built again if something has changed"
    if kernel.like:
        return "to be built, about 1 min, from the objects of " + kernel.like.name
    return "to be built, about 6 min, or 1 min if ccache knows it"


def kernel_image(kernel: Kernel, target: Target) -> Path:
    """Build a kernel if anything has changed since it was; return the file that boots.

    Its tree has been made, and its base's lock is held.
    """
    obj = kernel.tree / f"obj-{target.name}"
    image = obj / target.image
    wanted = _wanted(kernel, target)
    if read_stamp(obj / "built") == {**wanted, "made": _made(kernel, target)}:
        return image
    plain = kernel.tree / f"obj-{target.arch}"
    if not obj.exists() and target.differs_in_a_default and plain.exists():
        start_from(plain, obj, [], wanted)
    elif kernel.like and not obj.exists():
        kernel.like.make()
        start_from(kernel.like.tree / obj.name, obj, sorted(kernel.edits), wanted)
        tree.touch(kernel.tree, sorted(set(kernel.like.edits) - set(kernel.edits)))
        wanted = _wanted(kernel, target)
    configured = read_stamp(obj / "configured")
    if configured.get("compiler", wanted["compiler"]) != wanted["compiler"]:
        progress.say(f"the compiler has changed: {obj} is built anew")
        paths.remove(obj)
        configured = {}
    if "made" in read_stamp(obj / "built"):
        image.unlink(missing_ok=True)  # it may be damaged, and its date new
    (obj / "built").unlink(missing_ok=True)
    if target.arch == "um":
        _build_um(kernel, obj)
    else:
        _build(kernel, target, obj, wanted, configured)
    paths.write(obj / "configured", json.dumps(wanted).encode())
    made = _made(kernel, target)
    paths.write(obj / "built", json.dumps({**wanted, "made": made}).encode())
    return image


def _made(kernel: Kernel, target: Target) -> str:
    """Return what changes if what is taken from a build does: its image and its headers."""
    obj = kernel.tree / f"obj-{target.name}"
    headers = kernel.tree / HEADERS if target.arch == "um" else obj
    try:
        state = (obj / target.image).stat()
    except FileNotFoundError:
        return ""
    there = (headers / "usr/include").is_dir()
    listed = tree.listing(headers / "usr/include") if there else b""
    return f"{state.st_size} {state.st_mtime_ns} {_hash(listed)}"


def _build(
    kernel: Kernel,
    target: Target,
    obj: Path,
    wanted: Mapping[str, Any],
    configured: Mapping[str, Any],
) -> None:
    log = kernel.base.log
    what = f"{kernel.name} for {target.name}"
    files = fragments(kernel, target)
    command = make(kernel.tree, obj.name, target.arch, *CLANG, *words_for_make(files))
    if any(configured.get(key) != wanted[key] for key in ("kconfig", "config")):
        (obj / "configured").unlink(missing_ok=True)
        configure(obj, files, command, log / f"configure-{kernel.name}-{target.name}.log")
        paths.write(obj / "configured", json.dumps(wanted).encode())
    stats = obj / "ccache.stats"
    stats.unlink(missing_ok=True)
    process.step(
        f"build {what}",
        log / f"build-{kernel.name}-{target.name}.log",
        [*command, Path(target.image).name, "headers"],
        env={**environment(), "CCACHE_STATSLOG": str(stats)},
    )
    _say_what_ccache_knew(f"build {what}", stats)


def _say_what_ccache_knew(label: str, stats: Path) -> None:
    if stats.exists():  # there is none if the user has disabled ccache
        results = [line for line in stats.read_text().splitlines() if not line.startswith("#")]
        hits = sum(line.endswith("_hit") or "_cache_hit" in line for line in results)
        calls = sum("hit" in line or line == "cache_miss" for line in results)
        progress.say(f"{label}: {hits} of {calls} from ccache")


def _build_um(kernel: Kernel, obj: Path) -> None:
    """Build for User Mode Linux, with the kernel's own tool for its tests there."""
    command = [
        *(sys.executable, "-B", "tools/testing/kunit/kunit.py", "build"),
        *(f"--build_dir={obj.name}", "--kunitconfig=drivers/iommu"),
        f"--kunitconfig={CONFIG / 'um.config'}",
        *(f"--jobs={os.cpu_count() or 1}", "--make_options", GCC[0]),
    ]
    # It has no headers for programs but those of the machine that it is
    headers = make(kernel.tree, HEADERS, "x86_64", *CLANG, "headers")
    process.step(
        f"build {kernel.name} for um",
        kernel.base.log / f"build-{kernel.name}-um.log",
        command,
        headers,
        cwd=kernel.tree,
        env=environment(),
    )


def start_from(like: Path, obj: Path, edits: Sequence[str], wanted: Mapping[str, Any]) -> None:
    """Begin with objects that have been built in the tree of a kernel like this one.

    Not if they have been built of other files than are there now, or by another compiler.
    Then make builds only what differs. Where there are edits the objects get a date before
    that of every edit, or make would take them for newer than what they have been built
    without.
    """
    built = read_stamp(like / "built")
    is_there = built.get("tree") == tree.identity(like.parent)
    if not is_there or built["compiler"] != wanted["compiler"]:
        return
    new = obj.with_name(obj.name + ".new")
    paths.remove(new)
    dates = [path.stat().st_mtime for path in _present(obj.parent, edits)]
    with progress.activity(f"copy objects of {like.parent.name} to {obj.parent.name}"):
        process.output(["cp", "-a", like, new])
        (new / "built").unlink()
        is_same_tree = like.parent == obj.parent
        move(new, like if is_same_tree else like.parent, obj if is_same_tree else obj.parent)
        for path in new.rglob("*") if dates else ():
            if path.is_file() and not path.is_symlink():
                os.utime(path, (min(dates) - 1,) * 2)
    new.rename(obj)


def _present(top: Path, names: Sequence[str]) -> Iterator[Path]:
    return (top / name for name in names if (top / name).exists())


def move(obj: Path, old: Path, new: Path) -> None:
    """Have copied objects name the path where they are now.

    objtool is built by absolute paths: unless they are mended make builds it, and then all
    else, again.
    """
    found = subprocess.run(
        ["grep", "-rlIF", f"{old}/", str(obj)], capture_output=True, check=False
    )
    for name in found.stdout.splitlines():
        path = Path(os.fsdecode(name))
        content = path.read_bytes().replace(bytes(old) + b"/", bytes(new) + b"/")
        path.write_bytes(content)


def copy_image(image: Path, to: Path) -> Path:
    """Copy what boots to where it stays the same, whatever else is built meanwhile."""
    shutil.copyfile(image, to)
    return to


def build_one(built: Kernel, arch: Arch, to: Path, more: tuple[str, ...] = ()) -> Path:
    """Have a kernel for an architecture; return a copy that stays. more: see Target."""
    with paths.locked(built.base.directory):
        built.make()
        image_file = kernel_image(built, Target(arch.name, arch.image, more))
        return copy_image(image_file, to)
