# SPDX-License-Identifier: GPL-2.0-only
"""scripts/boot --attack: a device that does DMA to what has been unmapped, and the table of it.

What is done, and judged, is in scripts/guest/attack.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Mapping, Sequence

from workbench import boots, guest, initramfs, paths, policy, progress, verdict
from workbench.job import Job
from workbench.machine import Attacker, Machine
from workbench.status import CannotTell

# Time passes by instructions, so that a busy host changes nothing
_CLOCK = ("-icount", "shift=1,sleep=off")
_OTHER = ("-device", "edu,addr=6")  # does nothing, unless the driver is told to spoil attacks
# The bounce buffers are so few that one is used again soon. Two words: see vtd-nopt-external
_BUFFERS = ("swiotlb=256",)

SECONDS = 10  # a boot, as boot.SECONDS_PER_BOOT

_TITLE = "What a device reaches by DMA: until when, or not at all, what has been unmapped."
_FORM = "{:17}  {:19}  {:{}}  {:6}  {:8}  {:7}  {:6}  {:5}  {}"
_CELLS = ("mapped", "unmapped", "flushed", "reused", "slot", "verdict")
_SAYS = {"reached": "yes", "refused": "no"}  # what a guest says, and the table
_RESULTS = (
    *("type", "trust", "mapped", "unmapped", "window", "flushed"),
    *("reused", "slot", "kernel log"),
)
_FOUND = re.compile(r"^# attack (\S+) (\S+)\r?$", re.M)


def attacker(machine: Machine) -> Attacker:
    """Return the device of a machine that attacks; CannotTell if it has none."""
    if not machine.attacker:
        raise CannotTell(f"machine '{machine.name}': its file has no 'attack'")
    return machine.attacker


def options(machine: Machine) -> list[str]:
    """Return QEMU's options for a machine with its attacker in place of what is there."""
    its = attacker(machine)
    kept: list[str] = []
    words = list(machine.qemu)
    while words:
        word = words.pop(0)
        if word == "-device" and its.bus and its.bus in words[0].split(","):
            words.pop(0)
        else:
            kept.append(word)
    if not its.device.policy.late:
        kept += ["-device", its.options]
    bare = replace(machine, qemu=tuple(kept))
    return [*guest.machine_options(bare, nvme=False), *_OTHER, *_CLOCK]


def told(job: Job) -> list[str]:
    """Return what the guest is told, see scripts/guest/attack.c."""
    device = attacker(job.machine).device
    flags = {
        "plug": device.policy.late,
        "bounced": not device.policy.trusted,
        "lazy": job.reach_of(device) == policy.UNTIL_FLUSH,
    }
    lines = ["attack", f"device={device.address}", f"type={job.type_of(device)}"]
    return lines + [flag for flag, is_set in flags.items() if is_set]


def expected_results(job: Job) -> list[verdict.Expected]:
    """Return what the guest has to report of a boot."""
    device = attacker(job.machine).device
    skipped = {"slot"} if device.policy.trusted else set()
    if job.reach_of(device) == policy.NOT_TRANSLATED:
        skipped = set(_RESULTS) - {"type"}
    return [
        verdict.Expected(name, verdict.Skip.ALWAYS if name in skipped else verdict.Skip.NEVER)
        for name in _RESULTS
    ]


@dataclass
class Result(boots.Result):
    """What came of a boot. found: what the guest says for the table, by its words."""

    found: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Booter(boots.Booter):
    """What runs a boot with a device that attacks."""

    def boot(self, job: Job, image_file: Path, files: Path) -> Result:
        log = self.run / job.name
        initrd = self.run / f"{job.name}.initrd"
        initramfs.tell(files / "initramfs.cpio", told(job), initrd)
        each, its = job.machine, attacker(job.machine)
        words = [*each.append, *_BUFFERS, *job.way.words, *self.how.append]
        command = guest.qemu(each.arch, self.how.accel, each.emulator) + options(each)
        command += guest.kernel_options(each.arch, image_file, initrd, words)
        plugs = [its.options] if its.device.policy.late else []
        one = guest.Boot(command, files, self.how.timeout, log, plugs=plugs)
        outcome = guest.run(one, show=self.how.show)
        paths.remove(initrd)
        return self.judge(job, log, outcome)

    def judge(self, job: Job, log: Path, outcome: guest.Outcome) -> Result:
        console = log.read_text(errors="replace")
        report = self.parser.parse(console)
        said = verdict.complaints(report, expected_results(job))
        found = dict(_FOUND.findall(console))
        result = Result(job, log, fault=outcome.fault, found=found)
        result.complaints = [outcome.why] if outcome.why else said
        return result


def _unmapped(found: Mapping[str, str]) -> str:
    """Return for how long after an unmap the device reaches the page, or that it does not."""
    text = _cell(found, "unmapped")
    reached, comma, _ = found.get("window", "").partition(",")
    if text != "yes" or not comma or not reached.isdigit():
        return text
    return f"{round(int(reached) / 1000)} ms"


def _cell(found: Mapping[str, str], word: str) -> str:
    return _SAYS.get(found.get(word, "-"), found.get(word, "-"))


def verdict_of(result: Result) -> str:
    """Return the verdict on a boot, for the table."""
    job = result.job
    device = attacker(job.machine).device
    want = job.type_of(device)
    if result.fault:
        return "FAILED, see below"
    if result.found.get("type") != want:
        return f"UNEXPECTED: the type should be {want}"
    if result.complaints:
        return f"UNEXPECTED: {result.complaints[0]}"
    reach = job.reach_of(device)
    if reach == policy.UNTIL_FLUSH:
        return "lazy" if device.policy.trusted else "LAZY, and untrusted"
    if reach == policy.NEVER:
        return "strict" if device.policy.trusted else "strict, untrusted"
    return reach


def _kernel(job: Job) -> str:
    return "+".join([job.kernel, *job.related])


def row(result: Result, width: int = 0) -> str:
    """Return a row of the table. width: of the kernel's column."""
    job, found = result.job, result.found
    cells = [_cell(found, "mapped"), _unmapped(found)]
    cells += [_cell(found, word) for word in ("flushed", "reused", "slot")]
    cells += [verdict_of(result)]
    words = " ".join(job.way.words) or "-"
    return _FORM.format(job.machine.name, words, _kernel(job), width, *cells)


class Rows:
    """The table: rows are printed in order, as soon as all before them are there."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.left = list(jobs)
        self.width = max(len(_kernel(each)) for each in jobs)
        self.results: dict[Job, boots.Result] = {}
        progress.result(_TITLE)
        progress.result(_FORM.format("machine", "parameters", "kernel", self.width, *_CELLS))

    def add(self, result: boots.Result) -> None:
        """Take a result; print the rows that are next."""
        self.results[result.job] = result
        while self.left and self.left[0] in self.results:
            each = self.results[self.left.pop(0)]
            assert isinstance(each, Result)
            progress.result(row(each, self.width))
