# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/bench [OPTION ...]

Measure what the change costs and what it buys, on emulated machines: how long a map, an
unmap and a read of a disk take, how often the IOTLB is invalidated, how long a boot takes
and how much memory it needs. Stock and patched take turns, see scripts/measures. Installs,
fetches and builds what is missing first; then nothing else should run.

  --quick          in 2 minutes; without it, in 15
  --base BASE      mainline (the default), newest or a directory with a tree that the diffs
                   in scripts/probe/ fit, see scripts/setup
  --baseline FILE  compare with FILE, a summary.csv of before, see scripts/report
  --output DIR     where to, build/bench unless given; what an earlier run has left
                   there is overwritten
  --with NAME      both kernels with related/NAME.patch on top; may be given again
  --machine NAME   only this one of scripts/measures
  --strict 0|1     only with this iommu.strict
  --timeout SECONDS
                   until a guest counts as hung, 120 unless given

Writes to DIR, and prints where:
  samples.csv      every value that a guest has measured, with its units in
                   scripts/guest/bench.c; and what of the host's time others than this took
                   and what was stolen from it, in percent
  about            on what, and with which command
  summary.csv      medians, and how much better patched is, see
                   scripts/workbench/summary.py
  report.html      the same to look at, see scripts/report

Exit status: 0 done; 1 a guest failed, or with --baseline patched is slower than stock where
it must not differ; 2 it could not be found out.
"""

from __future__ import annotations

import os
import platform
import re
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import build, emulator, guest, initramfs, kernel, machine, measures
from workbench import packages, paths, policy, process, progress, report, setup, summary
from workbench import verb, verdict
from workbench.measures import Measure
from workbench.repository import Repository
from workbench.status import NOT_AS_EXPECTED, CannotTell

KERNELS = ("stock", "patched")


@dataclass(frozen=True)
class Sample:
    """One boot: of which round and half of it, which machine, kernel and measure."""

    round: int
    half: int
    machine: machine.Machine
    kernel: str
    measure: Measure

    @property
    def columns(self) -> dict[str, str]:
        """What samples.csv says of it."""
        return {
            "round": str(self.round),
            "half": str(self.half),
            "machine": self.machine.name,
            "kernel": self.kernel,
            "strict": self.measure.strict,
            "cpus": str(self.measure.cpus),
            "devices": str(self.measure.devices),
        }

    @property
    def name(self) -> str:
        """What it is called, and its log."""
        return "+".join(self.columns.values())


class Failed(Exception):
    """A guest has failed. The first argument is its log, the second why."""


@dataclass
class Bench:
    """What is there to measure with."""

    base: bases.Base
    run: Path
    parser: verdict.Parser
    limit: int
    related: Sequence[str] = ()
    images: dict[tuple[str, str], Path] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    samples: list[summary.Row] = field(default_factory=list)

    def prepare(self, archs: Sequence[machine.Arch]) -> None:
        """Build stock and patched with the diffs in scripts/probe/, which some machines
        need, and which make the benchmark precise on all."""
        kernels = {"stock": kernel.stock(self.base), "patched": kernel.patched(self.base)}
        kernels = {
            name: kernel.with_related(plain, self.related) for name, plain in kernels.items()
        }
        for arch in archs:
            for name, plain in kernels.items():
                built = kernel.probed(plain)
                image = self.run / f"{built.name}-{arch.name}"
                self.images[name, arch.name] = build.build_one(built, arch, image)
                files = self.run / f"guest-{arch.name}"
                if not files.exists():
                    obj = built.tree / f"obj-{arch.name}"
                    sources = initramfs.Sources(self.base.stock, [obj / "usr/include"])
                    initramfs.guest_files(sources, arch, obj / "guest", files)

    def boot(self, sample: Sample, counted: bool) -> list[tuple[str, str, str]]:
        """Boot once; return each METRIC, WORD and VALUE that the guest has measured."""
        each, measure = sample.machine, sample.measure
        log = self.run / sample.name
        trace = self.run / f"{sample.name}.trace"
        initrd = self.run / f"{sample.name}.initrd"
        files = self.run / f"guest-{each.arch.name}"
        told = _told(sample, counted)
        initramfs.tell(files / "initramfs.cpio", told, initrd)
        # On arm64 with two CPUs, one boot in fifty waits for ever for an interrupt of QEMU's
        has_nvme = any("nvme" in word for word in measure.words)
        command = guest.qemu(each.arch, "tcg", each.emulator) + guest.machine_options(
            each, has_nvme
        )
        command += ["-smp", str(measure.cpus), *_more_devices(measure.devices)]
        if counted:
            trace.touch()
            command += guest.trace_options(each, trace)
        words = [*each.append, "quiet", f"iommu.strict={measure.strict}"]
        image = self.images[sample.kernel, each.arch.name]
        command += guest.kernel_options(each.arch, image, initrd, words)
        self.commands.setdefault(each.name, " ".join(command).replace(f"{self.run}/", ""))
        outcome = guest.run(guest.Boot(command, files, self.limit, log, trace))
        for used in (trace, initrd):
            paths.remove(used)
        return self._judge(log, outcome, told)

    def _judge(
        self, log: Path, outcome: guest.Outcome, told: Sequence[str]
    ) -> list[tuple[str, str, str]]:
        if outcome.fault:
            paths.keep(self.run)
            raise CannotTell(f"{outcome.fault} ({log})")
        console = log.read_text(errors="replace")
        tests = [line for line in told if re.match("(type|cpus|read|map)=", line)]
        expected = [verdict.Expected(line) for line in tests]
        said = verdict.complaints(self.parser.parse(console), expected)
        why = outcome.why or "; ".join(said)
        if why:
            paths.keep(self.run)
            raise Failed(log, why)
        found = re.findall(r"^# bench (\S+) (\S+) (-?\d+)\r?$", console, re.M)
        return [(metric, word.replace(",", " "), value) for metric, word, value in found]


def _told(sample: Sample, counted: bool) -> list[str]:
    """Return what the guest is told, see scripts/guest/bench.c."""
    each, measure = sample.machine, sample.measure
    setting = policy.Setting("1" if each.strict else measure.strict, "0")
    device = each.devices[0]
    type_ = policy.boot_type(device.policy, setting, sample.kernel)
    told = ["bench", f"device={device.address}", f"cpus={measure.cpus}", f"type={type_}"]
    words = [word for word in measure.words if not counted or word.startswith("map=")]
    if counted:
        told.append("count=kernel" if each.count == ("kernel",) else "count=host")
    return told + words


def _more_devices(count: int) -> Iterator[str]:
    """Yield the options for so many disks, each below a port of its own."""
    for number in range(count):
        slot = f"{16 + number // 8:x}.{number % 8}"  # QEMU takes it for hexadecimal
        port = f"pcie-root-port,id=port{number},chassis={number},hotplug=off"
        disk = f"virtio-blk-pci,bus=port{number},drive=more{number}"
        yield from ("-blockdev", guest.disk(f"more{number}"))
        yield from ("-device", f"{port},multifunction=on,addr={slot}")
        yield from ("-device", f"{disk},iommu_platform=on,disable-legacy=on")
    if count:
        yield from ("-m", "512")


def in_turn(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (machine, kernel) for each boot of half a round: stock, patched, patched, stock."""
    order = list(KERNELS)
    turns = []
    for name in names:
        turns += [(name, each) for each in order]
        order.reverse()
    return turns


def plan(rows: Sequence[Measure], machines: Mapping[str, machine.Machine]) -> list[Sample]:
    """Return all boots that are measured, in order."""
    found = []
    for number in range(1, max(row.rounds for row in rows) + 1):
        for row in rows if number % 2 else list(reversed(rows)):
            if number > row.rounds:
                continue
            turns = in_turn(row.machines)
            for half, turn in ((1, turns), (2, turns[::-1])):
                found += [
                    Sample(number, half, machines[name], each, row) for name, each in turn
                ]
    return found


def _ticks() -> tuple[float, float, float]:
    """Return the host's ticks: those that others than we took, that were stolen, and all."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, idle, wait, irq, softirq, stolen = map(
            int, file.readline().split()[1:9]
        )
    spent = os.times()
    ours = (
        spent.user + spent.system + spent.children_user + spent.children_system
    ) * os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + softirq
    return busy - ours, stolen, busy + idle + wait + stolen


def _shares(before: tuple[float, float, float]) -> dict[str, str]:
    """Return what has been taken since, in percent."""
    others, stolen, everything = (now - was for now, was in zip(_ticks(), before))
    everything = max(everything, 1)
    # They are not counted at the same time
    return {
        "others": f"{100 * max(others, 0) / everything:.1f}",
        "stolen": f"{100 * stolen / everything:.1f}",
    }


def _record(
    bench: Bench,
    sample: Sample,
    found: Sequence[tuple[str, str, str]],
    shares: Mapping[str, str],
) -> None:
    for metric, word, value in found:
        row = {**sample.columns, "metric": metric, "word": word, "value": value}
        bench.samples.append({**row, **shares})


def count_all(
    bench: Bench, rows: Sequence[Measure], machines: Mapping[str, machine.Machine]
) -> None:
    """Have each machine's invalidations counted, in round 0.

    No speed is measured, so they need not take turns.
    """
    wanted = [
        Sample(0, 0, machines[name], each, row)
        for row in rows
        for name, each in in_turn(row.machines)
        if machines[name].count and any(word.startswith("map=") for word in row.words)
    ]

    def count(sample: Sample) -> list[tuple[str, str, str]]:
        label = f"count invalidations: {sample.machine.name} {sample.kernel}"
        with progress.activity(f"{label} iommu.strict={sample.measure.strict}"):
            return bench.boot(sample, counted=True)

    executor = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for sample, found in zip(wanted, executor.map(count, wanted)):
            counts = [each for each in found if each[0] in ("unmaps", "invalidations")]
            _record(bench, sample, counts, {"others": "", "stolen": ""})
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def measure_all(bench: Bench, samples: Sequence[Sample]) -> None:
    """Measure, one boot at a time."""
    for number, sample in enumerate(samples, 1):
        what = f"{sample.machine.name} {sample.kernel} iommu.strict={sample.measure.strict}"
        with progress.activity(
            f"boot {number} of {len(samples)}: round {sample.round}, {what}"
        ):
            before = _ticks()
            found = bench.boot(sample, counted=False)
            _record(bench, sample, found, _shares(before))


def _size(base: bases.Base, arch: str) -> str:
    """Return what iommu.o grows by, and whether dma-iommu.o is the same."""
    objects = [
        base.directory / f"{name}-probe" / f"obj-{arch}/drivers/iommu" for name in KERNELS
    ]
    stock, patched = ((path / "dma-iommu.o") for path in objects)
    is_same = stock.read_bytes() == patched.read_bytes()
    said = process.output(
        [base.stock / "scripts/bloat-o-meter", *(path / "iommu.o" for path in objects)]
    )
    total = next(line for line in said.splitlines() if line.startswith("Total: "))
    same = "dma-iommu.o is the same, to the byte" if is_same else "dma-iommu.o DIFFERS"
    return f"iommu.o ({arch}): {total[len('Total: '):]}; {same}"


def _model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name.*?: (.*)$", file.read(), re.M)
    return found[1] if found else platform.machine()


def _commit() -> str:
    try:
        return Repository(paths.TOP).git("describe", "--always", "--dirty").strip()
    except CannotTell:
        return "not known"


def about(
    bench: Bench, archs: Sequence[machine.Arch], command: str, boots: int, seconds: int
) -> str:
    """Return on what was measured, and how."""
    noise = {
        what: max((float(row[what]) for row in bench.samples if row[what]), default=0.0)
        for what in ("others", "stolen")
    }
    lines = [f"command: scripts/bench {command}", f"commit: {_commit()}"]
    lines.append(
        f"kernel: {bench.base.version}, tinyconfig and scripts/config/, scripts/probe/"
    )
    for arch in archs:
        lines.append(f"QEMU: {arch.qemu[0]}, {emulator.version(arch.qemu[0])}, TCG")
    clang = process.output([f"clang{packages.LLVM}", "--version"]).splitlines()[0]
    lines.append(f"compiler: {clang}")
    lines.append(f"host: Linux {platform.release()}, {os.cpu_count()} CPUs, {_model()}")
    lines.append(f"noise: of the host, others took {noise['others']} % of a boot at most")
    lines.append(f"noise: and {noise['stolen']} % at most was stolen")
    date = process.output(["date", "-u", "+%Y-%m-%d"]).strip()
    lines.append(f"measured: {date}, in {seconds} s, {boots} boots, and what is counted")
    lines += [f"{name}: {words}" for name, words in sorted(bench.commands.items())]
    lines += [_size(bench.base, arch.name) for arch in archs]
    return "".join(f"{line}\n" for line in lines)


def choose(asked: Namespace) -> list[Measure]:
    """Return the rows of scripts/measures that are asked for."""
    rows = measures.read()
    known = sorted({name for row in rows for name in row.machines})
    if asked.machine and asked.machine not in known:
        raise CannotTell(f"--machine '{asked.machine}': must be one of: {' '.join(known)}")
    wanted = "quick" if asked.quick else "full"
    chosen = []
    for row in rows:
        if row.set != wanted or asked.strict not in (None, row.strict):
            continue
        if asked.machine and asked.machine not in row.machines:
            continue
        chosen.append(replace(row, machines=(asked.machine,)) if asked.machine else row)
    if not chosen:
        raise CannotTell(
            f"scripts/measures has nothing for {asked.machine} with iommu.strict={asked.strict}"
        )
    return chosen


def _options() -> verb.Arguments:
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    add("--quick", action="store_true")
    add("--base", default="mainline")
    add("--baseline", type=Path)
    add("--output", type=Path, default=paths.BUILD / "bench")
    add("--machine")
    add("--with", dest="related", action="append", default=[])
    add("--strict", type=verb.one_of("0", "1"))
    add("--timeout", type=verb.number, default=120)
    return parser


def _write(bench: Bench, output: Path, text: str) -> None:
    """Write what was found to a directory; what is there of before goes."""
    output.mkdir(parents=True, exist_ok=True)
    summary.write(output / "samples.csv", bench.samples, summary.SAMPLES)
    summary.write(output / "summary.csv", summary.summarise(bench.samples))
    (output / "about").write_text(text)


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = _options().parse(arguments)
    baseline: Optional[list[summary.Row]] = None
    if asked.baseline:
        baseline = summary.read(asked.baseline)
    kernel.check_related(asked.related)
    if asked.base == "lts":
        raise CannotTell("--base 'lts': the diffs in scripts/probe/ are for mainline")
    rows = choose(asked)
    names = sorted({name for row in rows for name in row.machines})
    machines = {name: machine.read(name) for name in names}
    archs = list({each.arch.name: each.arch for each in machines.values()}.values())
    base = bases.find(asked.base)
    setup.prepare(base, [arch.name for arch in archs], *packages.REPORT)
    bench = Bench(
        base,
        paths.run_directory("bench"),
        verdict.Parser(base.stock),
        asked.timeout,
        asked.related,
    )
    bench.prepare(archs)
    samples = plan(rows, machines)
    try:
        # Nor may another be measured at the same time
        with paths.locked(paths.BUILD, "bench.lock"):
            began = progress.elapsed()
            count_all(bench, rows, machines)
            measure_all(bench, samples)
            seconds = progress.elapsed() - began
    except Failed as failure:
        log, why = failure.args
        tail = log.read_text(errors="replace").splitlines()[-20:]
        progress.say(
            f"FAILED {log.name}: {why}; {log} ends:", *(f"  | {line}" for line in tail)
        )
        return NOT_AS_EXPECTED
    _write(
        bench, asked.output, about(bench, archs, " ".join(arguments), len(samples), seconds)
    )
    return report.report(asked.output, baseline)
