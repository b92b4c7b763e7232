# SPDX-License-Identifier: GPL-2.0-only
"""The ACPI table by which the firmware asks the system to use VT-d.

It is QEMU's table of DMA remapping units, newer, and with one flag more. The kernel takes it
in place of QEMU's. iasl cannot be asked: each version wants another text for such a table.
The layout is that of include/acpi/actbl1.h in the kernel's source.
"""

from __future__ import annotations

import struct

_HEADER = "<4sIBB6s8sI4sI"  # signature, length, revision, checksum, who has made it, and when
_CHECKSUM = 9  # where that is
_INTREMAP, _OPT_IN = 1, 4  # flags
_UNIT = 0  # a kind of what follows: a remapping unit
_ALL_DEVICES = 1  # a flag of that: it is there for all devices
_QEMU = (b"BOCHS ", b"BXPC    ")
_NEWER = 2  # QEMU's own is revision 1
_ADDRESS = 0xFED90000  # of the registers
_IOAPIC, _IOAPIC_BUS = 3, 0xFF
_ADDRESS_BITS = 39


def opting_in() -> bytes:
    """Return the table."""
    scope = struct.pack("<BBHBB2B", _IOAPIC, 8, 0, 0, _IOAPIC_BUS, 0, 0)
    unit = struct.pack("<HHBBHQ", _UNIT, 16 + len(scope), _ALL_DEVICES, 0, 0, _ADDRESS) + scope
    body = struct.pack("<BB10x", _ADDRESS_BITS - 1, _INTREMAP | _OPT_IN) + unit
    size = struct.calcsize(_HEADER) + len(body)
    head = struct.pack(_HEADER, b"DMAR", size, 1, 0, *_QEMU, _NEWER, b"TEST", 1)
    table = bytearray(head + body)
    table[_CHECKSUM] = -sum(table) % 256
    return bytes(table)
