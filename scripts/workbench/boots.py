# SPDX-License-Identifier: GPL-2.0-only
"""Boots: running several at a time, judging each, and printing what came of them."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Collection, Mapping, Protocol, Sequence

from workbench import guest, initramfs, machine, paths, policy, progress, table, verdict
from workbench.job import Job, expected_results, told
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell

UNREAD = "its driver is a module"  # a guest's reason, see init.c
SECONDS_PER_REPLUG = 5
AT_ONCE = 2 * (os.cpu_count() or 1)  # guests: each waits for its devices and for timers
_LEAST = 1 << 20  # bytes that are free on a disk that is not full


@dataclass
class Result:
    """What came of a boot.

    types: that the guest reported, by device. complaints: what is wrong with its report.
    fault: why there is none. unread: devices that were not read, for want of a driver.
    passed: the results that are ok.
    """

    job: Job
    log: Path
    types: Mapping[str, str] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    fault: str = ""
    unread: Sequence[str] = ()
    passed: Sequence[str] = ()


def _types(console: str) -> dict[str, str]:
    """Return the type that the guest reported first for each device."""
    found: dict[str, str] = {}
    for line in console.replace("\r", "").splitlines():
        words = line.split()
        if words[:1] == ["#"] and words[2:3] == ["group"] and len(words) > 4:
            found.setdefault(words[1], words[4])
    return found


@dataclass(frozen=True)
class How:
    """How guests are run, whatever they are.

    timeout: seconds until one counts as hung. replugs: how often it plugs a device in again.
    accel: QEMU's. append: more words for the kernel. show: the console on stdout, too. memory:
    of the guest, as QEMU's -m has it, "" for what its architecture has.
    """

    timeout: int = 60
    replugs: int = 1
    accel: str = "tcg"
    append: Sequence[str] = ()
    show: bool = False
    memory: str = ""


@dataclass
class Booter:
    """What runs a boot, of kernels that are there by then."""

    how: How
    run: Path
    parser: verdict.Parser

    def told(self, job: Job) -> list[str]:
        """Return what the guest is told."""
        return told(job, self.how.replugs)

    def expected(self, job: Job) -> list[verdict.Expected]:
        """Return what the guest has to report."""
        return expected_results(job, self.how.replugs)

    def accel(self, job: Job) -> str:
        """Return how QEMU runs the guest, for its -accel."""
        return self.how.accel

    def options(self, job: Job) -> list[str]:
        """Return QEMU's options for what the guest has."""
        return guest.machine_options(job.machine)

    def resets(self, job: Job) -> Sequence[int]:
        """Return after how many lines on its console the guest is reset, each time it boots."""
        return ()

    def write_initrd(self, job: Job, image_file: Path, files: Path, initrd: Path) -> None:
        """Write what the guest boots with beside its kernel."""
        more = {}
        if job.setting.default == policy.OPT_IN:
            more = {initramfs.UPGRADE: (files / initramfs.OPT_IN).read_bytes()}
        initramfs.tell(files / "initramfs.cpio", self.told(job), initrd, more)

    def boot(self, job: Job, image_file: Path, files: Path) -> Result:
        """Boot and judge. files: the directory of what a guest boots with."""
        log = self.run / job.name
        initrd = self.run / f"{job.name}.initrd"
        how, each = self.how, job.machine
        self.write_initrd(job, image_file, files, initrd)
        limit = how.timeout + SECONDS_PER_REPLUG * how.replugs
        trace = guest.trace_file(self.run)
        words = [*each.append, *job.way.words, *how.append]
        command = guest.qemu(each.arch, self.accel(job), each.emulator) + self.options(job)
        command += ["-m", how.memory] if how.memory else []
        command += guest.trace_options(each, trace)
        command += guest.kernel_options(each.arch, image_file, initrd, words)
        plugs = [options for _, options in each.plugs]
        one = guest.Boot(command, files, limit, log, trace, plugs, resets=self.resets(job))
        outcome = guest.run(one, show=how.show)
        for used in (trace, initrd):
            paths.remove(used)
        return self.judge(job, log, outcome)

    def judge(self, job: Job, log: Path, outcome: guest.Outcome) -> Result:
        """Return what came of a boot whose guest has ended."""
        console = log.read_text(errors="replace").rpartition(f"\n{guest.RESET}\n")[2]
        result = Result(job, log, _types(console), fault=outcome.fault)
        expected = self.expected(job)
        report = self.parser.parse(console)
        said = verdict.complaints(report, expected)
        result.complaints = [outcome.why] if outcome.why else said
        result.unread = [
            part.name.split()[0] for part in report.parts if part.reason == UNREAD
        ]
        result.passed = [part.name for part in report.parts if part.status == "SUCCESS"]
        self.check(result)
        if result.complaints and shutil.disk_usage(self.run).free < _LEAST:
            result.fault = "no space left on the disk"  # QEMU's trace may lack something
        return result

    def check(self, result: Result) -> None:
        """Add to what is wrong what the guest has passed and should not have."""
        for device in result.job.machine.devices:
            want = result.job.type_of(device)
            if result.types.get(device.address, "none") != want and not result.complaints:
                result.complaints = [
                    f"{device.address} should be {want}: the guest has another type, and passed"
                ]


def _columns(kernels: Collection[str]) -> tuple[str, str]:
    """Return which kernel is in which column of the table; not both need be booted."""
    others = [name for name in kernels if name not in ("stock", "patched")]
    if others and "patched" in kernels:
        return "patched", others[0]
    return "stock", others[0] if others else "patched"


class Taker(Protocol):
    """What results go to as boots end."""

    def add(self, result: Result) -> None:
        """Take a result."""


class Rows:
    """The table: what of it can be printed as boots end."""

    def __init__(self, is_short: bool, jobs: Sequence[Job]) -> None:
        self.is_short = is_short
        self.jobs = jobs
        self.columns = _columns({job.kernel for job in jobs})
        self.results: dict[Job, Result] = {}
        if is_short:
            ways = dict.fromkeys(job.way for job in jobs)
            self.table = table.short([way.setting for way in ways], *self.columns)
        else:
            self.table = table.long(*self.columns)
        self._begin()

    def _begin(self) -> None:
        for line in self.table.head:
            progress.result(line)

    def _group(self, job: Job) -> object:
        """What has to be complete to be printed."""
        return job.machine.name if self.is_short else (job.machine.name, job.way)

    def add(self, result: Result) -> None:
        """Take a result, and print the rows that are complete with it."""
        self.results[result.job] = result
        group = [job for job in self.jobs if self._group(job) == self._group(result.job)]
        if all(job in self.results for job in group):
            self._print(group)

    def _print(self, group: Sequence[Job]) -> None:
        groups = dict.fromkeys(job.way for job in group)
        for device in group[0].machine.devices:
            cells = [
                self._cell(device, [job for job in group if job.way == way], self.columns)
                for way in groups
            ]
            words = " ".join(group[0].way.words)
            progress.result(
                self.table.row(group[0].machine.name, words, device.address, cells)
            )

    def _cell(
        self, device: machine.Device, jobs: Sequence[Job], columns: Sequence[str]
    ) -> table.Cell:
        types = {}
        marks = []
        note = ""
        for job in jobs:
            result = self.results[job]
            types[job.kernel] = result.types.get(device.address, "none")
            want = job.type_of(device)
            if types[job.kernel] != want:
                marks.append(f"UNEXPECTED: {job.kernel} should be {want}")
            elif result.complaints or result.fault:
                marks.append(f"FAILED: {job.kernel}, see below")
            elif job.is_too_strict(device):
                note = "strict, though it could be lazy"
        first, second = (types.get(name, "-") for name in columns)
        return table.Cell(first, second, tuple(marks), note)


class ImageRows(Rows):
    """The table of kernels that somebody else has built: a column for each."""

    def __init__(self, names: Sequence[str], jobs: Sequence[Job]) -> None:
        self.is_short = False
        self.jobs = jobs
        self.results = {}
        self.names = names
        width = max(len(" ".join(job.way.words)) for job in jobs)
        many = table.several(self.names, max(width, len("parameters")))
        self.table = table.one() if len(self.names) == 1 else many
        self._begin()

    def _print(self, group: Sequence[Job]) -> None:
        words = " ".join(group[0].way.words)
        for device in group[0].machine.devices:
            cells = [
                self._cell(device, [job for job in group if job.kernel == name], (name, "-"))
                for name in self.names
            ]
            progress.result(
                self.table.row(group[0].machine.name, words, device.address, cells)
            )


@dataclass
class Pool:
    """Boots under way, AT_ONCE of them."""

    booter: Booter
    rows: Taker
    total: int
    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))
    futures: list["Future[None]"] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    begun: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _one(self, job: Job, image_file: Path, files: Path) -> None:
        with self.lock:
            self.begun += 1
            label = f"boot {self.begun} of {self.total}: {job.name.replace('+', ' ')}"
        with progress.activity(label):
            result = self.booter.boot(job, image_file, files)
        with self.lock:
            self.results.append(result)
            self.rows.add(result)

    def submit(self, jobs: Sequence[Job], image_file: Path, files: Path) -> None:
        """Have jobs booted whose kernel is there."""
        for future in self.futures:
            if future.done():
                future.result()  # raises what has kept a guest from being run
        for job in jobs:
            self.futures.append(self.executor.submit(self._one, job, image_file, files))

    def finish(self) -> list[Result]:
        """Wait for all; return what came of them."""
        for future in self.futures:
            future.result()
        return self.results

    def stop(self) -> None:
        """Begin no more."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def end(self, name: str) -> int:
        """Say which boots have failed; return the exit status of the verb of this name."""
        failed = self.tell_failures(name)
        faults = [result.fault for result in failed if result.fault]
        if faults:
            raise CannotTell(f"{len(faults)} guests could not be run: {faults[0]}")
        return NOT_AS_EXPECTED if failed else AS_EXPECTED

    def tell_failures(self, name: str) -> list[Result]:
        """Say which boots have failed, and keep what they left; return them."""
        failed = [result for result in self.results if result.complaints or result.fault]
        for result in failed:
            paths.keep(self.booter.run)
            tail = result.log.read_text(errors="replace").splitlines()[-20:]
            why = result.fault or "; ".join(result.complaints[:5])
            progress.say("", f"FAILED {result.job.name}: {why}", f"{result.log} ends:")
            progress.say(*(f"  | {line.rstrip()}" for line in tail))
        if failed:
            names = " ".join(result.job.name for result in failed)
            progress.say("", f"{name}: {len(failed)} of {self.total} boots failed: {names}")
        return failed
