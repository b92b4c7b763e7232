# SPDX-License-Identifier: GPL-2.0-only
"""Debian's packages: which ones a task needs, installing them, and fetching others."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Optional, Sequence

from workbench import paths, process
from workbench.status import CannotTell

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SBIN = Path("/usr/sbin")  # which a user's PATH may lack
LLVM = "-19"  # the suffix of Debian's LLVM programs, as the kernel's make wants it


@dataclass(frozen=True)
class Need:
    """A package, and the program in it by which other systems may have it, too."""

    package: str
    program: str = ""


def _needs(*words: str) -> tuple[Need, ...]:
    """Each word is "package" or "package:program"."""
    return tuple(Need(*word.split(":")) for word in words)


FETCH = _needs(
    *("debian-archive-keyring", "distro-info:debian-distro-info"),
    *("xz-utils:xz", "patch:patch", "rsync:rsync"),
)
BUILD = _needs(
    *("bc:bc", "bison:bison", "ccache:ccache", "flex:flex", "gcc:gcc", "libc6-dev"),
    *("libelf-dev", "make:make", "perl:perl"),
    *(f"clang{LLVM}:clang{LLVM}", f"lld{LLVM}:ld.lld{LLVM}", f"llvm{LLVM}:llvm-ar{LLVM}"),
)
GUEST = _needs("gcc:gcc", "libc6-dev")
ACPI = _needs("acpica-tools:iasl")
IMAGE = _needs("kmod:modprobe", "zstd:zstd")
PACKAGE = _needs(
    *("cpio:cpio", "debhelper", "dpkg-dev", "gcc:gcc", "kmod:modprobe", "libdw-dev"),
    *("libssl-dev", "openssl:openssl"),
)
DEBIAN = _needs(
    *("e2fsprogs:debugfs", "genext2fs:genext2fs", "libcap-dev", "mmdebstrap:mmdebstrap")
)
YAML = _needs("python3-yaml")
LAVA = _needs("lava-common", "lava-dispatcher", "python3-yaml")
GIT = _needs("git:git", "perl:perl", "python3-yaml")
CHECK = _needs(
    *("sparse:sparse", f"clang-format{LLVM}:clang-format{LLVM}", "shellcheck:shellcheck"),
    *("coccinelle:spatch", "libpython3-dev"),  # which spatch loads to run Python
    *("graphviz:dot", "python3-sphinx:sphinx-build", "python3-yaml"),
    *("black:black", "mypy:mypy", "pyflakes3:pyflakes3", "python3-pytest", "libcap-dev"),
)
PYTEST = _needs("python3-pytest")
REPORT = _needs("python3-jinja2", "gnuplot-nox:gnuplot")
BROWSER = _needs("chromium:chromium")


def qemu(program: str) -> tuple[Need, ...]:
    """Return what has a qemu-system-ARCH; Debian 12 has some of them in one package."""
    packages = {
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-system-aarch64": "qemu-system-arm",
    }
    return (Need(packages.get(program, program), program),)


def _installed() -> set[str]:
    try:
        said = process.output(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Provides}\n"]
        )
    except FileNotFoundError:
        return set()
    names: set[str] = set()
    for line in said.splitlines():
        if line.startswith("installed "):
            names.update(word.strip(",") for word in line.split()[1:])
    return names


def missing(needs: Iterable[Need]) -> list[Need]:
    """Return those of the needs that this machine does not have."""
    wanted = sorted(set(needs), key=lambda need: need.package)
    without = [need for need in wanted if not (need.program and shutil.which(need.program))]
    if not without:
        return []
    installed = _installed()
    return [need for need in without if need.package not in installed]


def install(needs: Iterable[Need], log: Path) -> None:
    """Install what is missing; then go on as the user to whom the checkout belongs.

    Raises CannotTell, with what to do, where that takes root and we are not, or where
    packages are not Debian's.
    """
    owner = act_as_owner()
    lacking = missing(needs)
    if lacking:
        _install([need.package for need in lacking], log)
    if owner:
        _become(owner)


def _install(names: Sequence[str], log: Path) -> None:
    if not shutil.which("apt-get"):
        raise CannotTell(f"this is not Debian, and these are missing: {' '.join(names)}")
    if os.getuid() != 0:
        raise CannotTell(f"packages are missing: sudo apt-get install {' '.join(names)}")
    with paths.locked(paths.BUILD, "apt.lock"):
        update_lists(log / "apt-update.log")
        process.step(
            f"install {len(names)} packages",
            log / "apt-install.log",
            ["apt-get", "install", "--yes", "--no-install-recommends", *names],
            env=process.environment(DEBIAN_FRONTEND="noninteractive"),
            **_AS_ROOT,
        )


# For Popen(): undoes act_as_owner() in the program
_AS_ROOT = {"user": 0, "group": 0}


def update_lists(log: Path) -> None:
    """Have the machine's own apt read its package lists. Takes root."""
    process.step("read the package lists", log, ["apt-get", "update"], **_AS_ROOT)


def _owner() -> Optional[pwd.struct_passwd]:
    """Return the user to whom the checkout belongs, if we are root and that is not."""
    uid = paths.TOP.stat().st_uid
    if os.getuid() != 0 or uid == 0:
        return None
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None  # a number only, as in a container: nobody to become


def act_as_owner() -> Optional[pwd.struct_passwd]:
    """Write files as the owner, if that is another than we, but still be able to install."""
    owner = _owner()
    if owner:
        os.setegid(owner.pw_gid)
        os.seteuid(owner.pw_uid)
    return owner


def _become(owner: pwd.struct_passwd) -> None:
    os.seteuid(0)
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    os.environ.update(HOME=owner.pw_dir, USER=owner.pw_name, LOGNAME=owner.pw_name)


def mirror(log: Path) -> str:
    """Return the URL of the Debian mirror that the machine's own apt uses."""
    site = _site()
    if not site and os.getuid() == 0:
        update_lists(log / "apt-update.log")
        site = _site()
    if not site:
        raise CannotTell(
            "apt has no list of a Debian mirror: run apt-get update as root, "
            "or see which mirror the sources in /etc/apt name"
        )
    return site


def security() -> str:
    """Return the URL from which the machine's own apt has what is urgent, "" if it has not."""
    return _site("Debian-Security")


def _site(label: str = "Debian") -> str:
    if not shutil.which("apt-get"):
        raise CannotTell("apt-get is not installed: it downloads from Debian")
    sites = process.output(
        ["apt-get", "indextargets", "--format", "$(SITE)"]
        + ["Created-By: Packages", f"Label: {label}"]
    )
    return min(sites.split(), default="")


def release() -> str:
    """Return the code name of the Debian that this is, "bookworm", or ""."""
    with open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VERSION_CODENAME="):
                return line.partition("=")[2].strip().strip('"')
    return ""


class Archive:
    """What apt can fetch: from the machine's own sources, or suites that we name."""

    def __init__(self, log: Path, suites: Sequence[str] = ()) -> None:
        self.log = log
        self.site = mirror(log)
        self.options = ["-o", "APT::Sandbox::User=root"]
        if suites:
            with paths.locked(paths.BUILD, "apt.lock"):
                self._read(suites)

    def _read(self, suites: Sequence[str]) -> None:
        """Read the suites' lists into an apt root of our own, with options that lead there."""
        root = paths.BUILD / "apt" / "+".join(suites)
        for directory in ("lists/partial", "cache/archives/partial"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        lines = [f"deb [signed-by={KEYRING}] {self.site} {suite} main\n" for suite in suites]
        (root / "sources.list").write_text("".join(lines))
        self.options += [
            *(
                "-o",
                f"Dir::Etc::SourceList={root}/sources.list",
                "-o",
                "Dir::Etc::SourceParts=-",
            ),
            *("-o", f"Dir::State::Lists={root}/lists", "-o", f"Dir::Cache={root}/cache"),
            *("-o", "APT::Update::Error-Mode=any"),
        ]
        process.step(
            f"read the lists of {' '.join(suites)}",
            self.log / "apt-update.log",
            ["apt-get", *self.options, "update"],
        )

    def names(self, pattern: str) -> list[str]:
        """Return the names of the packages that match a regular expression."""
        said = process.output(["apt-cache", *self.options, "search", "--names-only", pattern])
        return [line.split()[0] for line in said.splitlines()]

    def download(self, names: Sequence[str], into: Path) -> list[Path]:
        """Fetch packages, their signatures checked; return their files."""
        into.mkdir(parents=True, exist_ok=True)
        process.step(
            f"download {' '.join(names)}",
            self.log / "download.log",
            ["apt-get", *self.options, "download", *names],
            cwd=into,
        )
        return sorted(into.glob("*.deb"))


def stable(which: str = "stable") -> str:
    """Return the code name of Debian's stable release, or of its oldstable."""
    return process.output(["debian-distro-info", f"--{which}"]).strip()


def latest() -> list[list[str]]:
    """Return the suites that have the newest: stable's backports and unstable, as one."""
    return [[f"{stable()}-backports", "unstable"]]


def anywhere() -> list[list[str]]:
    """Return where to look, one after the other: the machine's own sources come first."""
    stables = [[stable()], [stable("oldstable")]]
    return [[], [f"{release()}-backports"], *stables, *latest()]


class NotOffered(CannotTell):
    """No package has a name that matches."""


def find(pattern: str, log: Path, where: Sequence[Sequence[str]]) -> tuple[Archive, str]:
    """Return the newest package whose name matches, and the first that carries one.

    Raises NotOffered if none does.
    """
    for suites in where:
        archive = Archive(log, suites)
        names = archive.names(pattern)
        if names:
            return archive, max(names, key=numbers)
    raise NotOffered(f"no package {pattern} on offer from {mirror(log)}")


def numbers(name: str) -> list[int]:
    """Return the numbers in a package's name, by which the newest is found."""
    return [int(part) for part in re.findall(r"\d+", name)]


def name_and_version(deb: Path) -> str:
    """Return "PACKAGE VERSION" of a package's file."""
    return " ".join(process.output(["dpkg-deb", "--show", deb]).split())


def extract(deb: Path, into: Path) -> None:
    """Unpack a package's files; Failed is raised if it is damaged."""
    process.output(["dpkg-deb", "--extract", deb, into])


def unpack_source(deb: Path, into: Path, log: Path) -> None:
    """Unpack the kernel of a linux-source package, which is a tar.xz within it."""
    outer = into.with_name(f"{into.name}.deb")
    try:
        extract(deb, outer)
        found = next(outer.glob("usr/src/linux-source-*.tar.xz"), None)
        if not found:
            raise process.Failed(f"{deb} has no linux-source-*.tar.xz", 1)
        into.mkdir(parents=True)
        command: list[str | Path] = ["tar", "-x", "-J", "-f", found, "-C", into]
        command += ["--strip-components=1"]
        process.step(f"unpack {deb.name.partition('_')[0]}", log / "unpack.log", command)
    finally:
        paths.remove(outer)
