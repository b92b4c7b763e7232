# SPDX-License-Identifier: GPL-2.0-only
"""Trust, groups, classes and addresses, of machines that are drawn by hand.

A line is a function: its name, kind, what it is behind ("-" is the root bus), slot and
function, and flags. R is a root port, U and D are a switch's ports, B is a bridge to
conventional PCI, P is one that is conventional itself, E an endpoint.
"""

from __future__ import annotations

from typing import Mapping

import pytest

from workbench import topology
from workbench.topology import Function

KINDS = {
    "R": topology.ROOT_PORT,
    "U": topology.UPSTREAM,
    "D": topology.DOWNSTREAM,
    "B": topology.PCIE_BRIDGE,
    "P": topology.PCI_BRIDGE,
    "E": topology.ENDPOINT,
}

# A Thunderbolt chip's own switch, directly on an external-facing port, with a disk on it. On
# another of its ports is a dock, a switch too, with a disk; on a third a conventional bridge
CHIP = """
root  R -    4.0 acs external
chip  U root 0.0
port1 D chip 0.0
disk1 E port1 0.0
port2 D chip 1.0
dock  U port2 0.0
port3 D dock 0.0
disk2 E port3 0.0
port4 D chip 2.0
bridge B port4 0.0
disk3 E bridge 1.0
"""

# As vtd-nopt-groups
GROUPS = """
port R - 4.0 acs external
far  B port 0.0
a    E far 1.0
b    E far 2.0
c    E - 5.0
d    E - 5.1
near B - 6.0
e    E near 1.0
f    E near 2.0
"""

# Two root ports in one slot, of which one is external-facing
TWINS = """
out  R - 4.0 external
in   R - 4.1
mine E in 0.0
his  E out 0.0
"""

LATE = TWINS.replace("his  E out 0.0", "his  E out 0.0 late")


def _read(text: str) -> Mapping[str, Function]:
    found: dict[str, Function] = {}
    for line in text.strip().splitlines():
        name, kind, parent, place, *flags = line.split()
        slot, number = place.split(".")
        found[name] = Function(
            KINDS[kind],
            found.get(parent),
            int(slot, 16),
            int(number),
            "acs" in flags,
            "external" in flags or "usb4" in flags,
            "usb4" in flags,
            flags.count("late"),
        )
    return found


@pytest.mark.parametrize(
    "text, names",
    [
        (CHIP, "dock port3 disk2 bridge disk3"),
        (
            CHIP.replace("external", "usb4"),
            "chip port1 disk1 port2 dock port3 disk2 port4 bridge disk3",
        ),
        (GROUPS, "far a b"),
        (TWINS, "his"),
        ("root R - 4.0 acs external\ndisk E root 0.0", "disk"),
        ("root R - 4.0 acs\ndisk E root 0.0", ""),
        ("root R - 4.0 external\nchip U root 0.0\nport D chip 0.0", ""),
        ("disk E - 4.0\nbridge P - 5.0\nother E bridge 1.0", ""),
    ],
)
def test_who_is_not_trusted(text: str, names: str) -> None:
    found = [name for name, each in _read(text).items() if not topology.is_trusted(each)]
    assert found == names.split()


@pytest.mark.parametrize(
    "text, groups",
    [
        (
            CHIP,
            "root / chip / port1 disk1 / port2 dock port3 disk2 / port4 bridge disk3",
        ),
        (
            CHIP.replace(" acs", ""),
            "root chip port1 disk1 port2 dock port3 disk2 port4 bridge disk3",
        ),
        (GROUPS, "port / far a b / c d / near e f"),
        (GROUPS.replace(" acs", ""), "port far a b / c d / near e f"),
        (TWINS, "out in mine his"),
        (TWINS.replace("4.0", "4.0 acs"), "out / in mine / his"),
        (TWINS.replace("4.1", "5.0"), "out his / in mine"),
        (TWINS.replace("4.1", "4.1 acs").replace("4.0", "4.0 acs"), "out / in / mine / his"),
        # Functions of an endpoint below a port with ACS, and of a switch's port
        ("a R - 4.0 acs\nb E a 0.0\nc E a 0.1", "a / b c"),
        ("a R - 4.0\nb E a 0.0\nc E a 0.1", "a b c"),
        ("a R - 4.0 acs\nb U a 0.0\nc D b 0.0\nd D b 0.1\ne E d 0.0", "a / b / c d e"),
        ("a P - 4.0\nb E a 1.0\nc E a 2.0\nd E - 5.0", "a b c / d"),
    ],
)
def test_who_shares_a_group(text: str, groups: str) -> None:
    functions = _read(text)
    names = {each: name for name, each in functions.items()}
    found = topology.groups(list(functions.values()))
    said = [" ".join(sorted(names[each] for each in group)) for group in found]
    wanted = [" ".join(sorted(group.split())) for group in groups.split("/")]
    assert sorted(said) == sorted(wanted)


@pytest.mark.parametrize(
    "text, name, class_",
    [
        (CHIP, "disk1", "required"),
        (CHIP, "disk2", "untrusted"),
        (CHIP, "port2", "untrusted"),  # with the dock since boot
        (CHIP, "chip", "required"),
        (CHIP.replace(" acs", ""), "disk1", "untrusted"),
        (TWINS, "mine", "untrusted"),
        (LATE, "mine", "late-required"),
        (LATE, "his", "late-required"),
        (LATE.replace("4.0", "4.0 acs"), "his", "untrusted"),
        (LATE.replace("4.0", "4.0 acs"), "mine", "required"),
        (LATE.replace(" external", ""), "his", "required"),
        # It is plugged in last, and is trusted: its group is strict since boot
        (TWINS.replace("mine E in 0.0", "mine E in 0.0 late"), "mine", "untrusted"),
    ],
)
def test_classes(text: str, name: str, class_: str) -> None:
    functions = _read(text)
    group = next(
        each for each in topology.groups(list(functions.values())) if functions[name] in each
    )
    assert topology.class_of(group, True) == class_
    assert topology.class_of(group, False) == class_.replace("required", "free")


def test_addresses() -> None:
    functions = _read(CHIP + "low R - 3.1\nother E low 0.0\n")
    found = topology.addresses(list(functions.values()))
    said = {name: found[each][5:] for name, each in functions.items()}
    assert said["low"] == "00:03.1" and said["other"] == "01:00.0"
    assert said["root"] == "00:04.0" and said["chip"] == "02:00.0"
    assert said["port1"] == "03:00.0" and said["disk1"] == "04:00.0"
    assert said["port2"] == "03:01.0" and said["dock"] == "05:00.0"
    assert said["port3"] == "06:00.0" and said["disk2"] == "07:00.0"
    assert said["bridge"] == "08:00.0" and said["disk3"] == "09:01.0"
