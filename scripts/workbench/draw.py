# SPDX-License-Identifier: GPL-2.0-only
"""Drawing machines: a seed gives a file as in scripts/machine/, and the setting to boot with.

What is right for a drawn machine follows from how its devices are connected, see topology,
and from policy. What is rare is had for certain by some seeds, see FORCED: PERIOD seeds in a
row have all of it. The other seeds have one IOMMU after the other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from workbench import machine, parameters, topology
from workbench.job import Way
from workbench.machine import Machine
from workbench.policy import DEFAULTS, OPT_IN, Setting
from workbench.topology import Function

# By what QEMU calls it, what it is
DRIVERS = {
    "pcie-root-port": topology.ROOT_PORT,
    "x3130-upstream": topology.UPSTREAM,
    "xio3130-downstream": topology.DOWNSTREAM,
    "pcie-pci-bridge": topology.PCIE_BRIDGE,
    "i82801b11-bridge": topology.PCI_BRIDGE,
    "virtio-blk-pci": topology.ENDPOINT,
    "nvme": topology.ENDPOINT,
    "edu": topology.ENDPOINT,
}
_KINDS = {"virtio-blk-pci": "virtio-blk", "nvme": "nvme", "edu": "edu"}
_DISK = "virtio-blk-pci"

# What every machine of x86_64 has, see scripts/machine/x86_64.arch
_OWN = ((_DISK, 2), ("nvme", 3))
OWN_DISK = "0000:00:02.0"
_SLOTS = range(4, 0x1F)  # the others on the root bus

# Not more is drawn, since each takes its time in a boot
_DISKS = 4
_PLUGS = 2
_BRIDGES = 10

_SHARE_EXTERNAL = 0.4  # of the root ports
_SHARE_USB4 = 0.3  # of those that are external-facing
_SHARE_ACS = 0.6
_FIRST_FREE_SLOT = 20  # PCIe slots below that are for what is plugged in


@dataclass(frozen=True)
class Iommu:
    """An IOMMU.

    qemu: its options. requires: its driver requires translation. count, emulator: see machine
    files. is_strict: it forces strict. is_counted: QEMU tells what it invalidates.
    takes_bridges: with a device behind a conventional bridge it still works for the others.
    knows_buses: it can also tell which device does DMA if that is there at boot, and not on
    the root bus. is_on: it is used. append: kernel parameters that it needs.
    """

    name: str
    qemu: str = ""
    requires: bool = False
    count: str = "vtd_inv_desc_iotlb*"
    emulator: int = 0
    is_strict: bool = False
    is_counted: bool = True
    takes_bridges: bool = True
    knows_buses: bool = True
    is_on: bool = True
    append: str = ""


# See scripts/machine/vtd-flts
_FLTS = "pt=off,caching-mode=on,x-scalable-mode=on,x-flts=on,aw-bits=48"
VTD = Iommu("vtd", "-device intel-iommu,pt=on")
NOPT = Iommu("vtd-nopt", "-device intel-iommu,pt=off", True)
# What may be in its place
SCALABLE = (
    Iommu("vtd-scalable", "-device intel-iommu,pt=off,x-scalable-mode=on", True),
    Iommu(
        *("vtd-flts", f"-device intel-iommu,{_FLTS}", True, "vtd_inv_desc_wait_sw"),
        emulator=10,
    ),
)
NONE = Iommu("none", is_counted=False, is_on=False)
# What may be in its place
OFF = (
    replace(NONE, name="vtd-off", qemu=VTD.qemu, append="intel_iommu=off"),
    replace(NONE, name="vtd-nopt-off", qemu=NOPT.qemu, append="iommu=off"),
    replace(
        NONE, name="amdvi-off", qemu="-device amd-iommu", append="amd_iommu=off intremap=off"
    ),
)
IOMMUS = (
    VTD,
    NOPT,
    Iommu(
        *("vtd-nopt-cm", "-device intel-iommu,pt=off,caching-mode=on", True),
        is_strict=True,
    ),
    Iommu(
        *("virtio-iommu", "-device virtio-iommu-pci,addr=1"),
        is_counted=False,
        takes_bridges=False,
    ),
    # See scripts/machine/amdvi. It keeps the bus numbers of before the firmware gave any
    Iommu(
        *("amdvi", "-device amd-iommu", False, "amdvi_pages_inval"),
        is_strict=True,
        takes_bridges=False,
        knows_buses=False,
        append="intremap=off",
    ),
    NONE,
)


class Drawing:
    """A machine while it is drawn: its IOMMU, its setting and its functions."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.iommu = NOPT
        strict = self.random.choices(("unset", "0", "1"), (30, 40, 30))[0]
        passthrough = self.random.choices(("unset", "0", "1"), (50, 20, 30))[0]
        self.setting = Setting(strict, passthrough)
        self.drivers: dict[Function, str] = {}
        for driver, slot in _OWN:
            self.add(driver, None, slot)
        self.slots = self.random.sample(_SLOTS, len(_SLOTS))
        self.plugs = self.random.sample(range(1, _PLUGS + 1), _PLUGS)

    def add(
        self,
        driver: str,
        parent: Optional[Function],
        slot: int = 0,
        number: int = 0,
        **more: Any,
    ) -> Function:
        """Add a function. driver: what QEMU calls it. more: see Function."""
        function = Function(DRIVERS[driver], parent, slot, number, **more)
        self.drivers[function] = driver
        return function

    def is_lucky(self, share: float) -> bool:
        """Return whether something is so that is in a share of all cases."""
        return self.random.random() < share

    def disks_left(self) -> int:
        """Return how many disks may still be drawn."""
        disks = [name for name in self.drivers.values() if name in (_DISK, "nvme")]
        return _DISKS - len(disks) + len(_OWN)

    def bridges_left(self) -> int:
        """Return how many ports and bridges may still be drawn."""
        return _BRIDGES - sum(each.kind in topology.BRIDGES for each in self.drivers)

    def root_port(self, slot: int, number: int = 0, **more: Any) -> Function:
        """Add a root port. more: see Function; whether it has ACS is drawn if not given."""
        more.setdefault("has_acs", self.is_lucky(_SHARE_ACS))
        return self.add("pcie-root-port", None, slot, number, **more)

    def disk(self, parent: Optional[Function], slot: int = 0) -> Function:
        """Add a disk whose invalidations are judged."""
        return self.add(_DISK, parent, slot)

    def late_disk(self, port: Function) -> None:
        """Add a disk that is plugged into a port later."""
        self.add(_DISK, port, plugged=self.plugs.pop())

    def endpoint(self, parent: Optional[Function], slot: int = 0, number: int = 0) -> None:
        """Add a disk, an NVMe disk, or a device that does nothing."""
        names = (_DISK, "nvme", "edu")
        name = self.random.choices(names, (60, 10, 30))[0]
        if not topology.is_trusted(Function(topology.ENDPOINT, parent)):
            name = _DISK  # who is not trusted is judged by count, see below for how many
        is_conventional = parent and parent.kind in topology.CONVENTIONAL
        if not self.disks_left() or (name == "nvme" and is_conventional):
            name = "edu"
        self.add(name, parent, slot, number)

    def functions(self, parent: Optional[Function], slot: int = 0) -> None:
        """Add a slot with several functions."""
        for number in range(self.random.randint(2, 3)):
            self.endpoint(parent, slot, number)

    def bridge(self, parent: Optional[Function], slot: int = 0) -> None:
        """Add a conventional bus; a device in its place where the IOMMU would fail with it."""
        if not self.iommu.takes_bridges:
            self.endpoint(parent, slot)
            return
        is_plain = parent is None and self.is_lucky(0.4)
        driver = "i82801b11-bridge" if is_plain else "pcie-pci-bridge"
        bridge = self.add(driver, parent, slot)
        for number in range(self.random.randint(1, 2)):
            self.endpoint(bridge, number + 1)

    def switch(self, port: Function, depth: int) -> None:
        """Add a switch. depth: of how many it is behind."""
        up = self.add("x3130-upstream", port)
        is_one_slot = self.is_lucky(0.3)
        for place in range(self.random.randint(1, 3)):
            slot, number = (0, place) if is_one_slot else (place, 0)
            down = self.add("xio3130-downstream", up, slot, number)
            self.below(down, depth + 1)

    def below(self, port: Function, depth: int = 0) -> None:
        """Add what is on a port. depth: how many switches it is behind."""
        can_grow = self.bridges_left() >= 4
        is_known = self.iommu.knows_buses
        whats = {"endpoint": 30, "functions": 10} if is_known else {}
        whats["nothing"] = 5
        whats["late"] = 30 if self.plugs and self.disks_left() else 0
        whats["bridge"] = 10 if is_known and self.bridges_left() else 0
        whats["switch"] = 25 if is_known and can_grow and depth < 2 else 0
        what = self.random.choices(list(whats), list(whats.values()))[0]
        if what == "endpoint":
            self.endpoint(port)
        elif what == "functions":
            self.functions(port)
        elif what == "late":
            self.late_disk(port)
        elif what == "bridge":
            self.bridge(port)
        elif what == "switch":
            self.switch(port, depth)

    def at_root(self) -> None:
        """Add what is in one slot of the root bus."""
        slot = self.slots.pop()
        whats = {"port": 50, "ports": 20, "functions": 15, "bridge": 15}
        what = self.random.choices(list(whats), list(whats.values()))[0]
        if what == "functions" or self.bridges_left() < 3:
            self.functions(None, slot)
        elif what == "bridge":
            self.bridge(None, slot)
        else:
            for number in range(2 if what == "ports" else 1):
                # QEMU's ACPI tables do not have the other functions
                is_external = number == 0 and self.is_lucky(_SHARE_EXTERNAL)
                is_usb4 = is_external and self.is_lucky(_SHARE_USB4)
                port = self.root_port(slot, number, is_external=is_external, is_usb4=is_usb4)
                self.below(port)


def _default(drawing: Drawing) -> str:
    """Return a default for the kernel, lazy if no parameter is left to it.

    With a random generator of its own, so that a seed's machine does not depend on it.
    """
    if "unset" not in (drawing.setting.strict, drawing.setting.passthrough):
        return DEFAULTS[0]
    drawn = random.Random(f"default {drawing.seed}")
    return drawn.choice([each for each in DEFAULTS if each != OPT_IN])


def _lazy_default(drawing: Drawing) -> str:
    """Return such a default, but one with which devices that require translation are lazy."""
    default = _default(drawing)
    is_strict = replace(drawing.setting, default=default).is_strict
    return DEFAULTS[0] if is_strict else default


def _be_lazy(drawing: Drawing, *iommus: Iommu) -> None:
    """Have an IOMMU whose invalidations are counted, and no setting but for lazy."""
    drawing.iommu = drawing.random.choice(iommus)
    passthrough = drawing.setting.passthrough if drawing.iommu.requires else "unset"
    drawing.setting = Setting(drawing.random.choice(("unset", "0")), passthrough)
    if drawing.iommu.requires:
        drawing.setting = replace(drawing.setting, default=_lazy_default(drawing))


def _untrusted(drawing: Drawing) -> None:
    _be_lazy(drawing, NOPT)
    port = drawing.root_port(drawing.slots.pop(), has_acs=True, is_external=True)
    if drawing.is_lucky(0.5):
        drawing.late_disk(port)
    else:
        drawing.disk(port)


def _late(drawing: Drawing) -> None:
    _be_lazy(drawing, NOPT)
    drawing.late_disk(drawing.root_port(drawing.slots.pop(), has_acs=False, is_external=True))


def _conflict(drawing: Drawing) -> None:
    _be_lazy(drawing, NOPT)
    slot = drawing.slots.pop()
    outer = drawing.root_port(slot, has_acs=False, is_external=True)
    if drawing.is_lucky(0.5):  # two ports of one slot
        drawing.disk(outer)
        drawing.disk(drawing.root_port(slot, 1, has_acs=False))
        return
    # A Thunderbolt chip with a disk, and a dock with another
    chip = drawing.add("x3130-upstream", outer)
    near, far = (drawing.add("xio3130-downstream", chip, place) for place in range(2))
    dock = drawing.add("x3130-upstream", far)
    drawing.disk(near)
    drawing.disk(drawing.add("xio3130-downstream", dock))


def _written(drawing: Drawing) -> None:
    _be_lazy(drawing, NOPT)
    drawing.disk(drawing.root_port(drawing.slots.pop()))


def _strict(drawing: Drawing) -> None:
    drawing.iommu = NOPT
    drawing.setting = Setting("1", drawing.setting.passthrough)
    drawing.disk(drawing.root_port(drawing.slots.pop()))


def _several(drawing: Drawing) -> None:
    _be_lazy(drawing, VTD, NOPT)
    slot = drawing.slots.pop()
    if drawing.is_lucky(0.5):
        bridge = drawing.add("pcie-pci-bridge", None, slot)
        drawing.disk(bridge, 1)
        drawing.endpoint(bridge, 2)
    else:
        drawing.disk(None, slot)
        drawing.endpoint(None, slot, 1)


# What seeds have for certain, in turn. It is what classes in drawn.py are for
FORCED: Sequence[Callable[[Drawing], None]] = (
    *(_untrusted, _late, _conflict, _written, _strict, _several),
)
PERIOD = len(FORCED) + 2  # the others have one IOMMU after the other


def _any(drawing: Drawing, number: int) -> None:
    """Have the IOMMU whose turn it is. number: of such a machine, from 0."""
    drawing.iommu = IOMMUS[number % len(IOMMUS)]
    drawing.setting = replace(drawing.setting, default=_default(drawing))


def _variant(drawing: Drawing) -> Iommu:
    """Return VT-d without pass-through as it is, or in scalable mode.

    With a random generator of its own, as for a default. In scalable mode a disk behind a
    conventional bridge cannot be read on QEMU, with stock either.
    """
    if any(each.kind in topology.CONVENTIONAL for each in drawing.drivers):
        return NOPT
    drawn = random.Random(f"variant {drawing.seed}")
    return drawn.choices((NOPT, *SCALABLE), (10, 3, 3))[0]


def draw(seed: int) -> Drawing:
    """Return the machine of a seed."""
    drawing = Drawing(seed)
    turn = seed % PERIOD
    if turn < len(FORCED):
        FORCED[turn](drawing)
    else:
        _any(drawing, seed // PERIOD * (PERIOD - len(FORCED)) + turn - len(FORCED))
    if not drawing.iommu.knows_buses:
        port = drawing.root_port(drawing.slots.pop(), has_acs=True, is_external=True)
        drawing.late_disk(port)
    for _ in range(drawing.random.randint(1, 2)):
        drawing.at_root()
    if drawing.iommu is NOPT:
        drawing.iommu = _variant(drawing)
    if drawing.iommu is NONE:
        drawing.iommu = random.Random(f"off {seed}").choice((NONE, *OFF))
    return drawing


def options(setting: Setting) -> list[str]:
    """Return the options of scripts/boot for a setting."""
    words = ["--strict", setting.strict, "--passthrough", setting.passthrough]
    return words + (["--default", setting.default] if setting.default != DEFAULTS[0] else [])


class _Writer:
    """Says in the lines of a file what has been drawn."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.functions = list(drawing.drivers)
        self.addresses = topology.addresses(self.functions)
        self.groups = topology.groups(self.functions)
        self.late = sorted(
            (each for each in self.functions if each.plugged), key=lambda each: each.plugged
        )

    def _place(self, function: Function) -> str:
        bus = f"bus={self._name(function.parent)}," if function.parent else ""
        return f"{bus}addr={function.slot:x}.{function.number}"

    def _name(self, function: Function) -> str:
        return f"b{self.functions.index(function)}"

    def _pcie_slot(self, function: Function) -> int:
        """Return the number of a port's slot: the n-th to be plugged in is in slot n."""
        for number, each in enumerate(self.late, 1):
            if each.parent is function:
                return number
        return _FIRST_FREE_SLOT + self.functions.index(function)

    def _options(self, function: Function) -> str:
        """Return what QEMU is told of a function."""
        words = [self.drawing.drivers[function], self._place(function)]
        place = (function.parent, function.slot)
        if sum((each.parent, each.slot) == place for each in self.functions) > 1:
            words.append("multifunction=on")
        if function.kind in topology.BRIDGES:
            words.append(f"id={self._name(function)}")
        if function.kind in (topology.ROOT_PORT, topology.DOWNSTREAM):
            words += ["chassis=1", f"slot={self._pcie_slot(function)}"]
        if function.kind == topology.ROOT_PORT and not function.has_acs:
            words.append("disable-acs=on")
        disks = [
            each for each, name in self.drawing.drivers.items() if name in (_DISK, "nvme")
        ]
        if function in disks:
            words.append(f"drive=disk{disks.index(function)}")
        if words[0] == _DISK:
            words += ["iommu_platform=on", "disable-legacy=on"]
        if words[0] == "nvme":
            words.append(f"serial={disks.index(function)}")
        return ",".join(words)

    def _class(self, group: Sequence[Function]) -> str:
        if not self.drawing.iommu.is_on:
            return "no-iommu"
        return topology.class_of(group, self.drawing.iommu.requires)

    def _group(self, function: Function) -> Sequence[Function]:
        return next(group for group in self.groups if function in group)

    def _devices(self) -> Iterator[str]:
        """Yield the lines of what is judged."""
        for each, driver in self.drawing.drivers.items():
            if each.kind == topology.ENDPOINT:
                class_ = self._class(self._group(each))
                yield f"device {self.addresses[each]} {class_} {_KINDS[driver]}"

    def _bounced(self, *drivers: str) -> list[str]:
        """Return the devices with these drivers whose DMA is bounced."""
        return [
            self.addresses[each]
            for each, driver in self.drawing.drivers.items()
            if driver in drivers and not topology.is_trusted(each)
        ]

    def _written(self) -> Iterator[str]:
        """Yield a disk for each of the two groups whose type is written, the rarest first."""
        rank = ("untrusted", "late", "required", "free")
        groups = [
            (rank.index(self._class(group).split("-")[0]), self.addresses[each])
            for group in self.groups
            for each in group[-1:]
            if each.kind == topology.ENDPOINT
        ]
        for _, address in sorted(groups)[:2]:
            yield f"writes {address}"

    def lines(self) -> Iterator[str]:
        """Yield the lines."""
        iommu = self.drawing.iommu
        setting = self.drawing.setting
        yield "# SPDX-License-Identifier: GPL-2.0-only"
        yield f"# {' '.join(options(setting))}"
        yield f"about   {describe(self.drawing)}"
        yield "arch    x86_64"
        if iommu.qemu:
            yield f"qemu    {iommu.qemu}"
        yield "qemu    -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
        for each in self.functions[len(_OWN) :]:
            if not each.plugged:
                yield f"qemu    -device {self._options(each)}"
        for each in self.functions:
            if each.is_external:
                kind = " usb4" if each.is_usb4 else ""
                yield f"external {self.addresses[each]}{kind}"
        yield from self._devices()
        if iommu.is_strict:
            yield "strict  yes"
        if iommu.is_counted:
            yield f"count   {iommu.count}"
        if iommu.emulator:
            yield f"emulator {iommu.emulator}"
        for each in self.late:
            yield f"plug    {self.addresses[each]} {self._options(each)}"
        noise = parameters.drawn(
            random.Random(f"noise {self.drawing.seed}"), setting, "scalable" in iommu.qemu
        )
        noise += [iommu.append] if iommu.append else []
        if noise:
            yield f"append  {' '.join(noise)}"
        if not iommu.is_on:
            return
        if self._bounced(_DISK, "nvme"):
            yield "append  swiotlb=force swiotlb=,track_hiwater"
        for address in self._bounced(_DISK):  # NVMe's is not, when whole pages are read
            yield f"bounced {address}"
        for group in self.groups:
            yield f"group   {' '.join(self.addresses[each] for each in group)}"
        yield from self._written()


def describe(drawing: Drawing) -> str:
    """Return in a few words what a machine has."""
    kinds = [each.kind for each in drawing.drivers]
    ports = [each for each in drawing.drivers if each.kind == topology.ROOT_PORT]
    counts = {
        "ports": len(ports),
        "external": sum(each.is_external for each in ports),
        "no ACS": sum(not each.has_acs for each in ports),
        "switches": kinds.count(topology.UPSTREAM),
        "bridges": sum(each in topology.CONVENTIONAL for each in kinds),
        "late": sum(bool(each.plugged) for each in drawing.drivers),
    }
    words = [f"{what} {count}" for what, count in counts.items() if count]
    return ", ".join([drawing.iommu.name, *words])


def text(drawing: Drawing) -> str:
    """Return the file of a machine."""
    return "".join(f"{line}\n" for line in _Writer(drawing).lines())


@dataclass(frozen=True)
class Drawn:
    """A machine that has been drawn, its file, and the way to boot it."""

    seed: int
    file: Path
    machine: Machine
    way: Way


def write(seed: int, directory: Path) -> Drawn:
    """Draw a machine, and write its file into a directory."""
    drawing = draw(seed)
    file = directory / f"random-{seed}"
    file.write_text(text(drawing))
    words = parameters.spelled(
        random.Random(f"spelling {seed}"),
        drawing.setting,
        drawing.iommu.name.startswith("vtd"),
    )
    return Drawn(seed, file, machine.read_file(file), Way(drawing.setting, tuple(words), True))
