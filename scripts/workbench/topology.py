# SPDX-License-Identifier: GPL-2.0-only
"""What follows from how PCI devices are connected: their addresses, trust, groups and classes.

These are the rules for x86 in Linux 7.3, written down a second time, and only for what QEMU
emulates. They are no copy of the kernel's code, and nothing here has been read from a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Mapping, Optional, Sequence

ROOT_PORT = "root port"
UPSTREAM = "upstream port"  # of a switch, towards the root
DOWNSTREAM = "downstream port"  # of a switch, towards a device
PCIE_BRIDGE = "bridge to PCI"  # is PCIe itself, with a conventional bus behind it
PCI_BRIDGE = "PCI bridge"  # is conventional itself, too
ENDPOINT = "endpoint"

BRIDGES = (ROOT_PORT, UPSTREAM, DOWNSTREAM, PCIE_BRIDGE, PCI_BRIDGE)
CONVENTIONAL = (PCIE_BRIDGE, PCI_BRIDGE)  # whose devices cannot be told apart


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a PCI device.

    kind: one of the above. parent: the bridge that it is behind, None on the root bus.
    slot, number: where on that bus.
    has_acs: it keeps what is behind it, and the functions beside it, from reaching each other.
    is_external: a root port that is marked as external-facing. is_usb4: and as a USB4 host's.
    plugged: 0 if it is there at boot, else it is the first to be plugged in, the second, ...
    """

    kind: str
    parent: Optional["Function"] = None
    slot: int = 0
    number: int = 0
    has_acs: bool = False
    is_external: bool = False
    is_usb4: bool = False
    plugged: int = 0

    def above(self) -> Iterator["Function"]:
        """Yield the bridges above it, up to the root bus."""
        if self.parent:
            yield self.parent
            yield from self.parent.above()


def addresses(functions: Sequence[Function]) -> Mapping[Function, str]:
    """Return the address of each: the firmware numbers buses as it comes to their bridges."""
    found: dict[Function, str] = {}
    last = 0

    def walk(parent: Optional[Function], bus: int) -> None:
        nonlocal last
        here = [each for each in functions if each.parent is parent]
        for each in sorted(here, key=lambda each: (each.slot, each.number)):
            found[each] = f"0000:{bus:02x}:{each.slot:02x}.{each.number}"
            if each.kind in BRIDGES:
                last += 1
                walk(each, last)

    walk(None, 0)
    return found


def is_trusted(function: Function) -> bool:
    """Return whether the kernel trusts a device.

    It does not trust what is below an external-facing root port. But a switch that is directly
    on that port may be part of the computer: a Thunderbolt chip. Its ports are trusted, and so
    is an endpoint that is directly on one of them; not if the port is a USB4 host's.
    """
    above = list(function.above())
    if not above or not above[-1].is_external:
        return True
    if above[-1].is_usb4:
        return False
    path = [each.kind for each in reversed([function, *above])]
    chip = [ROOT_PORT, UPSTREAM, DOWNSTREAM, ENDPOINT]
    return path == chip[: len(path)]


def _isolates(bridge: Function) -> bool:
    """Whether what is behind a bridge cannot reach another device but through the root."""
    if bridge.kind in CONVENTIONAL:
        return False
    return bridge.has_acs or bridge.kind == UPSTREAM  # of a switch with one function


def _leader(function: Function, functions: Sequence[Function]) -> Function:
    """Return the first to arrive of the group of a function."""
    parent = function.parent
    if parent and not all(map(_isolates, [parent, *parent.above()])):
        return _leader(parent, functions)
    if function.has_acs:
        return function
    place = (parent, function.slot)
    beside = [each for each in functions if (each.parent, each.slot) == place]
    alike = [each for each in beside if not each.has_acs]
    return min(alike, key=lambda each: each.number)


def groups(functions: Sequence[Function]) -> list[list[Function]]:
    """Return which functions share a group.

    All behind a conventional bridge are in its group. So is what is behind a bridge that lacks
    ACS, or has a bridge above it that does. The functions of a slot that lack ACS share one.
    """
    found: dict[Function, list[Function]] = {}
    for each in functions:
        found.setdefault(_leader(each, functions), []).append(each)
    return list(found.values())


def class_of(group: Sequence[Function], requires: bool) -> str:
    """Return the class, a name in policy.CLASSES, of the devices that share a group.

    requires: their IOMMU's driver requires translation.

    The type is chosen when the first of them arrive, which is all at once at boot. Who is
    plugged in later takes what there is.
    """
    first = min(each.plugged for each in group)
    if not all(is_trusted(each) for each in group if each.plugged == first):
        return "untrusted"
    name = "required" if requires else "free"
    return name if all(map(is_trusted, group)) else f"late-{name}"
