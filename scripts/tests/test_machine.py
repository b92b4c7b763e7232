# SPDX-License-Identifier: GPL-2.0-only
"""Data files: what is wrong in them is an error that names file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workbench import machine, measures, mutate, parameters
from workbench.status import CannotTell

VTD = "about a\narch x86_64\ndevice 0000:00:02.0 free virtio-blk\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the machines of this repository."""
    copy = tmp_path / "machine"
    shutil.copytree(machine.MACHINES, copy)
    return copy


def test_all_of_ours() -> None:
    machines = machine.read_all()
    assert len(machines) == 30
    assert machines["vtd-nopt-external"].bounced == ("0000:01:00.0",)
    tables = {name: [one.table for one in each.external] for name, each in machines.items()}
    assert tables["vtd-nopt-external"] == ["external-S20.aml"]
    assert tables["vtd-nopt-usb4"] == ["usb4-S20.aml"] and not tables["vtd"]
    assert machines["smmuv3"].count == ("smmuv3_*range_inval", "smmuv3_cmdq_tlbi*")
    assert parameters.read()["vtd"][-1][0].strict == "off"
    assert {row.kind for row in measures.read()} <= set(measures.KINDS)
    assert mutate.read()["stock"].is_reversed


@pytest.mark.parametrize(
    "line, says",
    [
        ("cont x", "'cont': must be one of"),  # it made a skip of a check once
        ("device 0000:00:03.0 fre nvme", "'fre': must be one of: free required"),
        ("device 0000:00:03.0 free floppy", "'floppy': must be one of"),
        ("device 00:03.0 free nvme", "'00:03.0': must be a PCI device"),
        ("device 0000:00:03.0 free", "must be ADDRESS CLASS KIND"),
        ("writes 0000:00:09.0", "'0000:00:09.0': is no device"),
        ("bounced 0000:00:09.0", "is no device"),
        ("plug 0000:00:02.0", "what device_add is told"),
        ("probe no", "must be yes"),
        ("strict", "'strict' has no value"),
        ("arch arm64", "'arch' comes a second time"),
        ("writes 0000:00:02.0 0000:00:03.0", "must be one device"),
        ("bounced 0000:00:02.0 junk", "must be one device"),
        ("device 0000:00:02.0 free nvme", "'0000:00:02.0' comes a second time"),
        ("external 4", "'4': must be a PCI device"),
        ("external 0000:01:00.0", "must be a root port"),
        ("external 0000:00:04.1", "must be a root port, function 0"),
        ("external 0000:00:04.0 usb5", "'usb5': must be one of: external usb4"),
        ("group 0000:00:02.0 0000:00:02.0", "'0000:00:02.0' comes a second time"),
        ("group 0000:00:02.0 5", "'5': must be a PCI device"),
        ("append a='", "no closing quotation"),
        ("attack 0000:00:05.0 free", "must be ADDRESS CLASS edu,OPTIONS"),
        ("attack 0000:00:05.0 fre edu,addr=5", "'fre': must be one of: free"),
        ("attack 00:05.0 free edu,addr=5", "'00:05.0': must be a PCI device"),
        ("attack 0000:00:05.0 free nvme,addr=5", "must be ADDRESS CLASS edu,OPTIONS"),
    ],
)
def test_a_wrong_line_is_named(directory: Path, line: str, says: str) -> None:
    (directory / "wrong").write_text(VTD + line + "\n")
    with pytest.raises(CannotTell) as raised:
        machine.read("wrong", directory)
    assert f"{directory}/wrong:4: " in str(raised.value)
    assert says in str(raised.value)


def test_a_machine_elsewhere(tmp_path: Path) -> None:
    more = "device 0000:01:00.0 free virtio-blk\ndevice 0000:02:00.0 free virtio-blk\n"
    more += "plug 0000:02:00.0 a,b\nplug 0000:01:00.0 c\nbounced 0000:01:00.0\n"
    more += "bounced 0000:02:00.0\ngroup 0000:00:1c.0 0000:01:00.0\nexternal 0000:00:1c.0\n"
    (tmp_path / "mine").write_text(VTD + more)
    mine = machine.read_file(tmp_path / "mine")
    assert mine.name == "mine"
    assert mine.plugs == (("0000:02:00.0", "a,b"), ("0000:01:00.0", "c"))
    assert mine.bounced == ("0000:01:00.0", "0000:02:00.0")
    assert mine.groups == (("0000:00:1c.0", "0000:01:00.0"),)
    assert [each.table for each in mine.external] == ["external-SE0.aml"]
    with pytest.raises(CannotTell, match="yours': no such file"):
        machine.read_file(tmp_path / "yours")


def test_one_group_has_one_class(directory: Path) -> None:
    more = "device 0000:01:00.0 required nvme\ngroup 0000:00:02.0 0000:01:00.0\n"
    (directory / "wrong").write_text(VTD + more)
    with pytest.raises(CannotTell, match="wrong:5: .*must be devices of one class"):
        machine.read("wrong", directory)


def test_what_a_machine_needs_is_in_mainline(stock: Path) -> None:
    """If not, the name may be wrong, and then the machine would be left out everywhere."""
    needed = {each.needs for each in machine.read_all().values()} - {""}
    assert needed and all((stock / path).is_file() for path in needed)


@pytest.mark.parametrize(
    "line, says",
    [
        ("emulator x", "emulator"),
        ("emulator 1.5", "emulator"),
        ("qemu 'x", "quotation"),
        ("machine x", "must be one of"),
    ],
)
def test_a_wrong_line_of_an_architecture_is_named(
    directory: Path, line: str, says: str
) -> None:
    with open(directory / "x86_64.arch", "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    number = len((directory / "x86_64.arch").read_text().splitlines())
    with pytest.raises(CannotTell, match=rf"x86_64.arch:{number}: .*{says}"):
        machine.read("vtd", directory)


@pytest.mark.parametrize("lost", ["about", "arch", "device"])
def test_a_missing_key_is_named(directory: Path, lost: str) -> None:
    lines = [line for line in VTD.splitlines() if not line.startswith(lost)]
    (directory / "wrong").write_text("\n".join(lines))
    with pytest.raises(CannotTell, match=f"wrong: '{lost}' is missing"):
        machine.read("wrong", directory)


def test_an_architecture_that_qemu_does_not_emulate(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(VTD.replace("x86_64", "um"))
    with pytest.raises(CannotTell, match="arch 'um': QEMU does not emulate it"):
        machine.read_file(tmp_path / "mine")


def test_an_unknown_architecture(directory: Path) -> None:
    (directory / "wrong").write_text(VTD.replace("x86_64", "vax"))
    with pytest.raises(CannotTell, match="'vax': must be one of: arm64"):
        machine.read("wrong", directory)


@pytest.mark.parametrize(
    "line, says",
    [
        ("vtdd 1 unset a", "'vtdd': must be one of"),
        ("vtd 2 unset a", "'2': must be one of: unset 0 1 off"),
        ("vtd 1 2 a", "'2': must be one of: unset 0 1"),
        ("vtd 1 unset", "must be MACHINES STRICT"),
    ],
)
def test_parameters(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "parameters"
    file.write_text(f"# a comment\n{line}\n")
    with pytest.raises(CannotTell) as raised:
        parameters.read(file)
    assert f"{file}:2: " in str(raised.value) and says in str(raised.value)


@pytest.mark.parametrize(
    "line, says",
    [
        ("call vtd choose", "'call': must be one of: calls memory load"),
        ("calls vtdd choose", "'vtdd': must be one of"),
        ("calls vtd", "must be calls or memory or load, MACHINE and words"),
        ("calls vtd map=0,sg", "'map=0,sg': must be choose, or as map=16,sg is"),
        ("calls vtd map=1,sg,1", "'map=1,sg,1': must be choose, or as map=16,sg is"),
        ("memory vtd 1,4", "must be memory MACHINE CPUS PORTS"),
        ("memory vtd 1,x 2", "must be memory MACHINE CPUS PORTS"),
        ("load vtd nosuch", "'nosuch': must be one of: nvme-1"),
        ("calls vtd choosefoo", "'choosefoo': must be choose"),
    ],
)
def test_measures(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "measures"
    file.write_text(line)
    with pytest.raises(CannotTell) as raised:
        measures.read(file)
    assert f"{file}:1: " in str(raised.value) and says in str(raised.value)


@pytest.mark.parametrize("head", ["mutant a", "mutant a vax: b", "mutant stock um: b"])
def test_mutants(tmp_path: Path, head: str) -> None:
    file = tmp_path / "mutants"
    file.write_text(f"# a comment\n\n{head}\n--- a/x\n")
    with pytest.raises(CannotTell) as raised:
        mutate.read(file)
    assert f"{file}:3: " in str(raised.value)
