# SPDX-License-Identifier: GPL-2.0-only
"""scripts/boot --events: which event happens on which machine, and the table of them.

scripts/guest/events.c makes the event happen and judges it. After two of them, "kexec" and
"reset", the guest is judged as after every boot.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterator, Sequence

from workbench import boots, guest, initramfs, machine, policy, progress, table, verdict
from workbench.job import Job, Way, expected_results
from workbench.job import told as told_of_boot
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell

MACHINES = ("vtd-nopt-hotplug", "vtd", "vtd-nopt-external")
ARCHS = ("x86_64", "arm64")  # whose kernels config/events.config is for
CONFIG = ("events",)
# What scripts/guest/events.c needs of a kernel's source
NEEDS = ("include/uapi/linux/iommufd.h", initramfs.EVENTS_NEED)
ROUNDS = 40
SECONDS_PER_BOOT = 9  # of QEMU (TCG) on a core of an AMD EPYC, with ROUNDS; --debug takes more
SECONDS_PER_ROUND = 2
DEBUG_TAKES = 4  # times as long, with --debug

# How many rounds make one round of an event; 0: it has no more than one
EVENTS = {
    **{"type": 1, "fuzz": 8, "rebind": 4, "plug": 20, "cpu": 4, "suspend": 20},
    **{"vfio": 8, "faults": 1, "nth": 0, "queue": 0, "kexec": 0, "reset": 0},
}
_FAULTS = ("faults", "nth")  # what the guest tells of is allocations that failed
# What is in the table, and only says what came of an event
_NO_EVENT = ("without-group", "without-dma", "warned", "devices")
# Where a device is found or bound, a slab may have to be refilled, or not, by an allocation more
_BY_CHANCE = {name: 2 for name in ("bind", "lazy-bind", "rescan", *_NO_EVENT)}
FRESH = ("kexec", "reset")  # the guest is judged as after every boot
# The event "queue": from boot on no flush queue can be allocated, see scripts/probe/events/
_NO_QUEUE = "fail_iova_queue"

_RESETS = 10
# It is reset within so many lines on the console: process 1 begins after them
_RESET_WITHIN = {"x86_64": 230, "arm64": 120}

# Allocations that fail are told of at length. QEMU does not wake a sleeping port when a device
# is plugged in; on arm64 a port would sleep, since these kernels have CONFIG_PM. The type of a
# group is only written where no device has a driver, and these kernels have one for AHCI
WORDS = ("log_buf_len=8M", "pcie_port_pm=off", "initcall_blacklist=ahci_pci_driver_init")
# Two CPUs, one of which can go
_CPUS = ("-smp", "2")
# When a PCI device's memory is switched on or off by one CPU, and another CPU uses a device at
# that moment, QEMU (7.2 and 10.0, TCG) can take another device for that one, or end with an
# assertion in iotlb_to_section(). So the CPUs take turns, in one thread. Only where no device
# comes, goes or is reset after boot do they run at once: there scripts/guest/events.c starts
# the second one when the disks are there.
_TURNS = ",thread=single"
_AT_ONCE = ("type", "fuzz", "cpu")
_ONE_CPU = "maxcpus=1"
# Without an ITS, VFIO would refuse a device for its interrupts. With one, and without EFI, the
# kernel after kexec takes the tables of the one before for its own, and is overwritten
_ITS = {("vfio", "arm64"): ("-machine", "gic-version=3")}

_TOLD = re.compile(r"^# event (\S+) (\d+)\r?$", re.M)
_WIDTH = 22


@dataclass(frozen=True)
class Happening(Job):
    """A boot in which one thing happens. event: one of EVENTS."""

    event: str = ""

    @property
    def name(self) -> str:
        """What it is called, and its log."""
        return f"{super().name}+{self.event}"

    @property
    def column(self) -> tuple[str, str, str]:
        """Where in the table it is."""
        return self.machine.name, self.kernel, self.way.setting.strict


def lacks(each: machine.Machine) -> str:
    """Return what a machine lacks for events to be judged there, "" if nothing."""
    if each.arch.name not in ARCHS:
        return f"--events is for {' and '.join(ARCHS)}"
    if not each.count or not any(device.kind == "virtio-blk" for device in each.devices):
        return "for --events it must have a virtio-blk disk, and QEMU count its invalidations"
    if each.strict:  # as in caching mode: what is lazy there invalidates as often
        return "for --events its driver must not force strict invalidation"
    if len(each.plugs) > 1:
        return "for --events it must have one 'plug' at most"
    if each.rescan:
        return "for --events none of its devices must join a group late"
    if subject(each).policy.late:
        return "for --events its disk must not join a group that has its domain"
    judged = {device.address for device in each.devices}
    if any(len(judged & set(group)) > 1 for group in each.groups):
        return "for --events none of its devices must share a group with another"
    return ""


def able(chosen: Sequence[machine.Machine], named: bool) -> list[machine.Machine]:
    """Return the machines on which events can be judged.

    CannotTell if another one is named, or if there is none.
    """
    found = []
    for each in chosen:
        why = lacks(each)
        if not why:
            found.append(each)
        elif named:
            raise CannotTell(f"machine '{each.name}': {why}")
    if not found:
        raise CannotTell(f"--arch '{chosen[0].arch.name}': {lacks(chosen[0])}")
    for each in chosen:
        if each not in found:
            progress.say(f"boot: {each.name} is left out: {lacks(each)}")
    return found


def check_only(only: Sequence[str], rounds: int | None, replug: int | None) -> None:
    """Raise CannotTell unless --rounds and --replug matter for these events.

    only: those that are asked for, or none for all of them.
    """
    events = only or list(EVENTS)
    if rounds is not None and not any(EVENTS[event] for event in events):
        raise CannotTell(f"--rounds '{rounds}': --event {' '.join(events)} has no rounds")
    ignoring = [event for event in events if event not in FRESH]
    if replug is not None and ignoring:
        raise CannotTell(
            f"--replug '{replug}': --event {ignoring[0]} ignores it, only "
            f"{' and '.join(FRESH)} do not"
        )


def subject(each: machine.Machine) -> machine.Device:
    """Return what events happen to: what can be plugged in, or the first virtio-blk disk."""
    if each.plugs:
        return each.device(each.plugs[0][0])
    return next(device for device in each.devices if device.kind == "virtio-blk")


def happens(event: str, each: machine.Machine) -> bool:
    """Return whether an event can happen on a machine: QEMU suspends x86_64 only.

    Where allocations fail each try needs a new group. One with a port in it stays as it is.
    """
    if event == "plug":
        return bool(each.plugs)
    if event in _FAULTS:
        its = subject(each).address
        return not any(its in group and len(group) > 1 for group in each.groups)
    return event != "suspend" or each.arch.name == "x86_64"


def without(words: Sequence[str]) -> tuple[str, ...]:
    """Return kernel parameters without those that events add."""
    return tuple(word for word in words if word not in (_ONE_CPU, _NO_QUEUE))


def _way(job: Job, event: str) -> Way:
    """Return how a machine is booted to which this happens."""
    words = job.way.words
    if event in _AT_ONCE:
        words += (_ONE_CPU,)
    if event == "queue":
        words += (_NO_QUEUE,)
    return replace(job.way, words=words)


def happenings(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """Return a boot for each event on each of these. only: these events, unless empty."""
    found: list[Job] = [
        Happening(job.machine, job.kernel, _way(job, event), job.related, event)
        for event in EVENTS
        if not only or event in only
        for job in jobs
        if happens(event, job.machine)
    ]
    if not found:
        raise CannotTell(f"--event '{' '.join(only)}': not on these machines")
    return found


def _event(job: Job) -> str:
    assert isinstance(job, Happening)
    return job.event


def _writes(job: Job) -> list[str]:
    """Return a line for each word that is written to the type: what has to come of it."""
    device = job.class_of(subject(job.machine))
    lines = []
    for current in policy.currents(device):
        for word in policy.WORDS:
            free = policy.written(device, job.setting, job.does_as, current, word)
            bound = policy.written_bound(device, current, word)
            lines.append(f"write {current} {word} {free} free")
            lines.append(f"write {current} {word} {bound} bound")
    return lines


@dataclass
class Booter(boots.Booter):
    """What boots a guest to which something happens. rounds: see --rounds."""

    rounds: int = ROUNDS

    def _rounds(self, job: Job) -> int:
        share = EVENTS[_event(job)]
        return max(self.rounds // share, 1) if share else 1

    def _told_of_event(self, job: Job) -> list[str]:
        """Return what the guest is told, see scripts/guest/events.c."""
        each = job.machine
        lines = ["events", f"event={_event(job)}", f"rounds={self._rounds(job)}"]
        lines += [f"{device.address}={job.type_of(device)}" for device in each.devices]
        disks = [device.address for device in each.devices if device.is_disk]
        disks.sort(key=lambda address: address != subject(each).address)
        lines += [f"disk={address}" for address in disks]
        lines += ["slot"] * bool(each.plugs)
        of_disk = subject(each).policy
        if job.setting.is_strict and of_disk.trusted and not of_disk.requires:
            lines.append("one-type")
        return lines + _writes(job)

    def told(self, job: Job) -> list[str]:
        """Return what the guest is told."""
        if _event(job) == "reset":
            return told_of_boot(job, self.how.replugs)
        return self._told_of_event(job)

    def expected(self, job: Job) -> list[verdict.Expected]:
        """Return what the guest has to report."""
        if _event(job) in FRESH:
            return expected_results(job, self.how.replugs)
        return [verdict.Expected(name) for name in (_event(job), "as before", "kernel log")]

    def resets(self, job: Job) -> Sequence[int]:
        """Return after how many lines the guest is reset: the same for each run of a boot."""
        if _event(job) != "reset":
            return ()
        draw = random.Random(job.name)
        last = _RESET_WITHIN[job.machine.arch.name]
        return [draw.randint(1, last) for _ in range(_RESETS)]

    def write_initrd(self, job: Job, image_file: Path, files: Path, initrd: Path) -> None:
        """Write what the guest boots with, and with kexec what the next kernel does."""
        more = {}
        if _event(job) == "kexec":
            told = told_of_boot(job, self.how.replugs)
            initramfs.tell(files / "initramfs.cpio", told, initrd)
            more = {"initrd": initrd.read_bytes(), "kernel": image_file.read_bytes()}
        initramfs.tell(files / "initramfs.cpio", self.told(job), initrd, more)

    def accel(self, job: Job) -> str:
        """Return how QEMU runs the guest: its CPUs take turns, or run at once."""
        is_tcg = self.how.accel == "tcg"
        return self.how.accel + (_TURNS if is_tcg and _event(job) not in _AT_ONCE else "")

    def options(self, job: Job) -> list[str]:
        """Return QEMU's options for the machine, with two CPUs."""
        its = _ITS.get((_event(job), job.machine.arch.name), ())
        return [*super().options(job), *_CPUS, *its]

    def check(self, result: boots.Result) -> None:
        """It reports types only as after a boot."""
        if _event(result.job) in FRESH:
            super().check(result)


@dataclass
class Rows:
    """The table: what happened down, machines, kernels and settings across."""

    jobs: Sequence[Job]
    results: dict[Job, boots.Result] = field(default_factory=dict)

    def add(self, result: boots.Result) -> None:
        """Take a result; print the table if it is the last."""
        self.results[result.job] = result
        if len(self.results) == len(self.jobs):
            for line in self.lines():
                progress.result(line)
            faults, events = self._faults(), self._events()
            progress.say(f"boot: {events} events, {faults} allocations that failed")

    def _faults(self) -> int:
        """Return how many allocations have failed."""
        return sum(
            number
            for job in self.jobs
            if _event(job) in _FAULTS
            for what, number in self._counts(job).items()
            if what not in _NO_EVENT
        )

    def _events(self) -> int:
        """Return how often other events have happened: of what one tells, the first counts."""
        found = 0
        for job in [job for job in self.jobs if _event(job) not in _FAULTS]:
            counts = self._counts(job).items()
            found += next((number for what, number in counts if what not in _NO_EVENT), 1)
        return found

    def _pairs(self) -> Iterator[tuple[Job, Job]]:
        """Yield the boots of stock and patched in which the n-th allocation fails for each n.

        Only where both do the same, since the device has the same type, and have told of it.
        """
        jobs = [job for job in self._passed() if "" not in self._counts(job)]
        for one in jobs:
            for other in jobs:
                if (one.kernel, other.kernel) != ("stock", "patched"):
                    continue
                if (one.machine, one.way) != (other.machine, other.way):
                    continue
                if one.type_of(subject(one.machine)) == other.type_of(subject(other.machine)):
                    yield one, other

    def _passed(self) -> Iterator[Job]:
        """Yield the boots in which the n-th allocation fails and all is as expected."""
        for job in [job for job in self.jobs if _event(job) == "nth"]:
            result = self.results[job]
            if not (result.complaints or result.fault):
                yield job

    def end(self) -> int:
        """Return NOT_AS_EXPECTED, and say where, if stock and patched differ in such a pair.

        They then have another number of allocations on a path, or of what comes of a failure.
        So too if a boot has told no number.
        """
        status, pairs = AS_EXPECTED, list(self._pairs())
        for job in self._passed():
            if "" in self._counts(job):
                progress.say(f"FAILED {job.name}: it has told no number")
                progress.say(f"  see {self.results[job].log}")
                status = NOT_AS_EXPECTED
        for one, other in pairs:
            ones, others = self._counts(one), self._counts(other)
            for what in {**ones, **others}:
                its, stocks = others.get(what, 0), ones.get(what, 0)
                if abs(its - stocks) > _BY_CHANCE.get(what, 0):
                    progress.say(f"FAILED {other.name}: {what} {its}, with stock {stocks}")
                    progress.say(*(f"  see {self.results[each].log}" for each in (one, other)))
                    status = NOT_AS_EXPECTED
        if pairs:
            progress.say(f"boot: compared {len(pairs)} pairs of boots, of stock and patched")
        return status

    def _counts(self, job: Job) -> dict[str, int]:
        """Return what the guest says it has done, by what it is."""
        log = self.results[job].log
        console = log.read_text(errors="replace") if log.exists() else ""
        found = {what: int(number) for what, number in _TOLD.findall(console)}
        if _event(job) == "reset":
            return {"": console.count(f"\n{guest.RESET}\n")}
        return found or {"": 1}

    def lines(self) -> list[str]:
        """Return the lines of the table."""
        columns = list(dict.fromkeys(_happening(job).column for job in self.jobs))
        order = list(dict.fromkeys(column[:2] for column in columns))
        columns.sort(key=lambda column: order.index(column[:2]))  # a kernel's side by side
        cells: dict[str, dict[tuple[str, str, str], str]] = {}
        for job in self.jobs:
            result = self.results[job]
            mark = "!" if result.complaints or result.fault else ""
            for what, number in self._counts(job).items():
                row = cells.setdefault(f"{_event(job)} {what}".strip(), {})
                row[_happening(job).column] = f"{number}{mark}"
        machines = [column[:1] for column in columns]
        kernels = [column[:2] for column in columns]
        size = max(table.cell_width(machines), table.cell_width(kernels))
        lines = ["What happened, how often, and ! where it is not as expected afterwards:"]
        lines.append(table.head(machines, _WIDTH, size))
        lines.append(table.head(kernels, _WIDTH, size))
        settings = [column[2] for column in columns]
        lines.append(table.line("iommu.strict", settings, _WIDTH, size))
        for name, row in cells.items():
            values = [row.get(each, "-") for each in columns]
            lines.append(table.line(name, values, _WIDTH, size))
        return lines


def _happening(job: Job) -> Happening:
    assert isinstance(job, Happening)
    return job
