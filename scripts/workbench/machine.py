# SPDX-License-Identifier: GPL-2.0-only
"""The emulated machines: the files in scripts/machine/, every key of which is checked.

A line is a key and a value; a key that comes again adds to its value, where that makes
sense. NAME.arch is what the machines of one architecture share. What a key means is in
scripts/README.md.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from workbench import paths, policy
from workbench.status import CannotTell

MACHINES = paths.SCRIPTS / "machine"

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
KINDS = ("virtio-blk", "nvme", "edu")

_MACHINE_KEYS = (
    *("about", "arch", "qemu", "append", "probe", "warns", "count", "bounced", "plug"),
    *("device", "writes", "strict", "needs", "attack", "emulator", "external", "group"),
    "rescan",
)
_ARCH_KEYS = (
    *("image", "target", "console", "qemu", "disks", "nvme", "append", "skips"),
    "emulator",
)
_ONCE = (
    "arch",
    "probe",
    "warns",
    "strict",
    "image",
    "target",
    "console",
    "needs",
    "attack",
    "emulator",
    "rescan",
)


@dataclass(frozen=True)
class Device:
    """A PCI device of a machine that is judged.

    address: its name in sysfs.
    kind: what it is, one of KINDS.
    policy: the class of device, which decides its default domain.
    """

    address: str
    kind: str
    policy: policy.Class

    @property
    def is_disk(self) -> bool:
        """Whether it is read."""
        return self.kind != "edu"


@dataclass(frozen=True)
class Attacker:
    """A device that attacks, and what QEMU is told to have it."""

    device: Device
    options: str

    @property
    def bus(self) -> str:
        """What its options say of where it is, which it then has for itself; or ""."""
        words = self.options.split(",")
        return next((word for word in words if word.startswith("bus=")), "")


@dataclass(frozen=True)
class External:
    """A root port that is marked as external-facing. kind: how, scripts/machine/KIND.asl."""

    port: str
    kind: str = "external"

    @property
    def acpi_name(self) -> str:
        """What QEMU's own ACPI tables call it: "S20" if it is 0000:00:04.0."""
        slot, function = self.port.rpartition(":")[2].split(".")
        return f"S{int(slot, 16) << 3 | int(function):02X}"

    @property
    def table(self) -> str:
        """The file of the ACPI table that marks it."""
        return f"{self.kind}-{self.acpi_name}.aml"


@dataclass(frozen=True)
class Arch:
    """What the machines of one architecture share, see scripts/README.md."""

    name: str
    image: str
    target: str
    console: str
    qemu: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    nvme: tuple[str, ...] = ()
    append: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    emulator: int = 0


@dataclass(frozen=True)
class Machine:
    """An emulated computer with its IOMMU, see scripts/README.md."""

    name: str
    about: str
    arch: Arch
    qemu: tuple[str, ...]
    append: tuple[str, ...]
    devices: tuple[Device, ...]
    count: tuple[str, ...]
    writes: tuple[str, ...]
    bounced: tuple[str, ...]
    plugs: tuple[tuple[str, str], ...]
    probe: bool
    warns: bool
    strict: bool
    needs: str
    attacker: Optional[Attacker] = None
    emulator: int = 0
    external: tuple[External, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    rescan: str = ""

    def device(self, address: str) -> Device:
        """Return one of its devices."""
        return next(device for device in self.devices if device.address == address)


class _Lines:
    """A file of keys and values, checked as it is read."""

    def __init__(self, file: Path, keys: Sequence[str]) -> None:
        self.file = file
        self.values: dict[str, list[tuple[int, str]]] = {}
        for number, line in enumerate(file.read_text().splitlines(), 1):
            key, _, value = line.strip().partition(" ")
            if not key or key.startswith("#"):
                continue
            if key not in keys:
                self.refuse(number, f"'{key}': must be one of: {' '.join(keys)}")
            if not value.strip():
                self.refuse(number, f"'{key}' has no value")
            if key in _ONCE and key in self.values:
                self.refuse(number, f"'{key}' comes a second time")
            self.values.setdefault(key, []).append((number, value.strip()))

    def refuse(self, number: int, why: str) -> None:
        """Raise CannotTell of a line."""
        raise CannotTell(f"{self.file}:{number}: {why}")

    def text(self, key: str) -> str:
        """Return the value of a key, "" if it is not there."""
        return " ".join(value for _, value in self.values.get(key, []))

    def need(self, key: str) -> str:
        """Return the value of a key that has to be there."""
        if key not in self.values:
            raise CannotTell(f"{self.file}: '{key}' is missing")
        return self.text(key)

    def words(self, key: str) -> tuple[str, ...]:
        """Return the words of a key's value, quoted as for a shell."""
        words: list[str] = []
        for number, value in self.values.get(key, []):
            try:
                words += shlex.split(value)
            except ValueError as error:
                self.refuse(number, f"'{value}': {str(error).lower()}")
        return tuple(words)

    def yes(self, key: str) -> bool:
        """Return whether a key is there, whose only value is "yes"."""
        for number, value in self.values.get(key, []):
            if value != "yes":
                self.refuse(number, f"'{key} {value}': must be yes, or not be there")
        return key in self.values

    def number(self, key: str) -> int:
        """Return the value of a key that is a number, 0 if it is not there."""
        for number, value in self.values.get(key, []):
            if not value.isdigit():
                self.refuse(number, f"'{key} {value}': must be a number")
            return int(value)
        return 0

    def address(self, number: int, word: str) -> str:
        """Return a word if it is the address of a PCI device."""
        if not is_address(word):
            self.refuse(number, f"'{word}': must be a PCI device, as in 0000:00:02.0")
        return word


def _class(lines: _Lines, number: int, word: str) -> policy.Class:
    if word not in policy.CLASSES:
        lines.refuse(number, f"'{word}': must be one of: {' '.join(policy.CLASSES)}")
    return policy.CLASSES[word]


def is_address(word: str) -> bool:
    """Return whether a word is the name of a PCI device, as in 0000:00:02.0."""
    return bool(_ADDRESS.match(word))


def _devices(lines: _Lines) -> list[Device]:
    devices: list[Device] = []
    for number, value in lines.values.get("device", []):
        words = value.split()
        if len(words) != 3:
            lines.refuse(number, f"'{value}': must be ADDRESS CLASS KIND")
        address = lines.address(number, words[0])
        if address in [device.address for device in devices]:
            lines.refuse(number, f"'{address}' comes a second time")
        class_ = _class(lines, number, words[1])
        if words[2] not in KINDS:
            lines.refuse(number, f"'{words[2]}': must be one of: {' '.join(KINDS)}")
        devices.append(Device(address, words[2], class_))
    if not devices:
        raise CannotTell(f"{lines.file}: 'device' is missing")
    return devices


def _known(lines: _Lines, key: str, devices: Sequence[Device]) -> list[str]:
    """Return the devices that a key names, which have to be there."""
    named: list[str] = []
    for number, value in lines.values.get(key, []):
        words = value.split()
        if key != "plug" and len(words) != 1:
            lines.refuse(number, f"'{value}': must be one device")
        address = lines.address(number, words[0])
        if address in named:
            lines.refuse(number, f"'{address}' comes a second time")
        if address not in [device.address for device in devices]:
            lines.refuse(number, f"'{address}': is no device of this machine")
        named.append(address)
    return named


def _plugs(lines: _Lines, devices: Sequence[Device]) -> Iterator[tuple[str, str]]:
    named = _known(lines, "plug", devices)
    for address, (number, value) in zip(named, lines.values.get("plug", [])):
        words = value.split(None, 1)
        if len(words) != 2:
            lines.refuse(number, f"'{value}': must be ADDRESS and what device_add is told")
        yield address, words[1]


def _external(lines: _Lines) -> Iterator[External]:
    kinds = sorted(path.stem for path in MACHINES.glob("*.asl"))
    for number, value in lines.values.get("external", []):
        port, _, kind = value.partition(" ")
        if not re.fullmatch(r"0000:00:[01].\.0", lines.address(number, port)):
            lines.refuse(
                number, f"'{port}': must be a root port, function 0, as in 0000:00:04.0"
            )
        if kind and kind not in kinds:
            lines.refuse(number, f"'{kind}': must be one of: {' '.join(kinds)}")
        yield External(port, kind or "external")


def _groups(lines: _Lines, devices: Sequence[Device]) -> list[tuple[str, ...]]:
    """Return who shares a group; devices that do have to be of one class."""
    classes = {device.address: device.policy for device in devices}
    groups: list[tuple[str, ...]] = []
    for number, value in lines.values.get("group", []):
        words = tuple(lines.address(number, word) for word in value.split())
        for word in words:
            if words.count(word) > 1 or any(word in group for group in groups):
                lines.refuse(number, f"'{word}' comes a second time")
        if len({classes[word] for word in words if word in classes}) > 1:
            lines.refuse(number, f"'{value}': must be devices of one class")
        groups.append(words)
    return groups


def _rescan(lines: _Lines) -> str:
    for number, value in lines.values.get("rescan", []):
        return lines.address(number, value)
    return ""


def _attacker(lines: _Lines) -> Optional[Attacker]:
    for number, value in lines.values.get("attack", []):
        words = value.split()
        if len(words) != 3 or not words[2].startswith("edu,"):
            lines.refuse(number, f"'{value}': must be ADDRESS CLASS edu,OPTIONS")
        address = lines.address(number, words[0])
        device = Device(address, "edu", _class(lines, number, words[1]))
        return Attacker(device, words[2])
    return None


def arch(name: str, directory: Path = MACHINES) -> Arch:
    """Return an architecture; raise CannotTell if there is none of this name."""
    file = directory / f"{name}.arch"
    if not file.is_file():
        known = " ".join(sorted(path.stem for path in directory.glob("*.arch")))
        raise CannotTell(f"architecture '{name}': must be one of: {known}")
    lines = _Lines(file, _ARCH_KEYS)
    return Arch(
        name=name,
        image=lines.need("image"),
        target=lines.need("target"),
        console=lines.need("console"),
        qemu=lines.words("qemu"),
        disks=lines.words("disks"),
        nvme=lines.words("nvme"),
        append=lines.words("append"),
        skips=lines.words("skips"),
        emulator=lines.number("emulator"),
    )


def read(name: str, directory: Path = MACHINES) -> Machine:
    """Return a machine; raise CannotTell if its file is not there, or wrong."""
    return read_file(directory / name, directory)


def read_file(file: Path, directory: Path = MACHINES) -> Machine:
    """Return the machine of a file, wherever that is. directory: of the architectures."""
    if not file.is_file():
        raise CannotTell(f"machine '{file}': no such file")
    lines = _Lines(file, _MACHINE_KEYS)
    devices = _devices(lines)
    its_arch = arch(lines.need("arch"), directory)
    if not its_arch.qemu:
        raise CannotTell(f"{file}: arch '{its_arch.name}': QEMU does not emulate it")
    return Machine(
        name=file.name,
        about=lines.need("about"),
        arch=its_arch,
        qemu=lines.words("qemu"),
        append=lines.words("append"),
        devices=tuple(devices),
        count=lines.words("count"),
        writes=tuple(_known(lines, "writes", devices)),
        bounced=tuple(_known(lines, "bounced", devices)),
        plugs=tuple(_plugs(lines, devices)),
        probe=lines.yes("probe"),
        warns=lines.yes("warns"),
        strict=lines.yes("strict"),
        needs=lines.text("needs"),
        attacker=_attacker(lines),
        emulator=lines.number("emulator") or its_arch.emulator,
        external=tuple(_external(lines)),
        groups=tuple(_groups(lines, devices)),
        rescan=_rescan(lines),
    )


def names(directory: Path = MACHINES) -> list[str]:
    """Return the names of all machines."""
    return sorted(path.name for path in directory.iterdir() if not path.suffix)


def read_all(directory: Path = MACHINES) -> Mapping[str, Machine]:
    """Return all machines by their names."""
    return {name: read(name, directory) for name in names(directory)}
