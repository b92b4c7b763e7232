# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/bench [OPTION ...]

Measure what the change costs and what it buys, on emulated machines, in figures that are
the same each time: QEMU's clock goes by instructions (-icount), one CPU runs, and nothing
waits for the host. With stock and patched: how many instructions it takes to choose a
default domain, to map and to unmap, how often unmaps invalidate the IOTLB, and how memory
grows. Only how often loads invalidate may differ from run to run. What is measured is in
scripts/measures. Installs, fetches and builds what is missing first.

  --quick          only what calls take on x86_64: everything else needs more kernels
  --base BASE      mainline (the default), newest or a directory with a tree that the diffs
                   in scripts/probe/ fit, see scripts/setup
  --baseline FILE  compare with FILE, a bench.csv of before
  --output DIR     where to, build/bench unless given; what an earlier run has left there is
                   overwritten
  --with NAME      both kernels with related/NAME.patch on top, or with a diff of your own
                   if NAME has a "/"; may be given again
  --machine NAME   only this one of scripts/measures
  --timeout SECONDS
                   until a guest counts as hung, 300 unless given

Writes to DIR, and prints where:
  bench.csv        every figure, with its unit. Two runs write the same
  loads.csv        how often loads invalidate, with the least and most of two boots
  about            on what, and with which command
  report.html      all of that to look at, and what follows for hardware by a model

Exit status: 0 done; 1 a guest failed, stock and patched differ where they may not, memory does
not grow as flush queues are large, or with --baseline something is not as it was; 2 it could
not be found out.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import build, emulator, figures, guest, initramfs, kernel, loads, machine
from workbench import measures, packages, page, paths, policy, process, progress, setup
from workbench import verb, verdict
from workbench.job import Job, Way
from workbench.measures import Measure
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell, must_be_one_of

KERNELS = ("stock", "patched")
# What the kernels have of scripts/config/ beside what every kernel has
MORE = {measures.CALLS: (), measures.MEMORY: ("cpus",), measures.LOAD: loads.CONFIG}
TIMES = 2  # that a load is measured
# An instruction takes 1 ns, and so does a wait for nothing
CLOCK = ("-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "1")
# So that a tick of the clock is taken for just a nanosecond, and nothing is there to correct it.
# To calibrate the local APIC's timer would take ten times as long as all else of a boot: the
# kernel does nothing but read the clock for 0.2 s, which is slow to emulate.
PARAMETERS = {"x86_64": ("tsc_early_khz=1000000", "hpet=disable", "pmtmr=0", "nolapic_timer")}
# What QEMU traces when a byte is sent to the console, and the bytes that guest/bench.c sends
_MARK = re.compile(r"(?:serial_write|pl011_write) .*?0x0+ .*?0x0*([23])\b")
_SENT = {"ttyS0": "serial_write", "ttyAMA0": "pl011_write"}


@dataclass(frozen=True)
class Boot:
    """One boot, and what is measured in it. cpus: that are possible. ports: that are added."""

    row: Measure
    job: Job
    cpus: int = 1
    ports: int = 0
    number: int = 1

    @property
    def name(self) -> str:
        """What it is called, and its log."""
        more = "+".join(map(str, (self.cpus, self.ports, self.number)))
        return f"{self.row.kind}+{self.job.name}+{more}"

    @property
    def columns(self) -> dict[str, str]:
        """What a file says of it."""
        is_memory = self.row.kind == measures.MEMORY
        return {
            "machine": self.job.machine.name,
            "kernel": self.job.kernel,
            "with": " ".join(self.job.related),
            "strict": self.job.way.setting.strict,
            "cpus": str(self.cpus) if is_memory else "",
            "ports": str(self.ports) if is_memory else "",
        }


def plan(
    rows: Sequence[Measure],
    machines: Mapping[str, machine.Machine],
    related: tuple[str, ...] = (),
) -> list[Boot]:
    """Return all boots."""
    found = []
    for row in rows:
        for name in KERNELS:
            for strict in ("0", "1"):
                way = Way(policy.Setting(strict, "0"), (f"iommu.strict={strict}",))
                job = Job(machines[row.machine], name, way, related)
                if row.kind == measures.CALLS:
                    found.append(Boot(row, job))
                elif row.kind == measures.LOAD:
                    found += [Boot(row, job, number=each + 1) for each in range(TIMES)]
                elif strict == "0":
                    found += [
                        Boot(row, job, cpus, ports)
                        for cpus in row.numbers(0)
                        for ports in row.numbers(1)
                    ]
    return found


class Failed(Exception):
    """A guest has failed. The first argument is its log, the second why."""


@dataclass
class Bench:
    """What is there to measure with, and what has been."""

    base: bases.Base
    run: Path
    parser: verdict.Parser
    limit: int
    related: Sequence[str] = ()
    images: dict[tuple[str, str, str], Path] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    objects: dict[tuple[str, str], Path] = field(default_factory=dict)

    def prepare(self, boots: Sequence[Boot]) -> None:
        """Build all kernels, and what their guests boot with beside them."""
        wanted = dict.fromkeys((boot.job.machine.arch, boot.row.kind) for boot in boots)
        for arch, kind in wanted:
            for name, built in self._kernels().items():
                image = self.run / f"{name}-{arch.name}-{kind}"
                self.images[name, arch.name, kind] = build.build_one(
                    built, arch, image, MORE[kind]
                )
                target = build.Target(arch.name, arch.image, MORE[kind])
                obj = built.tree / f"obj-{target.name}"
                if kind == measures.CALLS:
                    self.objects[name, arch.name] = obj / "drivers/iommu"
                files = self.run / f"guest-{arch.name}"
                if not files.exists():
                    sources = initramfs.Sources(self.base.stock, [obj / "usr/include"])
                    initramfs.guest_files(sources, arch, obj / "guest", files)

    def _kernels(self) -> Mapping[str, kernel.Kernel]:
        """Return stock and patched with the diffs in scripts/probe/, which some machines
        need, and which make the benchmark precise on all."""
        plain = {"stock": kernel.stock(self.base), "patched": kernel.patched(self.base)}
        probed = {name: kernel.probed(each) for name, each in plain.items()}
        probed["patched"] = replace(probed["patched"], like=probed["stock"])
        if not self.related:
            return probed
        return {
            name: replace(
                kernel.probed(kernel.with_related(each, self.related)), like=probed[name]
            )
            for name, each in plain.items()
        }

    def boot(self, boot: Boot) -> "Outcome":
        """Boot once; return what has been measured."""
        each = boot.job.machine
        log = self.run / boot.name
        trace = guest.trace_file(self.run)
        initrd = self.run / f"{boot.name}.initrd"
        files = self.run / f"guest-{each.arch.name}"
        told = _told(boot)
        initramfs.tell(files / "initramfs.cpio", told, initrd)
        command = guest.qemu(each.arch, "tcg", each.emulator) + list(_options(boot))
        command += guest.trace_options(each, trace)
        if boot.row.kind == measures.CALLS and each.arch.console in _SENT:
            command += ["-D", str(trace), "-trace", _SENT[each.arch.console]]
        image = self.images[boot.job.kernel, each.arch.name, boot.row.kind]
        words = [*each.append, "quiet", *boot.job.way.words]
        words += PARAMETERS.get(each.arch.name, ())
        command += guest.kernel_options(each.arch, image, initrd, words)
        self.commands.setdefault(each.name, " ".join(command).replace(f"{self.run}/", ""))
        ended = guest.run(guest.Boot(command, files, self.limit, log, trace))
        counts = list(_between_marks(trace))
        for used in (trace, initrd):
            paths.remove(used)
        return Outcome(boot, self._console(log, ended, told), counts)

    def _console(self, log: Path, ended: guest.Outcome, told: Sequence[str]) -> str:
        """Return what the guest has said, if it is as expected."""
        if ended.fault:
            paths.keep(self.run)
            raise CannotTell(f"{ended.fault} ({log})")
        console = log.read_text(errors="replace")
        said = verdict.complaints(self.parser.parse(console), list(_expected(told)))
        why = ended.why or "; ".join(said)
        if why:
            paths.keep(self.run)
            raise Failed(log, why)
        return console


def _told(boot: Boot) -> list[str]:
    """Return what the guest is told, see scripts/guest/bench.c and loads.c."""
    job = boot.job
    if boot.row.kind == measures.LOAD:
        return loads.told(_loads(boot.row), job)
    device = job.machine.devices[0]
    told = ["bench", f"device={device.address}", f"type={job.type_of(device)}"]
    if boot.row.kind == measures.MEMORY:
        return [*told, f"memory={boot.cpus}"]
    if job.machine.count:
        who = "kernel" if job.machine.count == ("kernel",) else "host"
        told.append(f"count={who}")
    return [*told, *boot.row.words]


def _loads(row: Measure) -> list[loads.Load]:
    return [load for load in loads.read() if load.name in row.words]


def _expected(told: Sequence[str]) -> Iterator[verdict.Expected]:
    """Yield what the guest has to report."""
    for line in told[1:]:
        if told[0] == "bench" and not re.match("device=|count=", line):
            yield verdict.Expected(line)
        elif told[0] == "loads" and line != "count=host":
            yield verdict.Expected(" ".join(line.split()[:2]))
    if told[0] == "loads":
        yield verdict.Expected("kernel log")


def _options(boot: Boot) -> Iterator[str]:
    """Yield QEMU's options for what the guest has.

    Where calls are measured nothing does I/O: its first disk is a random number generator,
    which no driver uses.
    """
    each = boot.job.machine
    yield from each.qemu
    yield from CLOCK
    yield from ("-smp", f"1,maxcpus={boot.cpus}")  # the others could be plugged in
    if boot.row.kind == measures.LOAD:
        yield from (*each.arch.disks, *each.arch.nvme)
        for number in range(2):
            yield from ("-blockdev", f"null-co,node-name=disk{number},{loads.ZEROES}")
        for load in _loads(boot.row):
            yield from load.qemu
        return
    for word in each.arch.disks:
        yield word.replace("virtio-blk-pci", "virtio-rng-pci").replace(",drive=disk0", "")
    for number in range(boot.ports):
        slot = f"{16 + number // 8:x}.{number % 8}"  # QEMU takes it for hexadecimal
        port = f"pcie-root-port,id=port{number},chassis={number},multifunction=on"
        yield from ("-device", f"{port},addr={slot}")
    if boot.row.kind == measures.MEMORY:
        yield from ("-m", "1024")


def _between_marks(trace: Path) -> Iterator[int]:
    """Yield how many invalidations there were between each two marks of guest/bench.c."""
    count = -1
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not re.search("serial_write|pl011_write", line):
                count += count >= 0
                continue
            mark = _MARK.search(line)
            if mark and mark[1] == "2":
                count = 0
            elif mark and count >= 0:
                yield count
                count = -1


@dataclass
class Outcome:
    """What came of a boot: its console, and what was counted between its marks."""

    boot: Boot
    console: str
    counts: Sequence[int]

    def _found(self) -> Iterator[tuple[str, str, int]]:
        """Yield each METRIC, WORD and VALUE that the guest has measured."""
        for metric, word, value in _MEASURED.findall(self.console):
            yield metric, "" if word == "-" else word, int(value)

    def rows(self) -> Iterator[figures.Row]:
        """Yield the figures."""
        found = {(metric, word): value for metric, word, value in self._found()}
        mapped = [word for metric, word in found if metric == "loops"]
        if self.boot.job.machine.count not in ((), ("kernel",)):
            if len(self.counts) != len(mapped):
                raise CannotTell(f"{self.boot.name}: marks are missing in QEMU's trace")
            found.update((("invalidations", word), n) for word, n in zip(mapped, self.counts))
        job = self.boot.job
        is_strict = job.type_of(job.machine.devices[0]) == "DMA"
        for (metric, word), value in found.items():
            if metric == "invalidations" and is_strict and value < found["all", word]:
                raise CannotTell(f"{self.boot.name}: not every invalidation is counted")
            if metric in ("all", "loops"):
                continue
            exact = Decimal(value)
            if metric in ("map", "unmap"):
                exact /= found["loops", word]
            elif metric == "invalidations":
                exact = 1000 * exact / found["all", word]
            yield self._row(metric, word, exact)

    def _row(self, metric: str, word: str, value: Decimal) -> figures.Row:
        text = f"{value.normalize():f}"
        shown = word.replace(",", " ")
        return {
            **self.boot.columns,
            "metric": metric,
            "word": shown,
            "value": text,
            "unit": figures.UNITS[metric],
        }

    def loads(self) -> dict[str, Decimal]:
        """Return how many invalidations there were for each use, by load."""
        counted = loads.counted(self.console)
        return {name: Decimal(count) / max(uses, 1) for name, (count, uses) in counted.items()}


_MEASURED = re.compile(r"^# bench (\S+) (\S+) (\d+)\r?$", re.M)


def measure(bench: Bench, boots: Sequence[Boot]) -> list[Outcome]:
    """Boot all, several at a time; it makes no difference."""

    def one(boot: Boot) -> Outcome:
        with progress.activity(f"boot {boots.index(boot) + 1} of {len(boots)}: {boot.name}"):
            return bench.boot(boot)

    executor = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        return list(executor.map(one, boots))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def ranges(outcomes: Sequence[Outcome]) -> Iterator[dict[str, str]]:
    """Yield the rows of loads.csv."""
    found: dict[tuple[str, ...], list[Decimal]] = {}
    for outcome in outcomes:
        columns = outcome.boot.columns
        of = [columns[name] for name in page.LOAD_COLUMNS[:4]]
        for name, value in outcome.loads().items() if outcome.boot.row.kind == "load" else ():
            found.setdefault((*of, name), []).append(value)
    for where, values in found.items():
        ends = [f"{each:.4f}" for each in (min(values), max(values))]
        yield dict(zip(page.LOAD_COLUMNS, [*where, *ends]))


def _sizes(bench: Bench) -> Iterator[figures.Row]:
    """Yield how large the objects are."""
    for (name, arch), directory in bench.objects.items():
        for file in ("iommu.o", "dma-iommu.o"):
            said = process.output([f"llvm-size{packages.LLVM}", directory / file])
            text, data = map(int, said.splitlines()[1].split()[:2])
            row = dict.fromkeys(figures.COLUMNS, "")
            row.update(machine=arch, kernel=name, metric="size", word=file)
            row.update({"with": " ".join(bench.related)})
            yield {**row, "value": str(text + data), "unit": figures.UNITS["size"]}


def _commit() -> str:
    try:
        return Repository(paths.TOP).git("describe", "--always", "--dirty").strip()
    except CannotTell:
        return "not known"


def about(bench: Bench, boots: Sequence[Boot], command: str) -> str:
    """Return on what was measured, and how."""
    lines = [f"command: scripts/bench {command}".rstrip(), f"commit: {_commit()}"]
    lines.append(
        f"kernel: {bench.base.version}, tinyconfig and scripts/config/, scripts/probe/"
    )
    programs = dict.fromkeys(boot.job.machine.arch.qemu[0] for boot in boots)
    for program in programs:
        lines.append(f"QEMU: {program}, {emulator.version(program)}, TCG")
    clang = process.output([f"clang{packages.LLVM}", "--version"]).splitlines()[0]
    date = process.output(["date", "-u", "+%Y-%m-%d"]).strip()
    lines += [f"compiler: {clang}", f"measured: {date}, {len(boots)} boots"]
    lines += [f"{name}: {words}" for name, words in sorted(bench.commands.items())]
    return "".join(f"{line}\n" for line in lines)


def _is_quick(row: Measure) -> bool:
    is_x86 = machine.read(row.machine).arch.name == "x86_64"
    return row.kind == measures.CALLS and is_x86


def choose(asked: Namespace) -> list[Measure]:
    """Return the rows of scripts/measures that are asked for."""
    rows = measures.read()
    if asked.machine:
        known = sorted({row.machine for row in rows})
        must_be_one_of("--machine", asked.machine, known)
    chosen = [
        row
        for row in rows
        if asked.machine in (None, row.machine) and (not asked.quick or _is_quick(row))
    ]
    if not chosen:
        raise CannotTell(
            f"--machine '{asked.machine}': with --quick it must be of x86_64, and in a row of calls"
        )
    return chosen


def _options_of(arguments: Sequence[str]) -> Namespace:
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    add("--quick", action="store_true")
    add("--base", default="mainline")
    add("--baseline", type=Path)
    add("--output", type=Path, default=paths.BUILD / "bench")
    add("--machine")
    add("--with", dest="related", action="append", default=[])
    add("--timeout", type=verb.number, default=300)
    return parser.parse(arguments)


def _say(found: figures.Comparison) -> bool:
    for line in found.lines:
        progress.result(line)
    return found.is_good


def _conclude(
    rows: Sequence[figures.Row], output: Path, baseline: Optional[Sequence[figures.Row]]
) -> int:
    """Print what was found; return the exit status."""
    for line in page.small_table(rows):
        progress.result(line)
    is_good = _say(figures.alike(rows))
    is_good &= _say(figures.grows_as_told(rows))
    if baseline is not None:
        is_good &= _say(figures.compare(baseline, rows))
    progress.say(str(output / "report.html"))
    return AS_EXPECTED if is_good else NOT_AS_EXPECTED


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = _options_of(arguments)
    baseline = figures.read(asked.baseline) if asked.baseline else None
    kernel.check_related(asked.related, own=True)
    if asked.base == "lts":
        raise CannotTell("--base 'lts': the diffs in scripts/probe/ are for mainline")
    rows = choose(asked)
    machines = {row.machine: machine.read(row.machine) for row in rows}
    base = bases.find(asked.base)
    setup.prepare(base, list({each.arch.name for each in machines.values()}), *packages.REPORT)
    run = paths.run_directory("bench")
    bench = Bench(base, run, verdict.Parser(base.stock), asked.timeout, asked.related)
    boots = plan(rows, machines, tuple(asked.related))
    bench.prepare(boots)
    try:
        outcomes = measure(bench, boots)
    except Failed as failure:
        log, why = failure.args
        tail = log.read_text(errors="replace").splitlines()[-20:]
        progress.say(
            f"FAILED {log.name}: {why}; {log} ends:", *(f"  | {each}" for each in tail)
        )
        return NOT_AS_EXPECTED
    found = [row for outcome in outcomes for row in outcome.rows()] + list(_sizes(bench))
    page.write(
        asked.output, found, list(ranges(outcomes)), about(bench, boots, " ".join(arguments))
    )
    return _conclude(found, asked.output, baseline)
