# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/check [--base BASE] [--list] [CHECK ...]

Check the series as the robots do that test patches for the lists, without running it: a
finding counts if stock does not have it. And check the workbench. With no CHECK: all of them;
with another base than mainline, all but audit and those of the workbench.

  --base BASE   mainline (the default), newest, lts or a directory, see scripts/setup
  --list        print the checks and what each looks for

Prints a line for each check and, last, "N passed, N failed"; findings to stderr. What the
tools said is kept under build/BASE/log/. Another run that uses the trees of BASE waits until
a check has ended.

Exit status: 0 nothing was found; 1 something was, or a tool failed; 2 bad argument, or a
check could not be made, as when a tool was killed or the disk is full.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import build, kernel, packages, patches, paths, process, progress
from workbench import commits, mails, setup, tree, verb
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, CannotTell, Tally, must_be_one_of

IOMMU = "drivers/iommu/iommu.o"
DMA_IOMMU = "drivers/iommu/dma-iommu.o"
SELFTEST = "tools/testing/selftests/iommu/default_domain.c"
NOBODY = "check <check@localhost>"  # whose mails are only looked at
LINE = "95"  # characters, for the formatter

_FINDING = re.compile(r"([Ww]arning|WARNING|[Ee]rror|ERROR|CHECK)[: ]|^[^ ]*\.c:[0-9]+:", re.M)
# What a full disk, or a compiler that was killed, leaves in what make says
_OF_THE_MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|Input/output error|Cannot allocate memory"
    r"|out of memory|fatal error: Killed|unable to execute command: Killed|^make.* Error 137$",
    re.M | re.I,
)
_NUMBERS = re.compile(r":[0-9]+(:[0-9]+)?")


class Found(Exception):
    """A check has found something, or its tool has failed. The text says what."""


@dataclass
class Look:
    """What a check has to look at, and the log of what its tools say."""

    base: bases.Base
    kernels: Mapping[str, kernel.Kernel]
    run: Path
    log: Path
    said: list[str] = field(default_factory=list)

    @property
    def stock(self) -> Path:
        """The tree of stock."""
        return self.base.stock

    @property
    def patched(self) -> Path:
        """The tree of patched."""
        return self.kernels["patched"].tree

    def tool(
        self,
        *command: str | Path,
        cwd: Optional[Path] = None,
        good: Sequence[int] = (0,),
    ) -> str:
        """Run a tool; return what it says.

        Found is raised if it fails; CannotTell if that is the machine's fault.
        """
        words = [str(word) for word in command]
        with open(self.log, "ab") as file:
            file.write(f"$ {' '.join(words)}\n".encode())
            file.flush()
            start = file.tell()
            child = process.start(
                words,
                cwd=cwd,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**build.environment(), "GIT_DIR": "none"},
            )
            child.wait()
            process.forget(child)
        said = self.log.read_bytes()[start:].decode(errors="replace")
        if child.returncode < 0 or _OF_THE_MACHINE.search(said):
            raise CannotTell(f"{Path(words[0]).name} was ended: {process.reason(self.log)}")
        if child.returncode not in good:
            raise Found(f"{Path(words[0]).name} fails, status {child.returncode}")
        return said

    def write(self, text: str) -> None:
        """Add a line to the log."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text + "\n")


def findings(said: str, trees: Iterable[Path]) -> list[str]:
    """Return the lines that may be findings, without what may differ between two trees.

    That is where they are, and the numbers of lines.
    """
    kept = []
    for line in said.splitlines():
        if _FINDING.search(line) and not line.startswith("$ "):
            for tree_ in trees:
                line = line.replace(f"{tree_}/", "")
            kept.append(_NUMBERS.sub(":", line).replace("../", ""))
    return sorted(kept)


def new_findings(stock: Sequence[str], patched: Sequence[str]) -> list[str]:
    """Return the findings of patched that stock does not have as often."""
    left = list(stock)
    new = []
    for line in patched:
        if line in left:
            left.remove(line)
        else:
            new.append(line)
    return new


def _at_once(
    look: Look,
    kernels: Sequence[kernel.Kernel],
    run: Callable[[Look, kernel.Kernel], str],
) -> list[str]:
    """Run a tool on each of several kernels at the same time; return what it says of each.

    Most of the time each of them keeps one CPU busy. Their logs are put together in the end.
    """
    own = [replace(look, log=look.log.with_suffix(f".{each.name}.log")) for each in kernels]
    try:
        with ThreadPoolExecutor(len(own)) as pool:
            return list(pool.map(run, own, kernels))
    finally:
        for each in own:
            if each.log.exists():
                look.write(each.log.read_text(errors="replace"))
                each.log.unlink()


def _compare(look: Look, run: Callable[[Look, kernel.Kernel], str]) -> None:
    """Run a tool on stock and patched; Found is raised with what only patched has."""
    kernels = [look.kernels["stock"], look.kernels["patched"]]
    trees = [each.tree for each in kernels]
    stock, patched = (findings(said, trees) for said in _at_once(look, kernels, run))
    new = new_findings(stock, patched)
    if new:
        look.write("\n".join(f"new: {line}" for line in new))
        raise Found(new[0])


def _compile(
    look: Look,
    built: kernel.Kernel,
    obj: str,
    arch: str,
    words: Sequence[str],
    suites: bool = True,
    objects: Sequence[str] = (IOMMU,),
    more: Sequence[str] = (),
) -> str:
    """Compile objects of a kernel in a directory of its own, as if never before.

    What else has to be made for that begins with what has been built to boot, if it has.
    The kernel's tree has been made. more: fragments of scripts/config/ beside the usual ones.
    """
    where = built.tree / obj
    booted = built.tree / f"obj-{arch}"
    is_clang = any(word.startswith("LLVM=") for word in words)
    if is_clang and (booted / "built").exists() and not where.exists():
        new = where.with_name(f"{where.name}.new")
        paths.remove(new)
        process.output(["cp", "-a", booted, new])
        (new / "built").unlink()
        build.move(new, booted, where)
        new.rename(where)
    names = ["common", arch, *more] + (["kunit"] if suites and built.fragments else [])
    files = [build.CONFIG / f"{name}.config" for name in names]
    command = build.make(built.tree, obj, arch, *words)
    build.configure(where, files, command, look.log.with_suffix(f".{built.name}.config"))
    if "CONFIG_IOMMU_API=y" not in (where / ".config").read_text().splitlines():
        raise Found(f"{where} has no IOMMU_API")
    for name in objects:
        (where / name).unlink(missing_ok=True)
    return look.tool(*command, *objects)


def our_sources() -> list[Path]:
    """Return the C files that are no part of the series."""
    found = list((paths.SCRIPTS / "guest").glob("*.[ch]"))
    return sorted(found + list(kernel.ATTACK.glob("*.[ch]")))


def check_checkpatch(look: Look) -> None:
    """what checkpatch.pl --strict says of each mail, of related/, and of our own C files"""
    written = [
        mail
        for cover in commits.read()
        for mail in mails.write_mails(look.base, cover, 1, look.run / cover, NOBODY)
        if "0000-" not in mail.name
    ]
    # What is added is in MAINTAINERS, by its directory or by the same commit; and there is
    # no history to know other commits by
    command = ["scripts/checkpatch.pl", "-q", "--strict"]
    ignored = ["--ignore", "FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID"]
    good = [0, 1]
    said = [look.tool(*command, *ignored, mail, cwd=look.stock, good=good) for mail in written]
    # Their sender signs them, and what they add is a part of what they edit
    for diff in sorted(kernel.RELATED.rglob("*.patch")):
        words = [*command, "--no-signoff", *ignored, str(diff)]
        said.append(look.tool(*words, cwd=look.stock, good=good))
    root = ["--root", str(look.stock), "-f"]
    script = str(look.stock / command[0])
    said.append(
        look.tool(script, *command[1:], *root, *our_sources(), cwd=paths.TOP, good=good)
    )
    if any(text.strip() for text in said):
        raise Found("checkpatch.pl is not silent")


def shell_files(top: Path = paths.TOP) -> list[Path]:
    """Return every shell file of this repository, whatever it is called."""
    listed = Repository(top).git("ls-files", "-co", "--exclude-standard").splitlines()
    found = []
    for path in (top / name for name in listed):
        if path.is_file():
            head = path.read_bytes()[:200].decode(errors="replace")
            if re.match(r"#!.*\b(ba|da)?sh\b", head) or "# shellcheck shell=" in head:
                found.append(path)
    return found


def check_shellcheck(look: Look) -> None:
    """what shellcheck says of every shell file"""
    files = shell_files()
    if not files:
        raise Found("there is nothing to check")
    look.tool("shellcheck", "-x", "-P", "SCRIPTDIR", *files, cwd=paths.TOP)


def _python_files() -> list[Path]:
    return [paths.SCRIPTS / "workbench", paths.SCRIPTS / "tests"]


def check_mypy(look: Look) -> None:
    """what mypy --strict says of the workbench"""
    cache = ["--strict", "--cache-dir", str(paths.BUILD / "mypy")]
    look.tool("mypy", *cache, "workbench", "tests", cwd=paths.SCRIPTS)


def check_pyflakes(look: Look) -> None:
    """what pyflakes says of the workbench"""
    look.tool("pyflakes3", *_python_files())


def check_black(look: Look) -> None:
    """what the formatter black would change of the workbench"""
    look.tool("black", "--check", "--line-length", LINE, *_python_files())


def check_kernel_doc(look: Look) -> None:
    """comments for kernel-doc that are wrong"""

    def header(look: Look, built: kernel.Kernel) -> str:
        return look.tool(*_kernel_doc(built.tree), "include/linux/iommu.h", cwd=built.tree)

    _compare(look, header)
    command = [*_kernel_doc(look.patched), "-Werror"]
    look.tool(*command, kernel.SUITE, SELFTEST, cwd=look.patched)


def _kernel_doc(tree: Path) -> list[str]:
    """Return how a tree's kernel-doc is called: in 7.3 it is Python, in 6.12 Perl."""
    script = "scripts/kernel-doc"
    first = (tree / script).read_bytes().partition(b"\n")[0]
    python = [sys.executable, "-B"] if b"python" in first else []
    return [*python, script, "-none", "-Wall"]


def check_documentation(look: Look) -> None:
    """what sphinx says of Documentation/iommu"""
    # What it has read before it would not warn of again
    paths.remove(look.patched / "obj-check-docs")
    make: list[str | Path] = [
        "make",
        "-C",
        look.patched,
        "O=obj-check-docs",
        "SPHINXDIRS=iommu",
        "htmldocs",
    ]
    said = look.tool(*make)
    if re.search("warning|error", said, re.I):
        raise Found("sphinx warns")
    made = list((look.patched / "obj-check-docs").rglob("default-domain.html"))
    if not made:
        raise Found("there is no page")


def check_sparse(look: Look) -> None:
    """what sparse says of iommu.c and the KUnit suites"""
    # sparse 0.6.4 does not know __typeof_unqual__
    words = [*build.CLANG, "C=2", "CHECK=sparse -D__typeof_unqual__=__typeof__"]
    _compare(
        look, lambda look, each: _compile(look, each, "obj-check-sparse", "x86_64", words)
    )


def check_coccinelle(look: Look) -> None:
    """what the semantic patches of the kernel say of iommu.c, the suites and the selftest"""

    def run(look: Look, built: kernel.Kernel) -> str:
        files = ["drivers/iommu/iommu.c"]
        files += [name for name in (kernel.SUITE, SELFTEST) if name in built.edits]
        said, count = "", 0
        for script in sorted((built.tree / "scripts/coccinelle").rglob("*.cocci")):
            text = script.read_text()
            # Without those in OCaml, for which there would have to be a compiler
            if "\nvirtual report" not in text or "script:ocaml" in text:
                continue
            options = re.findall(r"^//[/#]* *Options: *(.*)$", text, re.M)
            words = " ".join(options).split()
            plain: list[str | Path] = [
                "-D",
                "report",
                "--no-show-diff",
                "--very-quiet",
                "--cocci-file",
                script,
            ]
            include = ["-I", "include", "-I", "arch/x86/include"]
            count += 1
            said += look.tool("spatch", *plain, *words, *include, *files, cwd=built.tree)
        if not count:
            raise Found("there are no semantic patches")
        return said

    _compare(look, run)


def check_audit(look: Look) -> None:
    """what scripts/audit does not know, or knows and is gone; of 7.3"""
    pattern = "(def|default)_domain|IOMMU_CAP_DEFERRED_FLUSH|pt_iommu_|IOMMU_DOMAIN_DMA|is_dma_domain"
    where = ["drivers", "arch", "sound", "virt"]
    grep = ["grep", "-rlE", "--include=*.c", "--exclude-dir=obj-*", pattern, *where]
    files = sorted(look.tool(*grep, cwd=look.stock).split())
    cocci: list[str | Path] = [
        "--very-quiet",
        "--no-includes",
        "--cocci-file",
        paths.SCRIPTS / "audit.cocci",
    ]
    said = look.tool("spatch", *cocci, *files, cwd=look.stock)
    rows = {line for line in (paths.SCRIPTS / "audit").read_text().splitlines() if line}
    known = {row for row in rows if not row.startswith("#")}
    found = set(said.splitlines())
    for row in sorted(known ^ found):
        look.write(f"{'gone' if row in known else 'not known'}: {row}")
    if known != found or not known:
        raise Found(f"scripts/audit has {len(known)} rows, and {len(found)} were found")


def check_clang_format(look: Look) -> None:
    """C files of the series and the workbench that clang-format would change"""
    # The macro is KUnit's, and too new for what clang-format is told of the kernel
    style = (look.stock / ".clang-format").read_text()
    macro = "ForEachMacros:\n  - 'kunit_warning_suppress'"
    told = look.run / "style"
    told.write_text(style.replace("ForEachMacros:", macro, 1))
    names = [name for name in patches.series_files() if name.endswith((".c", ".h"))]
    files = [paths.TOP / name for name in names]
    files += our_sources()
    command = [f"clang-format{packages.LLVM}", f"--style=file:{told}", "--dry-run", "-Werror"]
    look.tool(*command, *files)


def check_clang(look: Look) -> None:
    """warnings of Clang with W=1"""
    words = [*build.CLANG, "W=1"]
    _compare(look, lambda look, each: _compile(look, each, "obj-check-clang", "x86_64", words))


def check_gcc(look: Look) -> None:
    """warnings of gcc with W=1"""
    words = [*build.GCC, "W=1"]
    _compare(look, lambda look, each: _compile(look, each, "obj-check-gcc", "x86_64", words))


def _on(arch: str) -> Callable[[Look], None]:
    def check(look: Look) -> None:
        for suites in (True, False):
            built = look.kernels["patched"]
            _compile(look, built, f"obj-check-{arch}", arch, build.CLANG, suites)

    return check


def check_allmodconfig(look: Look) -> None:
    """that drivers/iommu compiles with all of it, on x86_64 and arm64"""
    for arch in ("x86_64", "arm64"):
        command = build.make(look.patched, f"obj-check-allmod-{arch}", arch, *build.CLANG)
        look.tool(*command, "allmodconfig")
        look.tool(*command, "drivers/iommu/")


def check_size(look: Look) -> None:
    """that dma-iommu.o is the same, and what iommu.o grows by"""
    names = (IOMMU, DMA_IOMMU)
    kernels = [look.kernels["stock"], look.kernels["patched"]]

    def run(look: Look, built: kernel.Kernel) -> str:
        return _compile(look, built, "obj-check-size", "x86_64", build.CLANG, False, names)

    _at_once(look, kernels, run)
    stock, patched = (each.tree / "obj-check-size" for each in kernels)
    look.tool(look.stock / "scripts/bloat-o-meter", stock / IOMMU, patched / IOMMU)
    if (stock / DMA_IOMMU).read_bytes() != (patched / DMA_IOMMU).read_bytes():
        raise Found("dma-iommu.o is not the same")


def _without_suites(look: Look) -> kernel.Kernel:
    """Return patched without what wires the suites in, in the tree of mutants."""
    series = patches.Series(patches.Files(look.stock), look.base.version)
    for name in patches.in_order(patches.series_files()):
        if not name.startswith("drivers/iommu/iommu-kunit"):
            series.add(name)
    return kernel.edited(look.kernels["patched"], "mutant", series.files.edits)


@contextmanager
def _mutant_is_kept(look: Look) -> Iterator[None]:
    """Have the tree of mutants for something else, and put it back."""
    top = look.base.directory / "mutant"
    before = tree.edits(top)
    try:
        yield
    finally:
        if before is None:
            tree.remove(top)
        else:
            kernel.edited(look.kernels["patched"], top.name, before).make()


def check_suites_off(look: Look) -> None:
    """that iommu.o is the same without the suites as with them, not configured"""

    def run(look: Look, built: kernel.Kernel) -> str:
        words, more = list(build.CLANG), ("no-lines",)
        _compile(look, built, "obj-check-off", "x86_64", words, False, more=more)
        # The names of some local symbols have the number of a line
        strip = [f"llvm-strip{packages.LLVM}", "--discard-all", "-o"]
        made = built.tree / "obj-check-off" / IOMMU
        return look.tool(*strip, look.run / f"{built.name}.o", made)

    with _mutant_is_kept(look):
        without = _without_suites(look)
        without.make()
        kernels = [look.kernels["patched"], without]
        _at_once(look, kernels, run)
    one, other = ((look.run / f"{each.name}.o").read_bytes() for each in kernels)
    if one != other:
        raise Found("iommu.o is not the same")


Check = tuple[str, Callable[[Look], None]]


def _about(function: Callable[[Look], None]) -> Check:
    return ((function.__doc__ or "").strip(), function)


CHECKS: Mapping[str, Check] = {
    "checkpatch": _about(check_checkpatch),
    "shellcheck": _about(check_shellcheck),
    "mypy": _about(check_mypy),
    "pyflakes": _about(check_pyflakes),
    "black": _about(check_black),
    "kernel-doc": _about(check_kernel_doc),
    "documentation": _about(check_documentation),
    "sparse": _about(check_sparse),
    "coccinelle": _about(check_coccinelle),
    "audit": _about(check_audit),
    "clang-format": _about(check_clang_format),
    "clang": _about(check_clang),
    "gcc": _about(check_gcc),
    "x86_64": ("that iommu.o compiles, with and without the suites", _on("x86_64")),
    "i386": ("the same on i386", _on("i386")),
    "arm64": ("the same on arm64", _on("arm64")),
    "arm": ("the same on arm, which has no IOMMU_DMA", _on("arm")),
    "s390": ("the same on s390", _on("s390")),
    "riscv": ("the same on riscv, which has no IOMMU_DMA", _on("riscv")),
    "powerpc": ("the same on powerpc, which has no IOMMU_DMA", _on("powerpc")),
    "allmodconfig": _about(check_allmodconfig),
    "size": _about(check_size),
    "suites-off": _about(check_suites_off),
}
OF_MAINLINE = ("audit",)  # the table is that of 7.3
OF_OURS = ("shellcheck", "mypy", "pyflakes", "black")  # whatever the base
OF_MUTANT = ("suites-off",)  # needs the tree of mutants


@contextmanager
def _alone(look: Look, name: str) -> Iterator[None]:
    """Keep other runs from the trees that a check uses, and make these as they should be."""
    where = look.base.directory
    with ExitStack() as stack:
        # In the order in which scripts/mutate takes them
        if name in OF_MUTANT:
            stack.enter_context(paths.locked(where, "mutant.lock"))
        if name not in OF_OURS:
            stack.enter_context(paths.locked(where))
            look.kernels["patched"].make()
        yield


def _one(look: Look, name: str, number: str, tally: Tally) -> None:
    look.log = look.base.log / f"check-{name}.log"
    look.log.parent.mkdir(parents=True, exist_ok=True)
    look.log.write_bytes(b"")
    with progress.activity(f"{name}, {number}") as activity:
        try:
            with _alone(look, name):
                CHECKS[name][1](look)
            tally.passed += 1
            progress.result(f"ok      {name} ({activity.seconds()} s)")
        except (Found, CannotTell) as error:
            is_verdict = isinstance(error, Found)
            tally.failed += is_verdict
            tally.unknown += not is_verdict
            progress.result(f"FAILED  {name}: {error}")
            tail = look.log.read_text(errors="replace").splitlines()[-30:]
            progress.say(f"{look.log} ends:", *(f"  | {line}" for line in tail))


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("checks", nargs="*")
    asked = parser.parse(arguments)
    if asked.list:
        for name, (about, _) in CHECKS.items():
            print(f"{name:14} {about}")
        return AS_EXPECTED
    for name in asked.checks:
        must_be_one_of("check", name, CHECKS)
    chosen = asked.checks or [
        name
        for name in CHECKS
        if asked.base == "mainline" or name not in (*OF_MAINLINE, *OF_OURS)
    ]
    base = bases.find(asked.base)
    setup.prepare(base, [], *packages.CHECK, *packages.GIT)
    kernels = {"stock": kernel.stock(base), "patched": kernel.patched(base)}
    with paths.locked(base.directory, "check.lock"):
        run = paths.run_directory("check")
        look = Look(base, kernels, run, base.log / "check.log")
        tally = Tally()
        for number, name in enumerate(chosen, 1):
            _one(look, name, f"{number} of {len(chosen)}", tally)
    progress.result("")
    progress.result(str(tally))
    return tally.status
