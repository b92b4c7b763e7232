# SPDX-License-Identifier: GPL-2.0-only
"""Loads: what a guest is told to do with devices, how often that invalidates, and the table.

The rows of scripts/loads, each checked. A count of few invalidations proves nothing unless
many have been counted: a boot that is lazy is only as expected where the strict boot of the
same machine and kernel has passed the same load.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from workbench import boots, guest, machine, paths, policy, progress, table, verdict
from workbench.job import Job, Way
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "loads"
MACHINES = ("vtd", "vtd-nopt")
NEEDS = "include/uapi/linux/map_benchmark.h"  # without it scripts/guest/loads.c is not built
HOWS = ("read", "iova", "ping", "single", "sg", "rebind")
SECONDS_PER_BOOT = 30  # of QEMU (TCG) on a core of an AMD EPYC that others use, too
CONFIG = ("loads",)
EMULATOR = 10  # the version of QEMU that has igb
# The guest's clock counts instructions, or on a slow host a queue's timer would flush it often
CLOCK = ("-icount", "shift=1")
# A file would be read by a thread of QEMU's, which may have to wait for a core
ZEROES = "size=1048576,read-zeroes=on"
STRICT_FIRST = tuple(
    Way(policy.Setting(strict), (f"iommu.strict={strict}",)) for strict in ("1", "0")
)

WAITS = (
    "* not lazy though its domain is: dma_iova_destroy() waits, see related/iova-destroy.patch"
)

_COUNTED = re.compile(r"# load (\S+) (\d+) (\d+)\r?$", re.M)
_LOG = "kernel log"


@dataclass(frozen=True)
class Load:
    """A row: how a device is used. number, how: see scripts/guest/loads.c. qemu: options."""

    name: str
    device: str
    how: str
    number: int
    qemu: tuple[str, ...] = ()


def read(file: Path = FILE) -> list[Load]:
    """Return all rows."""
    found: list[Load] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{file}:{number}"
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise CannotTell(f"{where}: {str(error).lower()}") from None
        if len(words) < 4 or not words[3].isdigit():
            raise CannotTell(f"{where}: must be NAME DEVICE HOW NUMBER, and QEMU's options")
        if words[0] in [each.name for each in found]:
            raise CannotTell(f"{where}: '{words[0]}' comes a second time")
        if not machine.is_address(words[1]):
            raise CannotTell(f"{where}: '{words[1]}': must be a PCI device")
        must_be_one_of(f"{where}:", words[2], HOWS)
        found.append(Load(words[0], words[1], words[2], int(words[3]), tuple(words[4:])))
    return found


def check(each: machine.Machine, loads: Sequence[Load]) -> None:
    """Raise CannotTell unless a machine can have these loads, and they be counted."""
    kinds = {device.policy for device in each.devices}
    if not each.count or each.count == ("kernel",) or each.plugs or len(kinds) > 1:
        raise CannotTell(
            f"machine '{each.name}': for --loads QEMU must count its invalidations, all of its "
            "devices must be of one class, and none be plugged in"
        )
    there = {device.address for device in each.devices}
    for load in loads:
        there |= {load.device} if load.qemu else set()
        if load.device not in there:
            raise CannotTell(f"machine '{each.name}' has no {load.device} for {load.name}")


def equipped(each: machine.Machine) -> machine.Machine:
    """Return a machine with the QEMU that has all devices of the loads."""
    return replace(each, emulator=max(each.emulator, EMULATOR))


def expectation(job: Job, load: Load) -> str:
    """Return how often a load has to invalidate: a word that scripts/guest/loads.c knows."""
    kind = job.type_of(job.machine.devices[0])
    return policy.invalidates(kind, load.how == "iova", job.related)


def _without_file(word: str) -> str:
    """Return an option of QEMU's with a disk of zeroes in place of the one that has a file."""
    names = (f"disk{number}" for number in range(guest.DISKS))
    found = next((name for name in names if word == guest.disk(name)), None)
    return f"null-co,node-name={found},{ZEROES}" if found else word


def value(count: int, uses: int) -> str:
    """Return how a table says how many invalidations there were for each use."""
    if not uses:
        return "-"
    rate = count / uses
    return f"{rate:.2f}" if rate >= 0.1 else f"{rate:.3f}"


def told(chosen: Sequence[Load], job: Job) -> list[str]:
    """Return what the guest is told, see scripts/guest/loads.c."""
    lines = ["loads", "count=host"]
    for load in chosen:
        words = [load.name, expectation(job, load), load.device, load.how]
        lines.append(" ".join([*words, str(load.number)]))
    return lines


def counted(console: str) -> dict[str, tuple[int, int]]:
    """Return how many invalidations and uses there were of each load, by its name."""
    found = _COUNTED.findall(console)
    return {name: (int(count), int(uses)) for name, count, uses in found}


@dataclass
class Booter(boots.Booter):
    """What boots a guest that does all loads, and judges how often each invalidates."""

    loads: Sequence[Load] = ()

    def told(self, job: Job) -> list[str]:
        """Return what the guest is told, see scripts/guest/loads.c."""
        return told(self.loads, job)

    def expected(self, job: Job) -> list[verdict.Expected]:
        """Return what the guest has to report."""
        names = [f"{load.name} {expectation(job, load)}" for load in self.loads]
        return [verdict.Expected(name) for name in [*names, _LOG]]

    def options(self, job: Job) -> list[str]:
        """Return QEMU's options for the machine, and for what the loads take beside."""
        options = [_without_file(word) for word in super().options(job)]
        more = [word for load in self.loads for word in load.qemu]
        return [*options, *more, *(CLOCK if self.how.accel == "tcg" else ())]

    def check(self, result: boots.Result) -> None:
        """It does not report types."""


def prove(strict: boots.Result, lazy: boots.Result, loads: Sequence[Load]) -> None:
    """Add to what is wrong with a boot each load that the strict one has not passed."""
    for load in loads:
        if f"{load.name} strict" not in strict.passed:
            why = f"{load.name} proves nothing: the boot with iommu.strict=1 did not pass it"
            lazy.complaints = [*lazy.complaints, why]


@dataclass
class Rows:
    """The table: loads down, machines, kernels and settings across."""

    loads: Sequence[Load]
    jobs: Sequence[Job]
    results: dict[Job, boots.Result] = field(default_factory=dict)
    counts: dict[Job, Mapping[str, tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        machines, kernels = (
            list(dict.fromkeys(names))
            for names in (
                [job.machine.name for job in self.jobs],
                [job.kernel for job in self.jobs],
            )
        )
        self.jobs = sorted(
            self.jobs,
            key=lambda job: (
                machines.index(job.machine.name),
                kernels.index(job.kernel),
                STRICT_FIRST.index(job.way),
            ),
        )

    def add(self, result: boots.Result) -> None:
        """Take a result; print the table if it is the last."""
        console = result.log.read_text(errors="replace") if result.log.exists() else ""
        self.results[result.job] = result
        self.counts[result.job] = counted(console)
        if len(self.results) == len(self.jobs):
            for strict, lazy in self._pairs():
                prove(self.results[strict], self.results[lazy], self.loads)
            for line in self.lines():
                progress.result(line)

    def _pairs(self) -> Iterator[tuple[Job, Job]]:
        for lazy in self.jobs:
            for strict in self.jobs:
                is_same = (lazy.machine, lazy.kernel) == (strict.machine, strict.kernel)
                if is_same and (lazy.way, strict.way) == STRICT_FIRST[::-1]:
                    yield strict, lazy

    def cell(self, job: Job, load: Load) -> str:
        """Return the value of a load in a boot, and marks."""
        expect = expectation(job, load)
        mark = "*" if expect == "waits" else ""
        result = self.results[job]
        is_unproven = any(why.startswith(f"{load.name} ") for why in result.complaints)
        if f"{load.name} {expect}" not in result.passed or is_unproven:
            mark += "!"
        return value(*self.counts[job].get(load.name, (0, 0))) + mark

    def lines(self) -> list[str]:
        """Return the lines of the table."""
        related = self.jobs[0].related
        said = f", all kernels with {' and '.join(related)}" if related else ""
        lines = [f"Invalidations for each use of the DMA API{said}:"]
        lines.append(table.head([(job.machine.name,) for job in self.jobs]))
        lines.append(table.head([(job.machine.name, job.kernel) for job in self.jobs]))
        lines.append(table.line("iommu.strict", [job.way.setting.strict for job in self.jobs]))
        for load in self.loads:
            lines.append(table.line(load.name, [self.cell(job, load) for job in self.jobs]))
        if any("*" in line for line in lines):
            lines.append(WAITS)
        return lines
