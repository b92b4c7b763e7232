# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/package [--base BASE] [--config CONFIG] [OPTION ...]

Build Debian packages of the patched kernel for x86_64, by the kernel's own "make
bindeb-pkg". How to install them, what to look at, and how to get back, is in
scripts/README.md.

  --base BASE      what it is built from: mainline unless given, see scripts/setup
  --config CONFIG  running, that of the kernel that runs here, unless given; debian, or
                   debian-cloud or debian-rt, Debian's own for this version; or a file
  --loaded         only with the modules that are loaded now, by the kernel's own "make
                   localmodconfig", which takes less time. What is plugged in later may
                   lack its driver
  --kernel KERNEL  patched unless given, or stock, to compare with
  --with NAME      with related/NAME.patch on top; may be given again
  --output DIR     where the packages go, build/packages unless given

Debug information and Debian's keys are left out. The kernel's version ends with
"-default-domain", or with "-stock", and with each NAME: so it can be told from others.
Debian's configuration takes 2 cores hours the first time; ccache keeps what was compiled.

Prints the packages' files. Exit status: 0 built; 2 bad argument, or they could not be.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from workbench import base as bases
from workbench import build, kernel, packages, paths, process, progress, setup, tree, verb
from workbench.commits import version_of
from workbench.process import Words
from workbench.status import AS_EXPECTED, CannotTell

ARCH = "x86_64"
OBJ = "obj-package"
FRAGMENT = build.CONFIG / "package.config"
RUNNING = "running"
LOADED = Path("/proc/modules")
_DEBIAN = re.compile(r"debian(?:-(cloud|rt))?$")
_SUFFIX = {"patched": "-default-domain", "stock": "-stock"}


def check(name: str) -> None:
    """Raise CannotTell if a name is none of a configuration."""
    if name == RUNNING:
        _running()
    elif not _DEBIAN.match(name) and not Path(name).is_file():
        raise CannotTell(
            f"--config '{name}': must be a file, or one of: running debian debian-cloud debian-rt"
        )


def _running() -> bytes:
    """Return the configuration of the kernel that runs here."""
    file = Path(f"/boot/config-{platform.release()}")
    if file.is_file():
        return file.read_bytes()
    packed = Path("/proc/config.gz")
    if packed.is_file():
        return gzip.decompress(packed.read_bytes())
    raise CannotTell(f"--config 'running': neither {file} nor {packed} is there: give another")


def configuration(name: str, base: bases.Base) -> bytes:
    """Return the configuration of this name."""
    if name == RUNNING:
        return _running()
    match = _DEBIAN.match(name)
    return _debians(match[1] or "", base) if match else Path(name).read_bytes()


def _debians(flavour: str, base: bases.Base) -> bytes:
    """Return Debian's own, of its linux-config package."""
    number = ".".join(version_of(base.stock).split(".")[:2])
    package = f"linux-config-{number}"
    directory = base.directory / package
    if not directory.exists():
        archive, name = packages.find(f"^{re.escape(package)}$", base.log, packages.anywhere())
        new = directory.with_suffix(".new")
        paths.remove(new)
        packages.extract(archive.download([name], new / "deb")[0], new)
        new.rename(directory)
    kind, prefix = (
        ("rt", "") if flavour == "rt" else ("none", f"{flavour}-" if flavour else "")
    )
    found = sorted(directory.glob(f"usr/src/{package}/config.amd64_{kind}_{prefix}amd64.xz"))
    if not found:
        raise CannotTell(f"--config: {package} has none of flavour '{flavour or 'amd64'}'")
    return lzma.decompress(found[0].read_bytes())


def suffix(name: str) -> str:
    """Return how the version of a kernel of this name ends, as in "patched+untrusted"."""
    kind, *related = name.split("+")
    return "-".join([_SUFFIX[kind], *related])


def _fragment(name: str) -> bytes:
    """Return what is changed in a configuration, for a kernel of this name."""
    text = FRAGMENT.read_text()
    return text.replace(f'"{_SUFFIX["patched"]}"', f'"{suffix(name)}"').encode()


@dataclass(frozen=True)
class Config:
    """A configuration: what is given, then fragments on top, and defaults for all else.

    modules: unless None, the names of those that are built; all others are left out.
    """

    text: bytes
    fragments: Sequence[Path] = ()
    modules: Optional[Sequence[str]] = None


def _configure(built: kernel.Kernel, obj: Path, config: Config, command: Words) -> None:
    """Configure, with make's command for the kernel."""
    fragment = obj / "package.config"
    asked = b"".join(file.read_bytes() for file in config.fragments) + _fragment(built.name)
    paths.write(obj / ".config", config.text)
    paths.write(fragment, asked)
    merge = str(built.tree / "scripts/kconfig/merge_config.sh")
    commands: list[Words] = [[*command, "olddefconfig"]]
    if config.modules is not None:
        lsmod = "".join(f"{name}\n" for name in ["Module", *config.modules])
        paths.write(obj / "lsmod", lsmod.encode())
        commands.append([*command, f"LSMOD={obj / 'lsmod'}", "localmodconfig"])
    # Only then, since modules that are left out may select what a fragment is to leave out
    commands.append(["env", "-C", obj, merge, "-m", "-O", ".", ".config", fragment.name])
    commands.append([*command, "olddefconfig"])
    process.step(
        f"configure the packages of {built.name}",
        built.base.log / f"configure-package-{built.name}.log",
        *commands,
        env=build.environment(),
    )
    lost = build.not_configured(asked.decode(), (obj / ".config").read_text())
    if lost:
        raise CannotTell(f"not in the configuration as asked for: {' '.join(lost)}")


def _wanted(built: kernel.Kernel, config: Config) -> dict[str, Any]:
    """Return from what the packages would be built now."""
    contents = [config.text, *(file.read_bytes() for file in [*config.fragments, FRAGMENT])]
    return {
        "tree": tree.identity(built.tree),
        "config": hashlib.sha256(b"\0".join(contents)).hexdigest(),
        "modules": None if config.modules is None else sorted(config.modules),
        "compiler": process.stamp("gcc"),
    }


def _loaded() -> list[str]:
    """Return the names of the modules that are loaded."""
    if not LOADED.is_file():
        raise CannotTell(f"--loaded: there is no {LOADED}, so this kernel has no modules")
    return [line.split()[0] for line in LOADED.read_text().splitlines()]


def make(built: kernel.Kernel, config: Config, to: Path) -> list[Path]:
    """Have the packages in a directory; return their files. The base's lock is held.

    Objects are in the tree itself: there every path is relative, and ccache serves what is
    built next. So that is where dpkg-buildpackage puts the packages, in the directory above.
    """
    built.make()
    _remove_packages(built.tree)
    wanted = _wanted(built, config)
    stamp = to / f"{built.name}.built"
    made = build.read_stamp(stamp)
    if made.get("wanted") == wanted and all((to / name).exists() for name in made["files"]):
        return [to / name for name in made["files"]]
    obj = built.tree / OBJ
    if built.like and not obj.exists():
        build.start_from(built.like.tree / OBJ, obj, sorted(built.edits), wanted)
    obj.mkdir(exist_ok=True)
    (obj / "built").unlink(missing_ok=True)
    command = build.make(built.tree, OBJ, ARCH, *build.GCC)
    _configure(built, obj, config, command)
    try:
        process.step(
            f"build the packages of {built.name}",
            built.base.log / f"package-{built.name}.log",
            [*command, "bindeb-pkg"],
            env=build.environment(),
        )
        paths.write(obj / "built", json.dumps(wanted).encode())
        found = _collect(built.tree, to)
    finally:
        _remove_packages(built.tree)
    names = [file.name for file in found]
    paths.write(stamp, json.dumps({"wanted": wanted, "files": names}).encode())
    return found


def _collect(directory: Path, to: Path) -> list[Path]:
    """Move the packages; return where they are. The C library's headers are Debian's."""
    to.mkdir(parents=True, exist_ok=True)
    kept = [deb for deb in directory.glob("*.deb") if "linux-libc-dev" not in deb.name]
    for deb in kept:
        for old in to.glob(f"{deb.name.partition('_')[0]}_*.deb"):
            old.unlink()
    return sorted(Path(shutil.move(deb, to / deb.name)) for deb in kept)


def _remove_packages(directory: Path) -> None:
    """Leave nothing of them in a tree, which would not be as it should be."""
    for pattern in ("*.deb", "*.changes", "*.buildinfo"):
        for file in directory.glob(pattern):
            file.unlink()


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    parser.add_argument("--config", default=RUNNING)
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--kernel", type=verb.one_of(*_SUFFIX), default="patched")
    parser.add_argument("--with", dest="related", action="append", default=[])
    parser.add_argument("--output", type=Path, default=paths.BUILD / "packages")
    asked = parser.parse(arguments)
    check(asked.config)
    modules = _loaded() if asked.loaded else None
    kernel.check_related(asked.related)
    base = bases.find(asked.base)
    setup.prepare(base, [], *packages.PACKAGE)
    with paths.locked(base.directory):
        config = Config(configuration(asked.config, base), modules=modules)
        built = kernel.patched(base) if asked.kernel == "patched" else kernel.stock(base)
        found = make(kernel.with_related(built, asked.related), config, asked.output)
    for deb in found:
        progress.result(str(deb))
    return AS_EXPECTED
