# SPDX-License-Identifier: GPL-2.0-only
"""One boot: what the guest is told, and what it has to report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, Sequence

from workbench import kernel as kernels
from workbench import policy, verdict
from workbench.machine import Device, Machine
from workbench.policy import Setting


@dataclass(frozen=True)
class Way:
    """A way to boot a machine: the setting that is then expected, and the parameters.

    is_spelled: these are only one of the ways in which the setting's can be written.
    """

    setting: Setting
    words: tuple[str, ...] = ()
    is_spelled: bool = False


@dataclass(frozen=True)
class Job:
    """One boot. related: the patches that the kernel has beside what its name says."""

    machine: Machine
    kernel: str
    way: Way
    related: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called, and its log."""
        words = [self.machine.name, self.kernel, *self.related, *self.way.words]
        return "+".join(words).replace("/", "_")

    @property
    def setting(self) -> Setting:
        """What is in force, whatever the parameters say."""
        asked = self.way.setting
        is_forced = self.machine.strict and asked.strict != "off"
        return replace(asked, strict="1") if is_forced else asked

    def has_driver(self, device: Device) -> bool:
        """Return whether the guest has the driver of a disk for certain."""
        return True

    @property
    def can_replug(self) -> bool:
        """Whether a slot of the guest can lose its power and get it again."""
        return True

    @property
    def modules(self) -> Sequence[str]:
        """Return what the guest has to load, in this order."""
        return ()

    @property
    def sees_registers(self) -> bool:
        """Whether the guest may read the registers of devices."""
        return True

    @property
    def is_old(self) -> bool:
        """Whether sysfs takes other words than policy says, and bounces are not counted."""
        return False

    @property
    def bounced(self) -> tuple[str, ...]:
        """Return whose DMA has to be bounced, as far as that can be seen."""
        return () if self.is_old else self.machine.bounced

    @property
    def does_as(self) -> str:
        """As which kernel it has to do: the tests alone as stock."""
        if self.kernel in kernels.alternatives():
            return policy.ALTERNATIVE
        return policy.STOCK if self.kernel == "tests" else self.kernel

    def class_of(self, device: Device) -> policy.Class:
        """Return the class of a device."""
        return policy.with_related(device.policy, self.related)

    def type_of(self, device: Device) -> str:
        """Return the type that a device has to have."""
        return policy.boot_type(self.class_of(device), self.setting, self.does_as)

    def reach_of(self, device: Device) -> str:
        """Return until when a device has to reach what has been unmapped."""
        return policy.reach(self.class_of(device), self.setting, self.does_as)

    def is_too_strict(self, device: Device) -> bool:
        """Whether it is a kernel of somebody else's, and strict where patched would not be."""
        del device
        return False


def expected_results(job: Job, replugs: int) -> list[verdict.Expected]:
    """Return what the guest has to report of a boot."""
    disks = [device for device in job.machine.devices if device.is_disk]
    results = [verdict.Expected("types as told"), _derived(job, False)]
    if _groups(job):
        results.append(verdict.Expected("groups as told"))
    if is_remapped(job):
        results.append(verdict.Expected("interrupts remapped"))
    if is_scalable(job):
        results.append(verdict.Expected("scalable mode"))
    rounds = [""] + ([" again"] if job.machine.plugs and replugs and job.can_replug else [])
    for again in rounds:
        if again:
            results.append(verdict.Expected("plugged in again"))
        for device in disks:
            results += _expected_of_disk(job, device, again)
    if _writes(job):
        results.append(verdict.Expected("types written"))
    if not job.is_old:
        results.append(_derived(job, True))
    return results + [verdict.Expected("kernel log")]


def _derived(job: Job, written: bool) -> verdict.Expected:
    """Return what default_domain has to report of what it derives by itself.

    It skips the type of a group that is not as the system asks for, and is not strict
    because it is not trusted. Types are written where no device has a driver: each device
    that we judge has lost its own by then.
    """
    name = "types as derived" + (", and written" if written else "")
    types = {device.address: job.type_of(device) for device in job.machine.devices}
    if set(types.values()) == {"none"}:
        return verdict.Expected(name, is_empty=True)
    skips = set()
    for device in job.machine.devices:
        kind = types[device.address]
        is_clear = device.policy.trusted or device.policy.late
        if is_clear and kind != policy.in_force(job.setting):
            skips.add(f"{kind}: ")
        if device.policy.late and kind != "DMA":
            skips |= {f"{kind}: a removable device joined", "could not be put back"}
    if job.machine.arch.name != "x86_64" and "root-port" in " ".join(job.machine.qemu):
        skips.add("a device may do DMA without a driver")  # the port, with its interrupts
    is_judged = any(device.kind == "nvme" for device in job.machine.devices)
    if job.machine.arch.nvme and not is_judged:
        skips.add("a device has a driver")
    return verdict.Expected(name, parts_skipped=tuple(sorted(skips)))


def _expected_of_disk(job: Job, device: Device, again: str) -> Iterator[verdict.Expected]:
    kind = job.type_of(device)
    skips = {
        "is read": False,
        "bounces": not job.bounced or kind == "identity",
        "invalidates": not kind.startswith("DMA")
        or device.kind == "nvme"
        or not job.machine.count,
    }
    for what, is_skipped in skips.items():
        skip = verdict.Skip.ALWAYS if is_skipped else verdict.Skip.NEVER
        if not job.has_driver(device):
            skip = verdict.Skip.MAYBE
        yield verdict.Expected(f"{device.address} {what}{again}", skip)


def _writes(job: Job) -> list[str]:
    """Return what default_domain is to write, and what has to come of it."""
    if job.way.setting.strict == "off" or job.is_old:
        return []
    written = []
    for address in job.machine.writes:
        device = job.class_of(job.machine.device(address))
        if device.late and job.type_of(job.machine.device(address)) == "identity":
            continue  # which could not be put back
        for current in policy.currents(device):
            for word in policy.WORDS:
                result = policy.written(device, job.setting, job.does_as, current, word)
                written.append(f"{address}/{current}/{word}={result}")
    return written


def _groups(job: Job) -> tuple[tuple[str, ...], ...]:
    """Return which devices have to share a group."""
    return () if job.way.setting.strict == "off" else job.machine.groups


def is_remapped(job: Job) -> bool:
    """Whether the IOMMU has to remap the interrupts of a disk: of QEMU's, VT-d does.

    AMD-Vi's does as well, but Linux logs an error then: see scripts/machine/amdvi.
    """
    disks = [device for device in job.machine.devices if device.is_disk]
    if job.way.setting.strict == "off" or not any(map(job.has_driver, disks)):
        return False
    words = " ".join((*job.machine.qemu, *job.machine.append, *job.way.words))
    return "intel-iommu" in words and "intremap=off" not in words


def is_x2apic(job: Job) -> bool:
    """Whether the CPUs have to be in x2APIC mode: QEMU's can be as of version 10."""
    return is_remapped(job) and "eim=on" in " ".join(job.machine.qemu)


def is_scalable(job: Job) -> bool:
    """Whether VT-d has to be in scalable mode, in a guest that can see that."""
    if job.way.setting.strict == "off" or not job.sees_registers:
        return False
    words = " ".join((*job.machine.append, *job.way.words))
    return "x-scalable-mode=on" in " ".join(job.machine.qemu) and "sm_off" not in words


def finds_too_strict(job: Job) -> bool:
    """Whether the kernel is strict where patched is not, and the guest can see that.

    It sees what VT-d requires, and not that a probe does, nor when pass-through is asked
    for.
    """
    if job.machine.probe or job.setting.is_passthrough:
        return False
    patched = Job(job.machine, "patched", job.way, job.related)
    return any(job.type_of(each) != patched.type_of(each) for each in job.machine.devices)


def _without_driver(job: Job) -> list[str]:
    """Return the disks whose drivers may be missing."""
    disks = [device for device in job.machine.devices if device.is_disk]
    return [device.address for device in disks if not job.has_driver(device)]


def told(job: Job, replugs: int) -> list[str]:
    """Return what the guest is told, see scripts/guest/init.c."""
    each = job.machine
    lines = [f"module={name}" for name in job.modules]
    lines += [f"{device.address}={job.type_of(device)}" for device in each.devices]
    lines += [f"disk={device.address}" for device in each.devices if device.is_disk]
    lines += [f"no-driver={each}" for each in _without_driver(job)]
    lines += _writes(job)
    if each.count:
        lines.append("count=kernel" if each.count == ("kernel",) else "count=host")
    lines += [f"group={' '.join(group)}" for group in _groups(job)]
    lines += [f"bounced={address}" for address in job.bounced]
    lines += [f"plug={address}" for address, _ in each.plugs]
    lines += [f"rescan={each.rescan}"] if each.rescan else []
    if each.plugs:
        lines.append(f"replug={replugs if job.can_replug else 0}")
    flags = {
        "warns": each.warns,
        "too-strict": finds_too_strict(job),
        "no-writes": job.is_old,
        "remapped": is_remapped(job),
        "x2apic": is_x2apic(job),
        "scalable": is_scalable(job),
    }
    return lines + [flag for flag, is_set in flags.items() if is_set]
