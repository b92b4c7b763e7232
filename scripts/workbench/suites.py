# SPDX-License-Identifier: GPL-2.0-only
"""The KUnit suites: building them for an architecture, running them, and what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from workbench import base as bases
from workbench import build, guest, initramfs, kernel, machine, paths, verdict
from workbench.status import CannotTell


ARCHS = ("x86_64", "arm64", "s390", "um")

TIMEOUT = 300  # seconds

_SUPPRESSES = "kunit_start_suppress_warning"


@dataclass
class Tally:
    """What came of the suites under one setting, or under several.

    passed, failed, skipped: cases, each counted every time it has run.
    names: of the cases that failed, once each. skips: of others, why they were skipped.
    why: what is wrong with the end of the guest, "" if nothing is.
    at_boot: how many failed, and how many ran, when the suites ran first. What is run again
    does not tell how often a case has failed.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    names: list[str] = field(default_factory=list)
    skips: set[tuple[str, str]] = field(default_factory=set)
    why: str = ""
    at_boot: tuple[int, int] = (0, 0)

    def add(self, report: verdict.Report, path: Sequence[str] = ()) -> None:
        """Count the results that have no parts."""
        path = [*path, report.name]
        for part in report.parts:
            self.add(part, path)
        if report.parts and report.status in ("SUCCESS", "SKIPPED", "FAILURE"):
            is_alone = not any(leaf.status == "FAILURE" for leaf in report.leaves())
            if report.status == "FAILURE" and is_alone:
                self.fail(case_of(path))
            return
        if report.parts:
            return
        if report.status == "SUCCESS":
            self.passed += 1
        elif report.status == "SKIPPED":
            self.skipped += 1
            self.skips.add((case_of(path), report.reason))
        else:
            self.fail(case_of(path))

    def fail(self, name: str) -> None:
        """Count a failure."""
        self.failed += 1
        if name not in self.names:
            self.names.append(name)

    def total(self, other: "Tally") -> None:
        """Add the numbers of another setting."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.names += [name for name in other.names if name not in self.names]


def case_of(path: Sequence[str]) -> str:
    """Return the name of the case in the path of a result: main, suite, case, parameter."""
    words = [name for name in path if name and name != "main" and not name.endswith(" again")]
    named = words[1] if len(words) > 1 else words[0] if words else "it has reported nothing"
    return named


def documents(console: str) -> list[str]:
    """Return the documents in KTAP on a console: KUnit's, and the one of process 1."""
    lines = console.replace("\r", "").splitlines(keepends=True)
    begins = [n for n, line in enumerate(lines) if re.match(r"K?TAP version", line)]
    ends = begins[1:] + [len(lines)]
    return ["".join(lines[begin:end]) for begin, end in zip(begins, ends)]


def tally(
    console: str, outcome: guest.Outcome, parser: verdict.Parser, allowed: Sequence[str]
) -> Tally:
    """Return what a console says of the suites. allowed: why cases may be skipped."""
    if outcome.fault:
        last = (console.strip().splitlines() or ["it has said nothing"])[-1]
        raise CannotTell(f"{outcome.fault}: {last}")
    found = Tally(why=outcome.why)
    said = documents(console)
    for document in said:
        report = parser.parse(document)
        if report.status == "NO_TESTS":
            found.why = found.why or "0 tests run"
            continue
        found.add(report)
        if document is said[0]:
            found.at_boot = (found.failed, found.passed + found.failed)
        if report.printed != report.planned:
            found.fail(f"{report.printed} results of {report.planned} that it has planned")
        if report.errors and not found.failed:
            found.fail("its report is damaged")
    known = {name for name, reason in found.skips if reason in allowed}
    for name, reason in sorted(found.skips):
        # What is run again does not say why
        if reason not in allowed and (reason or name not in known):
            found.fail(f"{name} was skipped ({reason or 'no reason'}), which")
    if len(said) < 2 and not found.why:
        found.why = "it has not run the suites again"
    if found.why:
        found.failed = max(found.failed, 1)
    return found


@dataclass(frozen=True)
class Failing:
    """What fails of the suites on a kernel without the change, as their message says.

    names: of the cases. failed: how many there are of these with all their parameters;
    ran: and of all that run.
    """

    names: frozenset[str]
    failed: int
    ran: int

    def differs(self, found: Tally) -> str:
        """Return how the suites have done otherwise in a boot, "" if they have not."""
        if found.why:
            return found.why
        passed = self.names - set(found.names)
        if passed:
            return f"{' '.join(sorted(passed))} should fail"
        failed = set(found.names) - self.names
        if failed:
            return f"{' '.join(sorted(failed))} should not fail"
        if found.at_boot != (self.failed, self.ran):
            failed_now, ran = found.at_boot
            return f"{failed_now} of {ran} cases fail, not {self.failed} of {self.ran}"
        return ""


def failing(message: str, source: str) -> Failing:
    """Return what fails by the message of the suites' commit; CannotTell if it says nothing.

    message: has "N of the N cases", and the names of those that fail. source: the suites'.
    """
    cases = re.findall(r"\bKUNIT_CASE\w*\((\w+)", source)
    names = frozenset(cases).intersection(re.findall(r"\w+", message))
    numbers = re.search(r"(\d+)\s+of\s+the\s+(\d+)\s+cases", message)
    if not names or not numbers:
        raise CannotTell(
            "the message of the suites does not say which cases fail, of how many"
        )
    return Failing(names, int(numbers[1]), int(numbers[2]))


@dataclass(frozen=True)
class Suites:
    """The suites, built for an architecture: what boots them.

    files: the directory of what the guest boots with. limit: seconds. options: more for
    QEMU, which win.
    """

    arch: machine.Arch
    image: Path
    files: Path
    parser: verdict.Parser
    run: Path
    limit: int = TIMEOUT
    filter: str = ""
    options: Sequence[str] = ()

    def boot(self, strict: str, name: str = "") -> tuple[Tally, Path]:
        """Run the suites under iommu.strict; return what came of it, and the console."""
        log = self.run / f"{name or self.image.name}.strict{strict}"
        initrd = log.with_name(log.name + ".initrd")
        initramfs.tell(self.files / "initramfs.cpio", ["kunit"], initrd)
        words = [f"iommu.strict={strict}", "kunit.enable=1"]
        words += [f"kunit.filter_glob={self.filter}"] if self.filter else []
        boot = guest.Boot(
            self._command(strict, initrd, words),
            self.files,
            self.limit,
            log,
            monitor=self.arch.name != "um",
        )
        outcome = guest.run(boot)
        initrd.unlink()
        console = log.read_text(errors="replace")
        if outcome.fault:
            paths.keep(self.run)
        return tally(console, outcome, self.parser, self.arch.skips), log

    def _command(self, strict: str, initrd: Path, words: Sequence[str]) -> list[str]:
        """With iommu.strict=0 there are two CPUs, and so two flush queues."""
        if self.arch.name == "um":
            line = [f"console={self.arch.console}", "panic=-1", *self.arch.append, *words]
            return [str(self.image), "mem=256M", f"initrd={initrd}", *line]
        command = [*guest.qemu(self.arch, "tcg"), "-smp", str(2 - int(strict)), *self.options]
        return command + guest.kernel_options(self.arch, self.image, initrd, words)


def build_suites(
    built: kernel.Kernel, arch: machine.Arch, run: Path, more: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Build a kernel and the guest for it; return its image and the guest's files.

    more: fragments of configuration, see build.Target.
    """
    target = build.Target(arch.name, arch.image, tuple(more))
    files = run / f"guest-{target.name}"
    with paths.locked(built.base.directory):
        built.make()
        image = build.kernel_image(built, target)
        obj = build.HEADERS if arch.name == "um" else f"obj-{target.name}"
        sources = initramfs.Sources(built.base.stock, [built.tree / obj / "usr/include"])
        kept = built.tree / obj / "guest"
        initramfs.build(sources, arch, kept)
        if not files.exists():
            paths.copy(kept, files)
        copied = build.copy_image(image, run / f"{built.name}-{target.name}")
    copied.chmod(0o755)  # User Mode Linux is run
    return copied, files


def check_um(base: bases.Base) -> None:
    """Raise CannotTell if a base's KUnit cannot suppress warnings.

    Where a driver is to be warned of, the suites have the backtrace suppressed. The tens
    of thousands on um would be all there is to see.
    """
    if _SUPPRESSES not in (base.stock / "include/kunit/test.h").read_text():
        raise CannotTell(
            f"{base.version} is not for User Mode Linux: its KUnit cannot suppress warnings"
        )
