# SPDX-License-Identifier: GPL-2.0-only
"""Boots of drawn machines: a line for each, and how many there were of each class."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Callable, Mapping, Sequence

from workbench import draw, policy, progress
from workbench.boots import Result
from workbench.draw import Drawn
from workbench.job import Job
from workbench.machine import Device
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED

_FORM = "{:10}  {:6}  {:11}  {:11}  {:7}  {:73}  {}"
_HEAD = ("seed", "strict", "passthrough", "default", "devices", "machine", "verdict")


def _is_judged(result: Result, device: Device) -> bool:
    """Whether the invalidations of a device have been counted, and were as they should be."""
    return f"{device.address} invalidates" in result.passed


def _alone(job: Job) -> str:
    """Return the type of a device of the machine that is trusted, and so are its mates."""
    return job.type_of(job.machine.device(draw.OWN_DISK))


def _requires(job: Job) -> bool:
    """Whether the IOMMU's driver requires translation: elsewhere the change does nothing."""
    return job.machine.device(draw.OWN_DISK).policy.requires


def _has_untrusted(result: Result) -> bool:
    job = result.job
    is_lazy = _requires(job) and _alone(job) == "DMA-FQ"
    return is_lazy and any(
        job.type_of(each) == "DMA"
        and each.address in job.machine.bounced
        and _is_judged(result, each)
        for each in job.machine.devices
    )


def _has_late(result: Result) -> bool:
    job = result.job
    return _requires(job) and any(
        policy.boot_type(each.policy, job.setting, job.does_as) == "DMA-FQ"
        and each.policy.late
        and each.address in job.machine.bounced
        and _is_judged(result, each)
        for each in job.machine.devices
    )


def _mates(job: Job) -> list[list[Device]]:
    """Return the devices that share a group, as far as they are judged."""
    devices = {each.address: each for each in job.machine.devices}
    return [
        [devices[address] for address in group if address in devices]
        for group in job.machine.groups
    ]


def _has_conflict(result: Result) -> bool:
    """Whether devices share a group of which one is not trusted, and another could be lazy."""
    job = result.job
    if not _requires(job) or _alone(job) == "DMA":
        return False
    for mates in _mates(job):
        judged = [each for each in mates if _is_judged(result, each)]
        are_bounced = {each.address in job.machine.bounced for each in judged}
        if are_bounced == {True, False} and job.type_of(judged[0]) == "DMA":
            return True
    return False


def _has_written(result: Result) -> bool:
    return "types written" in result.passed


def _has_strict(result: Result) -> bool:
    """Whether a device that requires translation is strict since all are asked to be."""
    job = result.job
    is_asked = job.way.setting.is_strict and not job.machine.strict
    device = job.machine.device(draw.OWN_DISK)
    return is_asked and _requires(job) and _is_judged(result, device)


def _has_several(result: Result) -> bool:
    shared = any(len(mates) > 1 for mates in _mates(result.job))
    return shared and "groups as told" in result.passed


CLASSES: Mapping[str, Callable[[Result], bool]] = {
    "an untrusted device is strict, and others lazy": _has_untrusted,
    "an untrusted device joins a lazy group": _has_late,
    "trusted and untrusted devices share a strict group": _has_conflict,
    "types are written": _has_written,
    "translation is required, and all are to be strict": _has_strict,
    "several devices share a group": _has_several,
}


@dataclass
class Rows:
    """What is printed: a line when the last boot of a machine has ended."""

    machines: Sequence[Drawn]
    jobs: Sequence[Job]
    results: dict[str, list[Result]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.each = len(self.jobs) // len(self.machines)
        self.counts = dict.fromkeys(CLASSES, 0)
        progress.result(_FORM.format(*_HEAD))

    def add(self, result: Result) -> None:
        """Take a result, and print the line that is complete with it."""
        results = self.results.setdefault(result.job.machine.name, [])
        results.append(result)
        if len(results) < self.each:
            return
        drawn = next(each for each in self.machines if each.machine is result.job.machine)
        for name, has in CLASSES.items():
            self.counts[name] += any(has(each) for each in results)
        progress.result(_row(drawn, results))

    def failed(self) -> list[Drawn]:
        """Return the machines of which a boot has failed."""
        names = {
            name
            for name, results in self.results.items()
            if any(each.complaints or each.fault for each in results)
        }
        return [each for each in self.machines if each.machine.name in names]

    def end(self) -> int:
        """Print how many machines count for each class: those whose boots have judged it.

        Return NOT_AS_EXPECTED if a class has none, though there are draw.PERIOD machines or
        more and none of them has failed; else AS_EXPECTED. Some classes stock cannot have.
        """
        progress.result("")
        for name, count in self.counts.items():
            progress.result(f"{count:6} machines: {name}")
        missing = [name for name, count in self.counts.items() if not count]
        is_changed = any(job.does_as != policy.STOCK for job in self.jobs)
        if not missing or self.failed() or len(self.machines) < draw.PERIOD or not is_changed:
            return AS_EXPECTED
        for name in missing:
            progress.say(f"boot: no machine counts for this class: {name}")
        return NOT_AS_EXPECTED


def _row(drawn: Drawn, results: Sequence[Result]) -> str:
    setting = drawn.way.setting
    types = [result.types for result in results]
    differ = sum(
        len({each.get(device.address) for each in types}) > 1
        for device in drawn.machine.devices
    )
    failed = [each.job.kernel for each in results if each.complaints or each.fault]
    verdict = f"FAILED: {' and '.join(failed)}, see below" if failed else "as expected"
    if not failed and differ:
        verdict += f", {differ} differ"
    its = drawn.machine
    cells = (drawn.seed, setting.strict, setting.passthrough, setting.default)
    return _FORM.format(*cells, len(its.devices), its.about, verdict)


def repeat(drawn: Drawn, options: Sequence[str]) -> list[str]:
    """Return what to say of a machine that has failed: the two ways to repeat it.

    options: of scripts/boot, that have to be given again.
    """
    words = draw.options(drawn.way.setting)
    again = shlex.join(["scripts/boot", "--random", "1", "--seed", str(drawn.seed), *options])
    file = shlex.join(["scripts/boot", str(drawn.file), *words, *options])
    by = "its file, with a replug" if drawn.machine.plugs else "its file"
    # The options have iommu.strict=1 where iommu.strict=Yes was drawn
    by += ", with parameters as usual" if drawn.way.words else ""
    return [f"seed {drawn.seed} again: {again}", f"  or by {by}: {file}"]
