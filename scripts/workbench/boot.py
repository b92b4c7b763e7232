# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/boot [OPTION ...] [MACHINE ...]

Boot the stock and the patched kernel on emulated machines, and print a table of the type
of default domain that each device gets. Installs, fetches and builds what is missing
first. Without an argument this is the main job: vtd, vtd-nopt and vtd-nopt-external, under
iommu.strict=0 and iommu.strict=1.

  --all               every machine, unless some are named, under every iommu.strict and
                      iommu.passthrough, unless --strict or --passthrough gives one
  --odd               under each of the parameters in scripts/parameters instead
  --image IMAGE       boot a kernel that somebody else has built: a file for x86_64, or
                      debian:X.Y, the newest that Debian has of that version. Unless some
                      are named, on vtd and vtd-nopt. It is judged as stock is
  --arch ARCH         only machines of this architecture; all of them, unless some are named
  --base BASE         what is built: mainline (the default), newest, lts or a directory,
                      see scripts/setup. Machines for which it lacks something are left out
  --kernel KERNEL     only stock, or only patched; or commit, which scripts/series test has
                      made last and which must be as patched
  --strict SETTING    only with this iommu.strict: unset, 0 or 1
  --passthrough SETTING
                      with this iommu.passthrough: the same, unset if not given
  --append 'WORDS'    more kernel parameters
  --replug TIMES      unplug what a machine plugs, and plug it in again: 1 unless given
  --timeout SECONDS   until a guest counts as hung, 60 unless given, and 5 more for
                      each --replug
  --accel tcg|kvm     how QEMU runs the guest, tcg unless given
  --console           show the console of the one boot that the rest selects
  --list              print the machines and what each emulates

The table goes to stdout as boots end, a row for each machine, setting and device, or with
--all for each machine and device, the settings across, with "!" where not as expected;
progress and failures to stderr.

A boot fails if a device has another type than expected or takes another than it should
through sysfs, if its disk cannot be read through the IOMMU or invalidates the IOTLB too
often or too seldom, if it skips what it should judge, or the kernel logs an error, warns,
panics or hangs: see scripts/guest/init.c. What is right is in scripts/workbench/policy.py.
The end of its console is shown, the whole is kept under build/.

Exit status: 0 every row is as expected; 1 some are not, they are marked in the table;
2 it could not be found out: bad argument, or something could not be built or started.
"""

from __future__ import annotations

import os
import threading
from argparse import Namespace
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

from workbench import base as bases
from workbench import build, emulator, guest, image, initramfs, kernel, machine
from workbench import parameters, paths, progress, setup, table, verb, verdict
from workbench.job import Job, Way, expected_results, told
from workbench.machine import Machine
from workbench.policy import Setting
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell, must_be_one_of

MAIN_JOB = ("vtd", "vtd-nopt", "vtd-nopt-external")
FOR_AN_IMAGE = ("vtd", "vtd-nopt")
UNSET = "unset"
SECONDS_PER_BOOT = 3  # of QEMU (TCG) on a core of an AMD EPYC
UNREAD = "its driver is a module"  # a guest's reason, see init.c
SETTINGS = (UNSET, "0", "1")


@dataclass
class Result:
    """What came of a boot.

    types: that the guest reported, by device. complaints: what is wrong with its report.
    fault: why there is none. unread: devices that were not read, for want of a driver.
    """

    job: Job
    log: Path
    types: Mapping[str, str] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    fault: str = ""
    unread: Sequence[str] = ()


def options() -> verb.Arguments:
    """Return the parser of our arguments."""
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    for flag in ("--all", "--odd", "--console", "--list"):
        add(flag, action="store_true")
    add("--image")
    add("--arch")
    add("--base", default="mainline")
    add("--kernel", type=verb.one_of("stock", "patched", "commit"))
    add("--strict", type=verb.one_of(*SETTINGS))
    add("--passthrough", type=verb.one_of(*SETTINGS))
    add("--append", default="")
    add("--replug", type=verb.number)
    add("--timeout", type=verb.number, default=60)
    add("--accel", type=verb.one_of("tcg", "kvm"), default="tcg")
    add("machines", nargs="*")
    return parser


def _refuse_together(asked: Namespace) -> None:
    """Raise CannotTell of options that mean nothing together."""
    pairs = [("odd", "all"), ("odd", "strict"), ("odd", "passthrough")]
    pairs += [("image", other) for other in ("odd", "kernel", "arch")]
    for one, other in pairs:
        if all(getattr(asked, each) not in (None, False) for each in (one, other)):
            raise CannotTell(f"--{one} and --{other} cannot go together")
    if asked.image is not None and asked.base != "mainline":
        raise CannotTell("--image and --base cannot go together")
    if asked.accel == "kvm" and not os.access("/dev/kvm", os.W_OK):
        raise CannotTell("--accel 'kvm': no access to /dev/kvm here, use tcg")


def _named(asked: Namespace) -> list[str]:
    known = machine.names()
    for name in asked.machines:
        must_be_one_of("machine", name, known)
    return list(dict.fromkeys(asked.machines))


def choose(asked: Namespace) -> list[Machine]:
    """Return the machines that are asked for."""
    named = _named(asked)
    names: Sequence[str] = named
    if not named and asked.image is not None:
        names = FOR_AN_IMAGE
    elif not named:
        names = (
            machine.names() if asked.all or asked.odd or asked.arch is not None else MAIN_JOB
        )
    chosen = [machine.read(name) for name in names]
    if asked.arch is not None:
        machine.arch(asked.arch)
        for each in chosen:
            if named and each.arch.name != asked.arch:
                raise CannotTell(f"machine '{each.name}' is not of --arch '{asked.arch}'")
        chosen = [each for each in chosen if each.arch.name == asked.arch]
    if asked.replug is not None and not any(each.plug for each in chosen):
        raise CannotTell(f"--replug '{asked.replug}': none of these machines plugs a device")
    if asked.image is not None:
        for each in chosen:
            if each.arch.name != "x86_64" or each.probe:
                raise CannotTell(f"machine '{each.name}': --image is for those of x86_64")
    if not chosen:
        raise CannotTell(f"--arch '{asked.arch}': no such machine, see --list")
    return chosen


def _plain_ways(asked: Namespace) -> list[Way]:
    stricts = [asked.strict] if asked.strict else list(SETTINGS) if asked.all else ["0", "1"]
    passthroughs = [asked.passthrough or UNSET]
    if asked.all and not asked.passthrough:
        passthroughs = list(SETTINGS)
    ways = []
    for passthrough in passthroughs:
        for strict in stricts:
            words = [f"iommu.strict={strict}"] if strict != UNSET else []
            words += [f"iommu.passthrough={passthrough}"] if passthrough != UNSET else []
            ways.append(Way(Setting(strict, passthrough), tuple(words)))
    return ways


def ways(asked: Namespace, chosen: Sequence[Machine]) -> dict[str, list[Way]]:
    """Return how each machine is booted, by its name."""
    if not asked.odd:
        plain = _plain_ways(asked)
        return {each.name: plain for each in chosen}
    odd = parameters.read()
    found = {each.name: [Way(*way) for way in odd.get(each.name, [])] for each in chosen}
    for name in _named(asked):
        if name in found and not found[name]:
            raise CannotTell(f"--odd: scripts/parameters has none for {name}")
    found = {name: some for name, some in found.items() if some}
    if not found:
        raise CannotTell(f"--odd: scripts/parameters has none for --arch {asked.arch}")
    return found


def _types(console: str) -> dict[str, str]:
    """Return the type that the guest reported first for each device."""
    found: dict[str, str] = {}
    for line in console.replace("\r", "").splitlines():
        words = line.split()
        if words[:1] == ["#"] and words[2:3] == ["group"] and len(words) > 4:
            found.setdefault(words[1], words[4])
    return found


@dataclass
class Booter:
    """What runs a boot, of kernels that are there by then."""

    asked: Namespace
    run: Path
    parser: verdict.Parser
    has_drivers: bool = True
    turn: threading.Lock = field(default_factory=threading.Lock)

    def boot(self, job: Job, image_file: Path, files: Path) -> Result:
        """Boot and judge. files: the directory of what a guest boots with."""
        log = self.run / job.name
        initrd = self.run / f"{job.name}.initrd"
        replugs = self.asked.replug or 1
        limit = self.asked.timeout + 5 * replugs
        each = job.machine
        initramfs.tell(files / "initramfs.cpio", told(job, self.has_drivers, replugs), initrd)
        trace = self.run / f"{job.name}.trace"
        trace.touch()
        words = [*each.append, *job.way.words, *self.asked.append.split()]
        command = guest.qemu(each.arch, self.asked.accel) + guest.machine_options(each)
        command += guest.trace_options(each, trace)
        command += guest.kernel_options(each.arch, image_file, initrd, words)
        plug = each.plug[1] if each.plug else ""
        outcome = guest.run(
            guest.Boot(command, files, limit, log, trace, plug), show=self.asked.console
        )
        for used in (trace, initrd):
            paths.remove(used)
        return self._judge(job, log, outcome)

    def _judge(self, job: Job, log: Path, outcome: guest.Outcome) -> Result:
        console = log.read_text(errors="replace")
        result = Result(job, log, _types(console), fault=outcome.fault)
        expected = expected_results(job, self.has_drivers, (self.asked.replug or 1))
        with self.turn:  # kunit_parser prints, or is told where to, for all threads
            report = self.parser.parse(console)
        said = verdict.complaints(report, expected)
        result.complaints = [outcome.why] if outcome.why else said
        result.unread = [
            part.name.split()[0] for part in report.parts if part.reason == UNREAD
        ]
        for device in job.machine.devices:
            want = job.type_of(device)
            if result.types.get(device.address, "none") != want and not result.complaints:
                result.complaints = [f"{device.address} should be {want}, and yet was passed"]
        return result


class Rows:
    """The table: what of it can be printed as boots end."""

    def __init__(self, asked: Namespace, kernels: Sequence[str], jobs: Sequence[Job]) -> None:
        self.is_short = asked.all
        self.kernels = kernels
        self.jobs = jobs
        self.results: dict[Job, Result] = {}
        self.printed: set[object] = set()
        ways_ = list(dict.fromkeys(job.way for job in jobs))
        if self.is_short:
            self.table = table.short([way.setting for way in ways_])
        else:
            self.table = table.one() if "image" in kernels else table.long()
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
                self._cell(device, [job for job in group if job.way == way]) for way in groups
            ]
            words = " ".join(group[0].way.words)
            progress.result(
                self.table.row(group[0].machine.name, words, device.address, cells)
            )

    def _cell(self, device: machine.Device, jobs: Sequence[Job]) -> table.Cell:
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
        first = types.get("stock", types.get("image", "-"))
        second = types.get("patched", types.get("commit", "-"))
        return table.Cell(first, second, tuple(marks), note)


@dataclass
class Pool:
    """Boots under way, as many at a time as keep the machine busy: they wait as well."""

    booter: Booter
    rows: Rows
    total: int
    executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor((os.cpu_count() or 1) + 1)
    )
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


def _tell_failures(name: str, pool: Pool) -> list[Result]:
    """Say which boots have failed, and keep what they left; return them."""
    failed = [result for result in pool.results if result.complaints or result.fault]
    for result in failed:
        paths.keep(pool.booter.run)
        tail = result.log.read_text(errors="replace").splitlines()[-20:]
        why = result.fault or "; ".join(result.complaints[:5])
        progress.say("", f"FAILED {result.job.name}: {why}", f"{result.log} ends:")
        progress.say(*(f"  | {line.rstrip()}" for line in tail))
    if failed:
        names = " ".join(result.job.name for result in failed)
        progress.say("", f"{name}: {len(failed)} of {pool.total} boots failed: {names}")
    return failed


def _by_arch(chosen: Sequence[Machine]) -> dict[str, list[Machine]]:
    archs: dict[str, list[Machine]] = {}
    for each in chosen:
        archs.setdefault(each.arch.name, []).append(each)
    return archs


def _kernels(base: bases.Base, names: Sequence[str]) -> dict[str, kernel.Kernel]:
    made = {}
    for name in names:
        if name == "stock":
            made[name] = kernel.stock(base)
        elif name == "patched":
            made[name] = kernel.patched(base)
        else:
            made[name] = kernel.kept(base, name)
    return made


def _build_arch(
    pool: Pool, kernels: Mapping[str, kernel.Kernel], jobs: Sequence[Job], stock: kernel.Kernel
) -> None:
    """Build what the machines of one architecture need, and have them booted meanwhile."""
    arch = jobs[0].machine.arch
    run = pool.booter.run
    files = run / f"guest-{arch.name}"
    for name, plain in kernels.items():
        for is_probe in sorted({job.machine.probe for job in jobs}):
            built = kernel.probed(plain) if is_probe else plain
            image_file = build.build_one(built, arch, run / f"{built.name}-{arch.name}")
            if not files.exists():
                headers = built.tree / f"obj-{arch.name}" / "usr/include"
                sources = initramfs.Sources(stock.tree, [headers])
                initramfs.guest_files(sources, arch, headers.parents[1] / "guest", files)
            wanted = [
                job for job in jobs if job.kernel == name and job.machine.probe == is_probe
            ]
            pool.submit(wanted, image_file, files)


def _jobs(
    chosen: Sequence[Machine], how: Mapping[str, Sequence[Way]], kernels: Sequence[str]
) -> list[Job]:
    return [
        Job(each, name, way)
        for each in chosen
        if each.name in how
        for way in how[each.name]
        for name in kernels
    ]


def _say_what(jobs: Sequence[Job], kernels: Mapping[str, kernel.Kernel]) -> None:
    """Say what is going to be done, and about how long the parts take that take long."""
    machines = dict.fromkeys(job.machine.name for job in jobs)
    wide = (os.cpu_count() or 1) + 1
    progress.say(
        f"boot: {len(jobs)} boots of {' and '.join(kernels)} on {len(machines)} machines, "
        f"{wide} at a time, about {len(jobs) * SECONDS_PER_BOOT // wide + 2} s"
    )
    wanted = dict.fromkeys((job.machine.arch, job.machine.probe) for job in jobs)
    for arch, is_probe in wanted:
        for plain in kernels.values():
            built = kernel.probed(plain) if is_probe else plain
            outlook = build.outlook(built, build.Target(arch.name, arch.image))
            progress.say(f"boot: {built.name} for {arch.name}: {outlook}")


def _leave_out(
    chosen: Sequence[Machine], base: bases.Base, named: Sequence[str]
) -> list[Machine]:
    """Return the machines for which a base has all that is needed."""
    kept = []
    for each in chosen:
        lacking = kernel.lacks(base, each.needs, each.probe)
        if not lacking:
            kept.append(each)
        elif each.name in named:
            raise CannotTell(f"machine '{each.name}': {base.version} lacks {lacking}")
        else:
            progress.say(f"boot: {each.name} is left out: {base.version} lacks {lacking}")
    if not kept:
        raise CannotTell(f"{base.version} lacks what these machines need")
    return kept


def _boot_built(asked: Namespace, chosen: Sequence[Machine]) -> int:
    base = bases.find(asked.base)
    names = [asked.kernel] if asked.kernel else ["stock", "patched"]
    how = ways(asked, chosen)
    chosen = [each for each in chosen if each.name in how]
    _check_console(asked, _jobs(chosen, how, names))
    if base.name != "mainline":
        setup.prepare(base, [])  # to see which machines it is for
        chosen = _leave_out(chosen, base, asked.machines)
    setup.prepare(base, sorted({each.arch.name for each in chosen}))
    for each in chosen:
        emulator.check_events(each)
    jobs = _jobs(chosen, how, names)
    kernels = _kernels(base, names)
    _say_what(jobs, kernels)
    stock = kernel.stock(base)
    booter = Booter(asked, paths.run_directory("boot"), verdict.Parser(stock.tree))
    pool = Pool(booter, Rows(asked, names, jobs), len(jobs))
    try:
        for machines in _by_arch(chosen).values():
            ours = [job for job in jobs if job.machine in machines]
            _build_arch(pool, kernels, ours, stock)
        return _end(pool)
    except CannotTell:
        pool.stop()
        _tell_failures("boot", pool)
        raise
    finally:
        pool.stop()


def _boot_image(asked: Namespace, chosen: Sequence[Machine]) -> int:
    base = bases.find("mainline")
    jobs = _jobs(chosen, ways(asked, chosen), ["image"])
    _check_console(asked, jobs)
    image.check(asked.image)
    setup.prepare_guest(base, sorted({each.arch.name for each in chosen}))
    run = paths.run_directory("boot")
    image_file = image.fetch(asked.image, base.log, run / "image")
    booter = Booter(asked, run, verdict.Parser(base.stock), has_drivers=False)
    pool = Pool(booter, Rows(asked, ["image"], jobs), len(jobs))
    arch = chosen[0].arch
    sources = initramfs.Sources(base.stock, initramfs.system_headers())
    files = run / f"guest-{arch.name}"
    initramfs.guest_files(sources, arch, base.directory / "guest-image", files)
    try:
        pool.submit(jobs, image_file, files)
        return _end(pool)
    finally:
        pool.stop()


def _end(pool: Pool) -> int:
    results = pool.finish()
    unread = sorted(
        {f"{result.job.machine.name} {name}" for result in results for name in result.unread}
    )
    if unread:
        progress.say(f"boot: not read, since {UNREAD} in this kernel: {', '.join(unread)}")
    failed = _tell_failures("boot", pool)
    faults = [result.fault for result in failed if result.fault]
    if faults:
        raise CannotTell(f"{len(faults)} guests could not be run: {faults[0]}")
    return NOT_AS_EXPECTED if failed else AS_EXPECTED


def _check_console(asked: Namespace, jobs: Sequence[Job]) -> None:
    if asked.console and len(jobs) != 1:
        raise CannotTell(
            f"--console shows one boot, these are {len(jobs)}: give one machine, --kernel "
            "and --strict"
        )


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = options().parse(arguments)
    if asked.list:
        for each in machine.read_all().values():
            print(f"{each.name:18}  {each.about}")
        return AS_EXPECTED
    _refuse_together(asked)
    chosen = choose(asked)
    is_built = asked.image is None
    return _boot_built(asked, chosen) if is_built else _boot_image(asked, chosen)
