# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/test [--full] [--list] [PART ...]

Run the checks of this project: without an option, the parts that --list shows and does not
mark. They check the workbench, both series, KUnit, and the change on machines of x86_64.
Installs and builds what is missing first.

  --full  also the parts that --list marks: they need more kernels, packages or time. Each
          takes less than an hour. The parts debian-12-* and debian-13-* need root, and a
          checkout that belongs to root. The parts page and lava need packages that
          scripts/setup does not install, and so root, once
  --list  print the parts, and what each checks
  PART    only these

Prints a line for each check; then a table of what scripts/boot has booted in each: how many
boots, machines, settings, events and injected failures of allocations ("faults") were as
expected, and with which kernels; and last "N passed, N failed". If a check runs scripts/boot
several times, its machines and settings count once for each run. If a check prints totals of
its own, as KUnit does of its cases, these count instead of the check. What a failed check
printed last goes to stderr; all of it is kept under build/run/.

Exit status: 0 all passed; 1 some failed; 2 bad argument, or some could not be made.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import (
    build,
    check,
    chroot,
    events,
    figures,
    initramfs,
    kernel,
    machine,
    measures,
    mutate,
    packages,
)
from workbench import patches, paths, policy, process, progress, setup, tree, verb, verdict
from workbench.commits import FIRST, TESTS, carried, commits_on
from workbench.mails import BRANCH, based_on
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, NOT_FOUND_OUT, CannotTell, Tally, must_be_one_of

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}
NOBODY = "test <test@localhost>"
SLOW_CHECKS = (
    *("coccinelle", "gcc", "i386", "arm64", "arm", "s390", "riscv", "powerpc"),
    "allmodconfig",
)


class Wrong(Exception):
    """A check has failed. The text says why; said is what a program has said."""

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(why)
        self.said = said


@dataclass
class Tried:
    """What scripts/boot has tried in a check, where all was as expected."""

    check: str = ""
    boots: int = 0
    machines: int = 0
    settings: int = 0
    events: int = 0
    faults: int = 0
    kernels: tuple[str, ...] = ()

    def add(self, said: str) -> None:
        """Add what scripts/boot says."""
        for form in _TRIED:
            for found in re.finditer(form, said, re.M):
                for name, text in found.groupdict().items():
                    new = tuple(text.split(" and ")) if name == "kernels" else int(text)
                    setattr(self, name, getattr(self, name) + new)


_TRIED = (
    r"^boot: (?P<boots>\d+) boots of (?P<kernels>.*) on (?P<machines>\d+) machines, "
    r"(?P<settings>\d+) settings",
    r"^boot: (?P<events>\d+) events, (?P<faults>\d+) allocations that failed",
)


_SUMMED = ("boots", "events", "faults")
_NOTHING_ELSE = "in all: no wrong type, no unexpected error in a kernel's log"


def _reason(said: str) -> str:
    """Return why a program has failed: what it marks as failed, else its last line."""
    marked = [line for line in said.splitlines() if line.startswith("FAILED ")]
    return "; ".join(marked[:3]) or _last_line(said)


def _must_have_found_out(status: int, program: str | Path, said: str) -> None:
    """Raise CannotTell if a program could not tell, or was killed: ours add 128 then."""
    if status == NOT_FOUND_OUT or status < 0 or status > 128:
        raise CannotTell(f"{Path(program).name} ends with {status}: {_last_line(said)}")


@dataclass
class Run:
    """What a check can do: run programs, with what they say in its log."""

    directory: Path
    log: Path
    tried: Tried = field(default_factory=Tried)

    def write(self, text: str) -> None:
        """Add a line to the log."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    def call(
        self, *command: str | Path, cwd: Optional[Path] = None, env: Mapping[str, str] = {}
    ) -> tuple[int, str]:
        """Run a program; return its status and what it says."""
        words = [str(word) for word in command]
        self.write(f"$ {' '.join(words)}")
        with open(self.log, "ab") as file:
            file.seek(0, os.SEEK_END)
            start = file.tell()
            child = process.start(
                words,
                cwd=cwd,
                env={**process.environment(), **IDENTITY, **env},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            status = child.wait()
            process.forget(child)
        said = self.log.read_bytes()[start:].decode(errors="replace")
        if command[0] == script("boot") and status == AS_EXPECTED:
            self.tried.add(said)
        return status, said

    def good(
        self, *command: str | Path, cwd: Optional[Path] = None, env: Mapping[str, str] = {}
    ) -> str:
        """Run a program that has to succeed; return what it says."""
        status, said = self.call(*command, cwd=cwd, env=env)
        _must_have_found_out(status, command[0], said)
        if status:
            raise Wrong(f"{Path(command[0]).name} ends with {status}: {_reason(said)}", said)
        return said

    def fails(self, status: int, says: str, *command: str | Path) -> str:
        """Run a program that has to end with a status, and say something."""
        found, said = self.call(*command)
        if found != status:
            _must_have_found_out(found, command[0], said)
        if found != status or says not in said:
            why = f"ends with {found}, should with {status}, and say: {says}"
            raise Wrong(f"{why}; {_reason(said)}")
        return said

    def refuses(self, says: str, *command: str | Path) -> None:
        """Run a program with a bad argument: it gets one line, and status 2."""
        said = self.fails(2, says, *command)
        if len(said.splitlines()) != 1:
            raise Wrong("says more than one line")


def script(name: str) -> Path:
    """Return a verb."""
    return paths.SCRIPTS / name


def _same(what: str, one: bytes, other: bytes) -> None:
    if one != other:
        raise Wrong(f"{what} is not the same")


def workbench(run: Run) -> str:
    """the workbench's own tests"""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    said = run.good(*command, "tests", cwd=paths.SCRIPTS)
    found = re.search(r"(\d+) passed", said)
    if not found or "skipped" in said:
        raise Wrong("pytest has skipped tests, or has run none")
    return f"{found[1]} passed, 0 failed"


def python_and_shell(run: Run) -> str:
    """static checks of the workbench"""
    return run.good(script("check"), *check.OF_OURS)


def judge_with_libc(run: Run) -> None:
    """the selftest with a C library, as on a real machine"""
    judge = run.directory / "default_domain"
    include = bases.find("mainline").stock / "tools/testing/selftests"
    flags = ["-Wall", "-Werror", "-O2", "-D_GNU_SOURCE="]
    run.good("gcc", *flags, "-I", include, "-o", judge, paths.TOP / check.SELFTEST)
    run.good(judge, "--help")
    status, _ = run.call(judge)
    if status not in (0, 4):
        raise Wrong(f"it ends with {status}")
    run.fails(1, "is in no IOMMU group", judge, "nosuch=DMA")
    run.fails(1, "want DEVICE=TYPE", judge, "0000:00:00.0=LAZY")
    run.fails(1, "needs --write", judge, "0000:00:00.0/DMA/auto=DMA")
    run.fails(1, "with FROM a type", judge, "--write", "0000:00:00.0/LAZY/auto=DMA")


def kselftest(run: Run) -> None:
    """the selftest, built, installed and run as every selftest is"""
    patched = kernel.patched(bases.find("mainline"))
    build.build_one(patched, machine.arch("x86_64"), run.directory / "image")
    tree, installed = patched.tree, run.directory / "kselftest"
    make: list[str | Path] = [
        "make",
        "-C",
        tree / "tools/testing/selftests",
        f"O={tree}/obj-x86_64",
    ]
    run.good(
        *make, "TARGETS=iommu", f"LLVM={packages.LLVM}", f"INSTALL_PATH={installed}", "install"
    )
    if not (installed / "iommu/iommufd").exists():
        raise Wrong("the other selftests of the directory are not there")
    run.good(installed / "run_kselftest.sh", "-t", "iommu:default_domain")


# What each verb refuses: the words that its one line has to have, and its arguments
REFUSALS = (
    ("'nosuch'", "boot", "nosuch"),
    ("'2'", "boot", "--strict", "2"),
    ("'/nowhere'", "boot", "--base", "/nowhere"),
    ("'vax'", "boot", "--arch", "vax"),
    ("'0'", "boot", "--replug", "0"),
    ("virtio-iommu", "boot", "--odd", "virtio-iommu"),
    ("--odd and --all", "boot", "--odd", "--all"),
    ("'0'", "boot", "--random", "0"),
    ("--random and --attack", "boot", "--random", "1", "--attack"),
    ("'vtd'", "boot", "--random", "1", "vtd"),
    ("'nowhere'", "boot", "./nowhere"),
    ("'virtio-iommu'", "boot", "--default", "opt-in", "virtio-iommu"),
    ("'vtd'", "boot", "--default", "opt-in", "vtd"),
    ("--loads and --strict", "boot", "--loads", "--strict", "0"),
    ("'virtio-iommu'", "boot", "--loads", "virtio-iommu"),
    ("--events and --all", "boot", "--events", "--all"),
    ("for --events", "boot", "--rounds", "3"),
    ("for --events", "boot", "--kcsan"),
    ("no terminal", "series", "mail", "--send"),
    ("'um'", "boot", "--events", "--arch", "um"),
    ("'nosuch'", "boot", "--events", "--event", "nosuch"),
    ("'plug'", "boot", "--events", "--event", "plug", "vtd"),
    ("'3': --event kexec", "boot", "--events", "--event", "kexec", "--rounds", "3"),
    ("--event type ignores", "boot", "--events", "--replug", "3", "vtd-nopt-external"),
    ("--events is for x86_64", "boot", "--events", "--arch", "s390"),
    ("'vtd-late'", "boot", "--events", "vtd-late"),
    ("--random and --replug", "boot", "--random", "1", "--replug", "2"),
    ("--odd and --strict", "boot", "--odd", "--strict", "1"),
    ("'/nowhere'", "boot", "--image", "/nowhere"),
    ("'smmuv3'", "boot", "--image", "/bin/sh", "smmuv3"),
    ("is no bzImage", "boot", "--image", "/bin/sh"),
    ("given twice", "boot", "--image", "debian:6.1", "--image", "debian:6.1"),
    ("'/nowhere'", "boot", "--image", "/bin/sh", "--modules", "/nowhere"),
    ("these are 4", "boot", "--console", "vtd"),
    ("'/nowhere'", "setup", "--base", "/nowhere"),
    ("'vax'", "kunit", "--arch", "vax"),
    ("'b'", "kunit", "a", "b"),
    ("'um'", "kunit", "--arch", "um", "--debug"),
    ("'um'", "kunit", "--arch", "um", "--kcsan"),
    ("--debug and --kcsan", "boot", "--events", "--debug", "--kcsan"),
    ("'nosuch'", "kunit", "--with", "nosuch"),
    ("'nosuch'", "boot", "--alternative", "nosuch"),
    ("no such file", "boot", "--with", "./nosuch"),
    ("'vtd-nopt-cm'", "boot", "--attack", "vtd-nopt-cm"),
    ("--attack and --image", "boot", "--attack", "--image", "/bin/sh"),
    ("given twice", "boot", "--with", "untrusted", "--with", "untrusted"),
    ("'s390'", "kunit", "--arch", "s390", "--64k"),
    ("'nosuch'", "mutate", "nosuch"),
    ("'nosuch'", "check", "nosuch"),
    ("'vtd-late'", "lava", "vtd-late"),
    ("'nosuch'", "lava", "nosuch"),
    ("'nosuch'", "package", "--config", "nosuch"),
    ("'vtd-late'", "debian", "vtd-late"),
    ("'/nowhere'", "series", "apply", "/nowhere"),
    ("'frob'", "series", "frob"),
    ("Changes in v2", "series", "mail", "--version", "2"),
    ("series/cover-tests has no line", "series", "mail", "--tests", "--version", "2"),
    ("'nosuch'", "bench", "--machine", "nosuch"),
    ("'/dev/null'", "bench", "--baseline", "/dev/null"),
    ("'./nowhere'", "bench", "--with", "./nowhere"),
)


def refusals(run: Run) -> str:
    """bad arguments get one line, and status 2"""
    for says, name, *arguments in REFUSALS:
        run.refuses(says, script(name), *arguments)
    return f"{len(REFUSALS)} passed, 0 failed"


def _stock_repository(base: bases.Base, top: Path) -> Repository:
    """Make a git tree of what the series edits of a base."""
    made = commits_on(base, top.parent / f"{top.name}.made", identity=NOBODY)
    repository = made.repository
    repository.git("update-ref", "refs/heads/stock", made.start)
    Path(repository.top).rename(top)
    return Repository(top)


def _write_mails(run: Run, base: bases.Base, cover: str) -> Path:
    """Have the mails of a series written; return their directory."""
    mails = run.directory / f"{cover}-{base.name}"
    mails.mkdir()
    (mails / "mine.patch").write_text("somebody's own")
    words = ["--tests"] if cover == TESTS else []
    run.good(script("series"), "mail", *words, "--base", base.name, "--output", mails)
    if not (mails / "mine.patch").exists():
        raise Wrong("a file that is no mail of ours is gone")
    return mails


def _apply_mails(
    run: Run,
    tree: Repository,
    start: str,
    branch: str,
    mails: Path,
    *words: str,
    which: str = "000[1-9]-*.patch",
) -> None:
    """Have git apply mails to a commit, as for somebody who has configured nothing.

    branch: the name of what comes of it. words: for git am. which: of the mails. Raises
    Wrong if one does not apply.
    """
    tree.git("checkout", "-q", "-b", branch, start)
    command: list[str | Path] = ["git", "-C", tree.top, "am", "-q", "--no-3way", *words]
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        run.good(*command, *sorted(mails.glob(which)), env=env)
    except Wrong as error:
        tree.git("am", "--abort")
        raise Wrong(f"{mails.name} does not apply to {start}", error.said) from None


def _check_edits(tree: Repository, edits: patches.Edits) -> None:
    """Raise Wrong unless a branch of stock, checked out, has these edits and no others."""
    changed = tree.git("diff", "--name-only", "stock", "HEAD").splitlines()
    if sorted(changed) != sorted(edits):
        raise Wrong(f"changed are {' '.join(changed)}, not {' '.join(sorted(edits))}")
    for path, content in edits.items():
        _same(path, (tree.top / path).read_bytes(), content)


def _fetched(name: str) -> bases.Base:
    """Return a base, whose stock tree is there."""
    base = bases.find(name)
    with paths.locked(base.directory):
        bases.fetch(base)
    return base


def _round_trip(run: Run, name: str) -> None:
    """Mails that git am makes the patched tree of, and commits of the same.

    Each series alone, and each on top of the other.
    """
    base = _fetched(name)
    patched = kernel.patched(base)
    tree = _stock_repository(base, run.directory / f"tree-{name}")
    mails = {cover: _write_mails(run, base, cover) for cover in (FIRST, TESTS)}
    for cover in mails:
        letter = (mails[cover] / "0000-cover-letter.patch").read_text()
        if f"\n\n{based_on(base)}\n\n" not in letter:
            raise Wrong(f"{cover} does not say what it is based on")
        _apply_mails(run, tree, "stock", cover, mails[cover])
        files = [file for each in carried(cover).values() for file in each]
        _check_edits(tree, patches.apply_series(base.stock, base.version, names=files))
    for cover, other in ((FIRST, TESTS), (TESTS, FIRST)):
        _apply_mails(run, tree, other, f"{cover}-last", mails[cover])
        _check_edits(tree, patched.edits)
    tree.git("checkout", "-q", "stock")
    run.good(script("series"), "apply", tree.top)
    tree.git("diff", "--exit-code", f"{TESTS}-last", BRANCH)
    if name == "mainline":
        _save_back(run, tree)


def _save_back(run: Run, tree: Repository) -> None:
    """Commits are saved as they were applied; not over what is not committed."""
    copy = run.directory / "copy"
    listed = Repository(paths.TOP).git("ls-files", "-co", "--exclude-standard").splitlines()
    for name in listed:
        if (paths.TOP / name).is_file():
            paths.write(
                copy / name, (paths.TOP / name).read_bytes(), (paths.TOP / name).stat().st_mode
            )
    here = Repository(copy)
    here.begin(NOBODY)
    change = copy / "drivers/iommu/iommu.c.patch"
    kept = change.read_bytes()
    change.write_bytes(kept + b" stale\n")
    run.refuses("not committed", copy / "scripts/series", "save", tree.top)
    here.git("commit", "-q", "-a", "-m", "stale")
    run.good(copy / "scripts/series", "save", tree.top)
    for name in patches.series_files() + [f"series/{each}" for each in carried()]:
        _same(name, (copy / name).read_bytes(), (paths.TOP / name).read_bytes())
    makefile = tree.top / "Makefile"
    makefile.write_bytes(makefile.read_bytes() + b"\n")
    run.refuses("not committed", script("series"), "apply", tree.top)


def mails_mainline(run: Run) -> None:
    """the mails of mainline, of each series alone and on the other, commits and back"""
    _round_trip(run, "mainline")


def mails_lts(run: Run) -> None:
    """the mails of lts, of each series alone and on the other"""
    _round_trip(run, "lts")


def guest_of_lts(run: Run) -> None:
    """process 1 of the guest compiles with lts, whose nolibc has less"""
    sources = initramfs.Sources(_fetched("lts").stock, initramfs.system_headers())
    try:
        initramfs.build(sources, machine.arch("x86_64"), run.directory / "guest")
    except process.Failed as error:
        raise Wrong(str(error)) from None


def mails_backport(run: Run) -> None:
    """git am -C1 applies the change to lts, as the cover letter says"""
    lts = _fetched("lts")
    tree = _stock_repository(lts, run.directory / "tree")
    mails = _write_mails(run, bases.find("mainline"), FIRST)
    change = "0001-*.patch"
    _apply_mails(run, tree, "stock", "backport", mails, "-C1", which=change)
    files = carried(FIRST)["core"]
    _check_edits(tree, patches.apply_series(lts.stock, lts.version, names=files))
    _must_find(run, lambda: _apply_mails(run, tree, "stock", "exactly", mails, which=change))


def _must_find(run: Run, look: Callable[[], None]) -> None:
    """Raise Wrong unless a check does, too."""
    try:
        look()
    except Wrong as error:
        run.write(f"found: {error}")
        return
    raise Wrong("what is wrong has not been found")


def mails_fail(run: Run) -> None:
    """a mail that needs the other series fails, and one that edits what it should not"""
    tree = _stock_repository(bases.find("mainline"), run.directory / "tree")
    run.good(script("series"), "apply", tree.top)
    source = tree.top / "drivers/iommu/iommu.c"
    change = b"\ttype = IOMMU_DOMAIN_DMA_FQ;\n"
    if source.read_bytes().count(change) != 1:
        raise CannotTell(f"the change has no line '{change.decode().strip()}' any more")
    source.write_bytes(source.read_bytes().replace(change, change + b"/* more */\n"))
    tree.git("commit", "-q", "-a", "-m", "more")
    mails = run.directory / "mails"
    tree.git("format-patch", "-q", "-o", str(mails), "-1")
    _apply_mails(run, tree, f"{BRANCH}~1", "on-the-change", mails)
    _must_find(run, lambda: _check_edits(tree, {}))
    _must_find(run, lambda: _apply_mails(run, tree, "stock", "alone", mails))


def no_other_repository(run: Run) -> None:
    """no git repository is touched that nobody has named"""
    mine = Repository(run.directory / "mine")
    paths.write(mine.top / "file", b"mine\n")
    mine.begin(NOBODY)
    before = mine.git("log", "--all", "--format=%H %D") + mine.git("status", "--porcelain")
    env = {"GIT_DIR": f"{mine.top}/.git", "GIT_WORK_TREE": str(mine.top)}
    env["GIT_INDEX_FILE"] = f"{mine.top}/.git/index"
    signs = run.directory / "gitconfig"
    signs.write_text("[commit]\n\tgpgsign = true\n[user]\n\tsigningkey = none\n")
    env["GIT_CONFIG_GLOBAL"] = str(signs)
    run.good(script("series"), "mail", "--output", run.directory / "mails", env=env)
    run.good(script("check"), "checkpatch", env=env)
    after = mine.git("log", "--all", "--format=%H %D") + mine.git("status", "--porcelain")
    if before != after:
        raise Wrong("the repository of GIT_DIR has changed")


def _boot(run: Run, *words: str) -> None:
    run.good(script("boot"), *words)


def machines(run: Run) -> None:
    """every machine of x86_64, every setting"""
    _boot(run, "--all", "--arch", "x86_64")


def loads(run: Run) -> None:
    """every load"""
    _boot(run, "--loads")


def _loads_cured(run: Run, *names: str) -> None:
    said = run.good(script("boot"), "--loads", *names, "--with", "iova-destroy")
    if "*" in said:
        raise Wrong("something still waits")


def loads_cured(run: Run) -> None:
    """every load with related/iova-destroy"""
    _loads_cured(run)


def loads_arm64(run: Run) -> None:
    """every load on arm64, as it is and with related/iova-destroy"""
    _boot(run, "--loads", "smmuv3-probe")
    _loads_cured(run, "smmuv3-probe")


def loads_too_strict(run: Run) -> None:
    """loads that are strict and should not be fail, and so do those that nobody counts"""
    words = ["--loads", "vtd-nopt", "--kernel", "patched", "--append"]
    said = run.fails(1, "!", script("boot"), *words, "iommu.strict=1")
    if not re.search(r"^ahci +1\.\d+ +1\.\d+!$", said, re.M):
        raise Wrong("it does not mark ahci")
    run.fails(1, "proves nothing", script("boot"), *words, "iommu.strict=0")


def odd(run: Run) -> None:
    """other parameters"""
    _boot(run, "--odd", "--arch", "x86_64")


def replug(run: Run) -> None:
    """an external device comes and goes 50 times"""
    _boot(run, "vtd-nopt-external", "--kernel", "patched", "--replug", "50")


def default_strict(run: Run) -> None:
    """a patched kernel that is strict by itself, and that this can fail"""
    words = ["--kernel", "patched", "--default", "strict"]
    _boot(run, *words)
    words += ["vtd", "--strict", "unset", "--append", "iommu.strict=0"]
    run.fails(1, "FQ!", script("boot"), *words)


def default_passthrough(run: Run) -> None:
    """a patched kernel that passes through by itself"""
    _boot(run, "--kernel", "patched", "--default", "passthrough")


def debug(run: Run) -> None:
    """machines with the checkers of --debug"""
    late = ["vtd-late", "vtd-nopt-late", "vtd-nopt-dock", "vtd-flts", "virtio-iommu-late"]
    _boot(run, "vtd", "vtd-nopt", "vtd-nopt-external", *late, "--debug")


def slow_disk(run: Run) -> None:
    """a disk whose search for partitions takes two seconds, and what if nobody waits for it"""
    words = ["vtd-nopt-external", "--kernel", "patched", "--strict", "0"]
    words += ["--with", str(paths.SCRIPTS / "tests/slow-disk.patch")]
    _boot(run, *words)
    run.fails(1, "bounces again failed", script("boot"), *words, "--append", "hasty=1")


def large_pages(run: Run) -> None:
    """the machines of arm64 with pages of 64 KiB"""
    _boot(run, "--64k", "--all")


RANDOM = 40
# The mistakes that drawn machines have to find, in the gate, in trust, and in sysfs; and which
# machine is the first to find it
FOUND_BY_RANDOM = {
    "gate-dropped": 4,
    "untrusted-lazy": 1,
    "untrusted-refused": 1,
    "sysfs-dma-refused": 1,
}
_DRAWN = ("--random", str(RANDOM), "--seed", "1")


def random_machines(run: Run) -> None:
    """machines that are drawn, always the same"""
    _boot(run, *_DRAWN)


def random_fails(run: Run) -> None:
    """drawn machines fail that are strict and should not be, and so does one of them again"""
    words = ["--kernel", "patched", "--append", "iommu.strict=1"]
    said = run.fails(1, "FAILED", script("boot"), "--random", "8", "--seed", "1", *words)
    found = re.search(r"^  or by its file[^:]*: scripts/boot (.*)$", said, re.M)
    if "seed 3 again: scripts/boot --random 1 --seed 3 " not in said or not found:
        raise Wrong("it does not say how to repeat the third")
    run.fails(1, "UNEXPECTED", script("boot"), *shlex.split(found[1]))


def wrong_groups(run: Run) -> None:
    """a group fails that has one device more than is told, or one less"""
    text = (machine.MACHINES / "vtd-late").read_text()
    group = "group   0000:00:04.0 0000:01:00.0\n"
    if group not in text:
        raise CannotTell("scripts/machine/vtd-late has no such group any more")
    for number, other in enumerate(("0000:00:04.0", "0000:00:04.0 0000:00:1f.0")):
        file = run.directory / f"machine-{number}"
        file.write_text(text.replace(group, f"group   {other}\n"))
        words = ["--strict", "0", "--kernel", "patched"]
        run.fails(1, "groups as told failed", script("boot"), file, *words)


def random_mutants(run: Run) -> None:
    """drawn machines find the mistakes by themselves"""
    for name, first in FOUND_BY_RANDOM.items():
        run.good(script("mutate"), name)
        said = run.fails(1, "FAILED", script("boot"), *_DRAWN, "--kernel", "mutant")
        failed = re.findall(r"^FAILED random-(\d+)\+mutant\S*: (.*)$", said, re.M)
        # A guest that hangs, or an error in its log, has not found it
        seeds = [
            int(seed)
            for seed, why in failed
            if re.search(r"(types|invalidates)[^;]* failed", why)
        ]
        if min(seeds, default=None) != first:
            raise Wrong(f"{name}: found by the machines {seeds}, and not first by {first}")


def random_many(run: Run) -> None:
    """1000 machines that are drawn, others each time"""
    _boot(run, "--random", "1000")


def image(run: Run) -> None:
    """a kernel of Debian's shows the bug, and its disks are read"""
    said = run.good(script("boot"), "--image", "debian:6.12")
    if not re.search(
        r"^vtd-nopt +iommu.strict=0 +0000:00:02.0 +DMA +strict, though it could be lazy$",
        said,
        re.M,
    ):
        raise Wrong("it does not say that vtd-nopt is strict")
    if "not read" in said:
        raise Wrong("a disk has not been read")


# Kernels that Debian ships, and those of them whose VT-d requires translation
DEBIANS = ("6.1", "6.12", "6.12-cloud", "6.12-rt", "7.3")
STRICT_DEBIANS = DEBIANS[1:]


def images(run: Run) -> None:
    """five kernels of Debian's on every machine of x86_64: who is strict and could be lazy"""
    words = [word for name in DEBIANS for word in ("--image", f"debian:{name}")]
    said = run.good(script("boot"), *words, "--all", "--strict", "0", "--passthrough", "unset")
    row = re.search(r"^vtd-nopt +iommu.strict=0 .*0000:00:02.0 +(.*)$", said, re.M)
    wanted = ["DMA*" if name in STRICT_DEBIANS else "FQ" for name in DEBIANS]
    if not row or row[1].split() != wanted or "not read" in said:
        raise Wrong(f"vtd-nopt should have {' '.join(wanted)}, and each disk be read")


def images_fail(run: Run) -> None:
    """a kernel of Debian's fails that is strict by a parameter, or has another's modules"""
    words = ["vtd", "--strict", "0", "--image"]
    more = ["debian:6.12", "--append", "iommu.strict=1"]
    run.fails(1, "UNEXPECTED", script("boot"), *words, *more)
    held = paths.BUILD / "image"
    kernel_file = next(held.glob("linux-image-6.1[.]*/usr/lib/modules/*/vmlinuz"))
    modules = next(held.glob("linux-image-6.12.*/usr/lib/modules/*"))
    more = [str(kernel_file), "--modules", str(modules)]
    run.fails(1, "/modules/", script("boot"), *words, *more)


_ONE = ("vtd", "--kernel", "patched", "--strict", "1")


def not_run(run: Run) -> None:
    """a guest that QEMU does not run is no verdict, and is told of once"""
    file = run.directory / "nosuch"
    file.write_text((paths.SCRIPTS / "machine/vtd").read_text() + "qemu -device nosuch\n")
    words = ["--kernel", "patched", "--strict", "1"]
    said = run.fails(2, "could not be run", script("boot"), file, *words)
    if len(re.findall("^FAILED", said, re.M)) != 1:
        raise Wrong("it tells of it more than once, or not at all")


def panic(run: Run) -> None:
    """a panic fails"""
    run.fails(1, "Kernel panic", script("boot"), *_ONE, "--append", "rdinit=/nosuch")


def hang(run: Run) -> None:
    """a guest that hangs fails"""
    words = ["--timeout", "5", "--append", "rdinit=/nosuch panic=0"]
    run.fails(1, "killed", script("boot"), *_ONE, *words)


def not_remapped(run: Run) -> None:
    """interrupts that are not remapped fail, or not in x2APIC mode, and so does legacy mode"""
    said = "interrupts remapped failed"
    run.fails(1, said, script("boot"), *_ONE, "--append", "intremap=off")
    words = ["--kernel", "patched", "--strict", "1", "--append", "nox2apic"]
    run.fails(1, said, script("boot"), "vtd-flts", *words)
    words[-1] = "intel_iommu=sm_off"
    run.fails(1, "scalable mode failed", script("boot"), "vtd-scalable", *words)


def wrong_type(run: Run) -> None:
    """a type that is not right fails"""
    said = run.fails(1, "UNEXPECTED", script("boot"), *_ONE, "--append", "iommu.strict=0")
    if "patched should be DMA" not in said:
        raise Wrong("it does not say what the type should be")


def trust_forgotten(run: Run) -> None:
    """the selftest finds by itself that auto forgets who is not trusted"""
    words = ["vtd-nopt-external", "--strict", "0", "--kernel", "mutant"]
    said = run.fails(1, "removable, yet auto gives DMA-FQ", script("boot"), *words)
    if "types as derived, and written" not in said:
        raise Wrong("it is not the selftest that has found it by itself")


def attacks(run: Run) -> None:
    """a device that attacks reaches what it may, and no more"""
    _boot(run, "--attack")


def attacks_all_cured(run: Run) -> None:
    """a device that attacks, with related/untrusted.patch, on all machines"""
    said = run.good(script("boot"), "--attack", "--with", "untrusted", "--all")
    for late in ("vtd-late", "vtd-nopt-late"):
        if not re.search(rf"^{late} +iommu.strict=0 .* strict, untrusted$", said, re.M):
            raise Wrong(f"{late} is not strict")
    if "LAZY" in said:
        raise Wrong("a device that is not trusted is lazy")


def boots_all_cured(run: Run) -> None:
    """with related/untrusted.patch all machines of x86_64 are as told, drawn ones, and events"""
    cured = ["--with", "untrusted"]
    _boot(run, "--all", "--arch", "x86_64", *cured)
    _boot(run, *_DRAWN, *cured)
    _boot(run, "--events", "vtd-nopt-external", "--rounds", "4", *cured)


def attacks_fail(run: Run) -> None:
    """an attack fails that never begins, is another device's, or beyond the device's mask"""
    words = ["vtd-nopt", "--kernel", "patched", "--strict", "1", "--append"]
    for word, says in (
        ("edu.spoil=never", "the DMA has not begun"),
        ("edu.spoil=other", "Request device [0000:00:06.0]"),
        ("edu.mask=32", "UNEXPECTED: mapped failed"),
    ):
        run.fails(1, says, script("boot"), "--attack", *words, word)


_EVENTS = ("--events", "vtd-nopt-hotplug", "--kernel", "patched", "--strict", "0")


def _compare_events(run: Run, pairs: int, *words: str) -> None:
    said = run.good(script("boot"), "--events", *words)
    if f"boot: compared {pairs} pairs of boots" not in said:
        raise Wrong(f"stock and patched are not compared in {pairs} pairs of boots")


def events_short(run: Run) -> None:
    """every event, a few times, and what fails alike with stock and patched"""
    # This comes first: patched is then built from the objects of stock
    _compare_events(run, 1, "--event", "nth", "vtd-nopt-external", "--strict", "0")
    _boot(run, *_EVENTS, "vtd-nopt-external", "--rounds", "20")


def events_fail(run: Run) -> None:
    """every event fails where types are not as they should be"""
    words = [*_EVENTS, "--rounds", "4", "--append", "iommu.strict=1"]
    said = run.fails(1, "FAILED", script("boot"), *words)
    rows = re.findall(r"^(\w+)(?: [\w-]+)? +\d+(!?)$", said, re.M)
    passed = sorted({name for name, mark in rows if name in events.EVENTS and not mark})
    if not {name for name, _ in rows} >= set(events.EVENTS) or passed:
        raise Wrong(f"not every event has failed, but these passed: {' '.join(passed)}")


def events_left_out(run: Run) -> None:
    """every event but a reset fails if its act is left out"""
    words = [*_EVENTS, "--rounds", "4", "--append", "events.spoil"]
    by_guest = [event for event in events.EVENTS if event != "reset"]
    for event in by_guest:
        words += ["--event", event]
    said = run.fails(1, "FAILED", script("boot"), *words)
    own = re.findall(r"^FAILED \S+\+(\w+): \1 failed", said, re.M)
    # A kexec that fails leaves a report that is not the next kernel's
    own += re.findall(r"^  \| not ok 1 (kexec)$", said, re.M)
    passed = [event for event in by_guest if event not in own]
    if passed:
        raise Wrong(f"these have not failed: {' '.join(passed)}")


def events_long(run: Run) -> None:
    """every event, often, and on six machines"""
    _boot(run, "--events", "vtd-nopt-hotplug", "--kernel", "patched", "--rounds", "1000")
    _compare_events(run, 5)
    more = ["vtd-flts", "vtd-scalable", "vtd-nopt-dock"]
    _boot(run, "--events", *more, "--kernel", "patched", "--strict", "0")


def events_arm64(run: Run) -> None:
    """every event, on arm64"""
    _compare_events(run, 1, "smmuv3-probe")
    _boot(run, "--events", "smmuv3-late", "--event", "plug", "--event", "faults")


# What is booted with checkers, which take their time: everything where the change is at work.
# Elsewhere what shows whether stock has it, too, but not "nth", which takes longest
_BUT_NTH = [f"--event={name}" for name in events.EVENTS if name != "nth"]
_CHECKED = (
    ("--kernel", "patched", "--strict", "0"),
    ("--kernel", "patched", "--strict", "1", "vtd-nopt-hotplug", *_BUT_NTH),
    ("--kernel", "stock", "--strict", "0", "vtd-nopt-hotplug", *_BUT_NTH),
)


def events_debug(run: Run) -> None:
    """every event, a few times, with the checkers of --debug"""
    for words in _CHECKED:
        _boot(run, "--events", "--rounds", "4", "--debug", *words)


# The mistakes in tests/mistakes.patch, the event that makes each, and what a checker says of it
MISTAKES = (
    ("use", "rebind", "KASAN: slab-use-after-free"),
    ("leak", "rebind", "kmemleak: unreferenced object"),
    ("page", "rebind", "iommu: Detected page leak!"),
    ("timer", "rebind", "ODEBUG: free active"),
    ("objects", "rebind", "ODEBUG: Out of memory. ODEBUG disabled"),
    ("objects", "faults", "ODEBUG: Out of memory. ODEBUG disabled"),
    ("lock", "rebind", "WARNING: possible circular locking dependency detected"),
    ("rcu", "rebind", "WARNING: suspicious RCU usage"),
    ("sleep", "rebind", "BUG: sleeping function called from invalid context"),
    ("sync", "rebind", "device driver tries to sync DMA memory it has not allocated"),
    ("tables", "faults", "tables have "),
    ("shutdown", "kexec", "panic_on_warn set"),
)


def debug_fails(run: Run) -> None:
    """each checker finds a mistake, and nothing where there is none"""
    words: list[str | Path] = ["--events", "--debug", *_EVENTS[1:], "--with"]
    words += [paths.SCRIPTS / "tests/mistakes.patch"]
    run.good(script("boot"), *words, "--event", "rebind", "--event", "kexec")
    for name, event, says in MISTAKES:
        its: list[str | Path] = ["--event", event, "--append", f"mistake={name}"]
        its += [] if event == "kexec" else ["--rounds", "4"]
        said = run.fails(1, " failed: ", script("boot"), *words, *its)
        kept = re.search(r"^(/.*) ends:$", said, re.M)
        if not kept or says not in Path(kept[1]).read_text(errors="replace"):
            raise Wrong(f"nothing says: {says}")


def kunit_debug(run: Run) -> str:
    """KUnit with the checkers of --debug"""
    return run.good(script("kunit"), "--debug")


def events_kcsan(run: Run) -> None:
    """every event, a few times, with a search for data races"""
    for words in _CHECKED:
        _boot(run, "--events", "--rounds", "4", "--kcsan", *words)


def kcsan_fails(run: Run) -> None:
    """a counter that CPUs increment without a lock is found, at once or in turns"""
    words: list[str | Path] = ["--kcsan", *_EVENTS, "--rounds", "4"]
    words += ["--with", paths.SCRIPTS / "tests/race.patch", "--event"]
    found = "Reported by Kernel Concurrency Sanitizer"
    for event in ("type", "rebind"):
        run.fails(1, found, script("boot"), *words, event)


def kunit_kcsan(run: Run) -> str:
    """KUnit, with a search for data races"""
    return run.good(script("kunit"), "--kcsan")


def two_ops(run: Run) -> None:
    """two sets of ops for VT-d, to compare with"""
    _boot(run, "--alternative", "two-ops", "--all")


def identity_may_fail(run: Run) -> None:
    """an identity domain that cannot be had, to compare with"""
    _boot(run, "--alternative", "identity-may-fail", "--all")


def kunit(run: Run) -> str:
    """KUnit on x86_64"""
    return run.good(script("kunit"))


def kunit_um(run: Run) -> str:
    """KUnit on um"""
    return run.good(script("kunit"), "--arch", "um")


def kunit_fails(run: Run) -> None:
    """KUnit without a case fails, and one that hangs"""
    run.fails(1, "0 tests run", script("kunit"), "--strict", "0", "nosuch")
    run.fails(1, "killed", script("kunit"), "--strict", "0", "--timeout", "1")


def static(run: Run) -> str:
    """static checks of the series"""
    names = [name for name in check.CHECKS if name not in (*SLOW_CHECKS, *check.OF_OURS)]
    return run.good(script("check"), *names)


_QUICK = ("--quick", "--machine", "vtd-nopt", "--output")


def bench(run: Run) -> None:
    """figures, the same again beside a compiler"""
    first, again = run.directory / "first", run.directory / "again"
    run.good(script("bench"), *_QUICK, first)
    with _compilers(run):
        said = run.good(script("bench"), *_QUICK, again, "--baseline", first / "bench.csv")
    if not re.search(r"^(\d+) of \1 figures are the same as before$", said, re.M):
        raise Wrong("it does not say that all figures are the same")
    _same("bench.csv", (first / "bench.csv").read_bytes(), (again / "bench.csv").read_bytes())


@contextmanager
def _compilers(run: Run) -> Iterator[None]:
    """Have as many compilers run as there are CPUs, all the time."""
    stop = threading.Event()
    include = bases.find("mainline").stock / "tools/testing/selftests"
    flags: list[str | Path] = ["-O2", "-D_GNU_SOURCE=", "-I", include, "-o", "/dev/null"]

    def compile_often(number: int) -> None:
        while not stop.is_set():
            replace_log(run, number).call("gcc", *flags, paths.TOP / check.SELFTEST)

    count = os.cpu_count() or 1
    threads = [threading.Thread(target=compile_often, args=(each,)) for each in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def bench_slower(run: Run) -> None:
    """an unmap that takes 20 instructions more is found, and named"""
    plain, slower = run.directory / "plain", run.directory / "slower"
    run.good(script("bench"), *_QUICK, plain)
    words: list[str | Path] = ["--with", paths.SCRIPTS / "tests/slower.patch"]
    words += ["--baseline", plain / "bench.csv"]
    said = run.fails(1, "not as before", script("bench"), *_QUICK, slower, *words)
    # When lazy the queue's timer comes at other unmaps, too, so that it is not 20 to the digit
    for where in ("stock iommu.strict=0", "stock iommu.strict=1", "patched iommu.strict=1"):
        if not re.search(rf"^not as before, vtd-nopt {where} unmap 1 .*: \+20,", said, re.M):
            raise Wrong(f"it does not name what {where} takes more")


def bench_all(run: Run) -> None:
    """figures of all machines, and how memory grows"""
    output = run.directory / "all"
    said = run.good(script("bench"), "--output", output)
    if not re.search(r"^([1-9]\d*) of \1 times, memory grows by 10256 bytes", said, re.M):
        raise Wrong("it does not say that memory grows as the queues do")
    found = {row["machine"] for row in figures.read(output / "bench.csv")}
    missing = {row.machine for row in measures.read()} - found
    if missing:
        raise Wrong(f"there are no figures of {' '.join(sorted(missing))}")


def page(run: Run) -> None:
    """what a browser makes of the page of figures: plots, tables, a row for each machine"""
    run.good(script("bench"), *_QUICK, run.directory / "page")
    plain = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    plain += ["--no-first-run", "--disable-sync", "--disable-component-update"]
    plain += [f"--user-data-dir={run.directory}/chromium", "--dump-dom"]
    dom = run.good("chromium", *plain, f"file://{run.directory}/page/report.html")
    if dom.count("<svg") != 3 or dom.count("</svg>") != 3 or dom.count("<table") != 4:
        raise Wrong("the page lacks a plot or a table")
    if dom.count("<td>vtd-nopt") < 6 or "<td>choosing a default domain" not in dom:
        raise Wrong("a table lacks a row")
    for word in ("stock", "patched", "vtd-nopt", "Grace"):
        if not re.search(f"<text>.*{word}", dom):
            raise Wrong(f"a plot does not say {word}")
    if "This is a model" not in dom or re.search(r"""(src|href)="?(http|file)""", dom):
        raise Wrong("the page does not say what a model is, or needs something else")


FORGOTTEN = "untrusted-late-forgotten"


def _mutate(run: Run, arch: str, is_related: bool) -> str:
    found = [
        each.name
        for each in mutate.read().values()
        if each.arch == arch and bool(each.related) == is_related
    ]
    if not found:
        raise Wrong("there are none")
    # The last one is kept, for trust_forgotten()
    return run.good(script("mutate"), *sorted(found, key=lambda name: name == FORGOTTEN))


def mutants(run: Run) -> str:
    """mutants of the series"""
    return _mutate(run, "x86_64", False)


def mutants_um(run: Run) -> str:
    """mutants of the series on um"""
    return _mutate(run, "um", False)


def mutants_cured(run: Run) -> str:
    """mutants of related patches"""
    return _mutate(run, "x86_64", True)


def interrupted(run: Run) -> None:
    """Ctrl-C and kill -9 leave no QEMU behind for long"""
    for number, within in ((signal.SIGINT, 5.0), (signal.SIGKILL, 60.0)):
        child = process.start(
            [script("boot"), "vtd", "--timeout", "8", "--append", "rdinit=/nosuch panic=0"],
            env={**process.environment(), "MARKED": str(run.directory)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if not _wait_for(lambda: bool(_marked(run, "qemu")), 60.0):
            raise Wrong("no QEMU was started")
        os.kill(child.pid, number)
        child.wait()
        process.forget(child)
        if not _wait_for(lambda: not _marked(run, "qemu"), within):
            raise Wrong(f"QEMU is still there {within} s after signal {number}")


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _marked(run: Run, name: str) -> list[int]:
    """Return the processes of a name that have this run's mark in their environment."""
    found = []
    mark = f"MARKED={run.directory}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and name in (entry / "comm").read_text():
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        except OSError:
            pass  # it has ended meanwhile
    return found


def two_at_once(run: Run) -> None:
    """two runs at once"""
    status: list[int] = []
    logs = [replace_log(run, number) for number in (1, 2)]

    def one(each: Run) -> None:
        status.append(each.call(script("boot"), "vtd-nopt", "--strict", "0")[0])

    threads = [threading.Thread(target=one, args=(each,)) for each in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in status:
        _must_have_found_out(each, script("boot"), "")
    if status != [0, 0]:
        raise Wrong(f"they end with {status}")


def replace_log(run: Run, number: int) -> Run:
    """Return the same run with a log of its own."""
    return Run(run.directory, run.log.with_suffix(f".{number}.log"), run.tried)


def content_decides(run: Run) -> None:
    """a file that was changed with its old date, deleted or added is put right, and built"""
    base = bases.find("mainline")
    source = base.directory / "patched/drivers/iommu/iommu.c"
    header = base.directory / "patched/include/linux/iova.h"
    added = base.directory / "patched/drivers/iommu/added.c"
    state, content = source.stat(), source.read_bytes()
    source.write_bytes(content.replace(b"!iommu_dma_strict", b"iommu_dma_strict", 1))
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    header.unlink()
    added.write_text("/* nothing */\n")
    _boot(run, "vtd-nopt", "--strict", "0", "--kernel", "patched")
    _same("iommu.c", source.read_bytes(), content)
    if not header.exists() or added.exists():
        raise Wrong("a file is still missing, or still there")
    said = run.good(script("boot"), "vtd-nopt", "--strict", "0", "--kernel", "patched")
    if "build patched" in said:
        raise Wrong("it builds again though nothing has changed")


def arm64(run: Run) -> None:
    """the machines of arm64"""
    _boot(run, "--all", "--arch", "arm64")


def s390(run: Run) -> None:
    """the machines of s390"""
    _boot(run, "--all", "--arch", "s390")
    _boot(run, "--odd", "--arch", "s390")


def riscv(run: Run) -> None:
    """the machines of RISC-V"""
    _boot(run, "--all", "--arch", "riscv")


def kunit_arm64(run: Run) -> str:
    """KUnit on arm64"""
    return run.good(script("kunit"), "--arch", "arm64")


def kunit_arm64_64k(run: Run) -> str:
    """KUnit on arm64 with pages of 64 KiB"""
    return run.good(script("kunit"), "--arch", "arm64", "--64k")


def kunit_s390(run: Run) -> str:
    """KUnit on s390"""
    return run.good(script("kunit"), "--arch", "s390")


def lts_machines(run: Run) -> None:
    """the x86_64 machines on lts"""
    _boot(run, "--base", "lts", "--all", "--arch", "x86_64", "--passthrough", "unset")


def own_tree(run: Run) -> None:
    """a tree of one's own, of any name, is not written to"""
    mine = run.directory / "my tree: 7.3"
    stock = bases.find("mainline").stock
    run.good("rsync", "-a", "--exclude=/obj-*", f"{stock}/", f"{mine}/")
    for left in (".config", "vmlinux", "drivers/iommu/iommu.o", "include/config/auto.conf"):
        paths.write(mine / left, b"of the user's own build\n")
    before = tree.listing(mine)
    words = ["--base", mine.name, "vtd-nopt", "--strict", "0"]
    try:
        said = run.good(script("boot"), *words, cwd=run.directory)
        if not re.search(r"^vtd-nopt .* DMA +DMA-FQ +differs$", said, re.M):
            raise Wrong("it does not show the difference")
        if tree.listing(mine) != before:
            raise Wrong("it was written to")
    finally:
        paths.remove(bases.find(str(mine)).directory)


def lts_kunit(run: Run) -> str:
    """KUnit on lts"""
    return run.good(script("kunit"), "--base", "lts")


def lts_static(run: Run) -> str:
    """static checks on lts"""
    return run.good(script("check"), "--base", "lts")


def commits(run: Run) -> None:
    """each commit by itself, and the tests without the change"""
    run.good(script("series"), "test")


def slow_static(run: Run) -> str:
    """static checks for other architectures and compilers"""
    return run.good(script("check"), *SLOW_CHECKS)


def _lava_jobs(run: Run, *words: str) -> Path:
    """Have jobs for LAVA written; return their directory."""
    directory = run.directory / "jobs"
    run.good(script("lava"), "--output", directory, *words)
    return directory


_VALIDATE = """
import sys, yaml
from lava_common.schemas import validate
for name in sys.argv[1:]:
    with open(name) as file:
        validate(yaml.safe_load(file), strict=True)
"""


def lava_schema(run: Run) -> str:
    """every job is one by LAVA's own schema, and the templates are"""
    directory = _lava_jobs(run)
    jobs = [file for file in directory.glob("*.yaml") if ".device" not in file.name]
    python = ["/usr/bin/python3", "-B", "-c", _VALIDATE]
    run.good(*python, *jobs)
    wrong = run.directory / "wrong.yaml"
    wrong.write_text(jobs[0].read_text().replace("monitors:", "monitor:"))
    run.fails(1, "Invalid", *python, str(wrong))
    return f"{len(jobs)} passed, 0 failed"


def _run_by_lava(run: Run, directory: Path, name: str) -> dict[tuple[str, str], str]:
    """Have lava-run run a job to its end; return each result by its suite and case."""
    device, job = directory / f"{name}.device.yaml", directory / f"{name}.yaml"
    words: list[str | Path] = ["--job-id", "1", "--output-dir", run.directory / "out"]
    said = run.good("lava-run", *words, "--device", device, job)
    yaml = importlib.import_module("yaml")
    lines = [yaml.safe_load(line) for line in said.splitlines() if '"lvl": "results"' in line]
    found = [line["msg"] for line in lines if line["msg"]["definition"] != "lava"]
    return {(each["definition"], each["case"]): each["result"] for each in found}


def _run_by_boot(run: Run, name: str, strict: str) -> dict[tuple[str, str], str]:
    """Have scripts/boot boot the same; return its results as LAVA calls them."""
    words = [name, "--kernel", "patched", "--strict", strict, "--console"]
    said = run.good(script("boot"), *words)
    report = verdict.Parser(bases.find("mainline").stock).parse(said)
    as_in_lava = {"SUCCESS": "pass", "SKIPPED": "skip"}
    return {
        (f"strict-{strict}", re.sub(r"\W+", "_", part.name.lower())): as_in_lava.get(
            part.status, "fail"
        )
        for part in report.parts
    }


def lava_run(run: Run) -> str:
    """a job that lava-run runs has the verdicts of scripts/boot, and fails if one is wrong"""
    name = "vtd-nopt"
    directory = _lava_jobs(run, name)
    found = _run_by_lava(run, directory, name)
    wanted = {**_run_by_boot(run, name, "0"), **_run_by_boot(run, name, "1")}
    # In a lab nobody counts invalidations
    wanted.update({case: "skip" for case in wanted if case[1].endswith("_invalidates")})
    if not wanted or found != wanted:
        raise Wrong(f"it has {sorted(found.items())}, scripts/boot {sorted(wanted.items())}")
    stock = run.directory / "stock"
    run.good(script("lava"), "--kernel", "stock", "--output", stock, name)
    for file in directory.glob("patched-*"):
        shutil.copyfile(stock / file.name.replace("patched", "stock"), file)
    found = _run_by_lava(run, directory, name)
    if (
        found["strict-0", "types_as_told"] != "fail"
        or found["strict-1", "types_as_told"] != "pass"
    ):
        raise Wrong("with stock, what is told for patched has not failed, or more has")
    return f"{len(wanted)} passed, 0 failed"


def debian_own(run: Run) -> None:
    """a Debian with its own kernel is strict where it could be lazy, and upgrades"""
    run.good(script("debian"), "--kernel", "debian", "vtd", "vtd-nopt")


def debian_fails(run: Run) -> None:
    """a Debian fails that is strict by a parameter"""
    words = ["--kernel", "debian", "--strict", "0", "--append", "iommu.strict=1", "vtd"]
    said = run.fails(1, "types as told failed", script("debian"), *words)
    if "read-4k-1 lazy failed" not in said:
        raise Wrong("it does not say that it invalidates too often")


def debian_built(run: Run) -> None:
    """a Debian with kernels that scripts/package has built, on three machines"""
    run.good(script("debian"))


def _bare(release: str, how: Callable[[chroot.Call, str, Path], str]) -> Check:
    def check(run: Run) -> str:
        try:
            return how(run.call, release, run.directory / "top")
        except chroot.Failed as error:
            raise Wrong(_last_line(str(error)), str(error)) from None

    check.__name__ = f"{release}_{how.__name__}"
    check.__doc__ = f"a bare {release}, {how.__name__.replace('_', ' ')}"
    return check


def _everywhere(default: str) -> Check:
    def check(run: Run) -> None:
        _boot(run, "--default", default, "--all")

    check.__name__ = f"{default}_everywhere"
    check.__doc__ = f"kernels whose default is {default}, on all machines"
    return check


# A check prints to its log, and may return what ends with numbers of its own
Check = Callable[[Run], Optional[str]]


@dataclass(frozen=True)
class Part:
    """Checks that belong together.

    is_full: only with --full, or when it is named. is_bare: in a bare Debian.
    """

    about: str
    checks: Sequence[Check]
    is_full: bool = False
    is_bare: bool = False


PARTS: Mapping[str, Part] = {
    "workbench": Part(
        "the workbench, and that it can fail",
        (
            *(workbench, python_and_shell, refusals, two_at_once, not_run, panic, hang),
            *(wrong_type, not_remapped, interrupted, content_decides),
            *(no_other_repository, image),
        ),
    ),
    "series": Part(
        "both series as mails and commits, and what 6.12 takes",
        (mails_mainline, mails_lts, mails_backport, mails_fail, guest_of_lts),
    ),
    "machines": Part("the machines of x86_64", (machines, odd, replug)),
    "attack": Part("a device that attacks, and that this can fail", (attacks, attacks_fail)),
    "defaults": Part(
        "patched kernels with another default", (default_strict, default_passthrough)
    ),
    "random": Part(
        "drawn machines, and that they can fail", (random_machines, random_fails, wrong_groups)
    ),
    "random-many": Part(
        "1000 drawn machines, and what a few find", (random_mutants, random_many), True
    ),
    "loads": Part(
        "how often each load invalidates, and that this can fail", (loads, loads_too_strict)
    ),
    "events": Part("every event, a few times", (events_short,)),
    "events-long": Part(
        "every event, often, and on six machines, and that each can fail",
        (events_long, events_fail, events_left_out),
        True,
    ),
    "events-arm64": Part("every event, on arm64", (events_arm64,), True),
    "events-debug": Part("every event with the checkers of --debug", (events_debug,), True),
    "checkers": Part("that each checker of --debug finds a mistake", (debug_fails,), True),
    "kcsan": Part(
        "data races, and that one is found", (kunit_kcsan, events_kcsan, kcsan_fails), True
    ),
    "selftest": Part(
        "the selftest with a C library and as kselftest has it", (judge_with_libc, kselftest)
    ),
    "kunit": Part("the KUnit suites", (kunit, kunit_fails)),
    "static": Part("static checks of the series", (static,)),
    "bench": Part("that scripts/bench repeats its figures", (bench,)),
    "bench-all": Part(
        "figures of all machines, memory, and 20 more instructions in an unmap",
        (bench_all, bench_slower),
        True,
    ),
    "page": Part("the page of figures, in a browser", (page,), True),
    "mutants": Part("that KUnit and the selftest can fail", (mutants, trust_forgotten)),
    **{
        f"{default}-everywhere": Part(
            f"kernels whose default is {default}, on all machines",
            (_everywhere(default),),
            True,
        )
        for default in policy.DEFAULTS[1:]
    },
    "other-kernels": Part(
        "the checkers of --debug, 64 KiB pages, a slow disk",
        (debug, kunit_debug, large_pages, slow_disk),
        True,
    ),
    "loads-cured": Part(
        "how often each load invalidates with related/iova-destroy.patch", (loads_cured,), True
    ),
    "loads-arm64": Part("how often each load invalidates on arm64", (loads_arm64,), True),
    "cured": Part(
        "boots, attacks and KUnit's mutants with related patches",
        (boots_all_cured, attacks_all_cured, mutants_cured),
        True,
    ),
    "archs": Part(
        "arm64, s390, RISC-V and User Mode Linux",
        (
            *(arm64, s390, riscv, kunit_arm64, kunit_arm64_64k, kunit_s390),
            *(kunit_um, mutants_um),
        ),
        True,
    ),
    "lts": Part("Linux 6.12", (lts_machines, lts_kunit, lts_static), True),
    "own-tree": Part("a tree of one's own", (own_tree,), True),
    "alternatives": Part(
        "the prototypes in related/alternatives", (two_ops, identity_may_fail), True
    ),
    "images": Part(
        "kernels that Debian ships, and that they can fail", (images, images_fail), True
    ),
    "lava": Part("jobs for LAVA, and that they can fail", (lava_schema, lava_run), True),
    "debian": Part(
        "a Debian with its own kernel, and that it can fail", (debian_own, debian_fails), True
    ),
    "debian-built": Part("a Debian with packages of the kernels", (debian_built,), True),
    "commits": Part("each commit by itself", (commits,), True),
    "compilers": Part("other architectures and compilers", (slow_static,), True),
    **{
        f"debian-{number}-{who}": Part(
            f"a bare Debian {number}, as {who}", (_bare(release, how),), True, True
        )
        for number, release in ((12, "bookworm"), (13, "trixie"))
        for who, how in (("root", chroot.as_root), ("user", chroot.as_user))
    },
}


_NUMBERS = re.compile(r"(\d+) (?:passed|killed), (\d+) (?:failed|survived)")


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else ""


def one(function: Check, which: str, directory: Path, tally: Tally) -> Tried:
    """Run a check, print and count how it went; return what it has tried."""
    label = (function.__doc__ or "").strip()
    log = directory / f"{function.__name__}.log"
    log.touch()
    own = directory / function.__name__
    own.mkdir()
    why, said, is_verdict = "", "", True
    run = Run(own, log, Tried(label))
    with progress.activity(f"{which}, {label}") as activity:
        try:
            said = function(run) or ""
        except Wrong as error:
            why, said = str(error), error.said
        except Exception as error:  # the others are still worth to be made
            why, is_verdict = f"{type(error).__name__}: {error}", False
    numbers = _NUMBERS.match(_last_line(said))
    good, bad = (int(numbers[1]), int(numbers[2])) if numbers else (int(not why), 0)
    bad = max(bad, 1) if why else bad
    tally.passed += good
    tally.failed += bad if is_verdict else 0
    tally.unknown += 0 if is_verdict else bad
    if not bad:
        counts = f": {numbers[0]}" if numbers else ""
        progress.result(f"ok      {label}{counts} ({activity.seconds()} s)")
        return run.tried
    progress.result(f"FAILED  {label}: {why}")
    tail = log.read_text(errors="replace").splitlines()[-60:]
    progress.say(f"{log} ends:", *(f"  | {line}" for line in tail))
    return run.tried


def tell_tried(all_tried: Sequence[Tried], status: int) -> None:
    """Print how much has been tried, and if all was as expected what that says."""
    if not any(each.boots for each in all_tried):
        return
    form = "{:>6} {:>8} {:>8} {:>6} {:>6}  {}"
    progress.result("")
    names = ("boots", "machines", "settings", "events", "faults")
    progress.result(form.format(*names, "as expected in"))
    for each in all_tried:
        if each.boots:
            numbers = (each.boots, each.machines, each.settings, each.events, each.faults)
            kernels = ", ".join(dict.fromkeys(each.kernels))
            cells = (number or "" for number in numbers)
            progress.result(form.format(*cells, f"{each.check}: {kernels}"))
    if status == AS_EXPECTED:
        sums = [sum(getattr(each, name) for each in all_tried) for name in _SUMMED]
        boots, events_, faults = (number or "" for number in sums)
        progress.result(form.format(boots, "", "", events_, faults, _NOTHING_ELSE))


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("parts", nargs="*")
    asked = parser.parse(arguments)
    if asked.list:
        width = max(map(len, PARTS))
        for name, part in PARTS.items():
            print(f"{name:{width}} {'--full  ' if part.is_full else '        '}{part.about}")
        return AS_EXPECTED
    for name in asked.parts:
        must_be_one_of("part", name, PARTS)
    if asked.full and asked.parts:
        raise CannotTell(f"--full '{asked.parts[0]}': --full is all parts, name none")
    chosen = list(dict.fromkeys(asked.parts)) or [
        name for name in PARTS if asked.full or not PARTS[name].is_full
    ]
    needs = [*packages.CHECK, *packages.GIT, *packages.PYTEST, *packages.REPORT]
    needs += packages.BROWSER if "page" in chosen else ()
    needs += packages.LAVA if "lava" in chosen else ()
    if any(PARTS[name].is_bare for name in chosen):
        needs += chroot.NEEDS
        if os.getuid() or paths.TOP.stat().st_uid:
            raise CannotTell(
                "debian-12-* and debian-13-* need root, and a checkout that belongs to root: "
                "name other parts"
            )
    base = bases.find("mainline")
    setup.prepare(base, ["x86_64"], *needs)
    run, tally = paths.run_directory("test"), Tally()
    checks = [each for name in chosen for each in PARTS[name].checks]
    tried = [
        one(each, f"check {number} of {len(checks)}", run, tally)
        for number, each in enumerate(checks, 1)
    ]
    tell_tried(tried, tally.status)
    if tally.status != AS_EXPECTED:
        paths.keep(run)
    progress.result("")
    progress.result(str(tally))
    return tally.status
