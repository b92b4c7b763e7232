# SPDX-License-Identifier: GPL-2.0-only
"""Jobs for LAVA: which results they find on a console, and what they hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Sequence

import pytest

from workbench import emulator, job, lava, machine, paths, process
from workbench.status import CannotTell

CONSOLE = """\
[    0.1] ok 1 nobody says so
TAP version 13
1..5
    TAP version 13
    1..1
    not ok 1 0000:00:02.0=DMA
    # Totals: pass:0 fail:1
not ok 1 types as told
ok 2 - types as derived, and ok
# ok 9 a note
ok 3 0000:00:03.0 invalidates # SKIP nobody counts, not ok
not ok 4 disk is read # SKIP
ok 5 kernel log
oks 6 nothing
# Totals: pass:2 fail:2 skip:1
"""
RESULTS = [
    ("fail", "types as told"),
    ("pass", "types as derived, and ok"),
    ("skip", "0000:00:03.0 invalidates"),
    ("fail", "disk is read"),
    ("pass", "kernel log"),
]


def _monitors(name: str) -> "list[dict[str, str]]":
    its = lava.job(machine.read(name), lava.Directory(Path(), "file:///x"), "patched-x86_64")
    return [action["test"]["monitors"][0] for action in its["actions"] if "test" in action]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_results_are_ktaps_and_nothing_else(end: str) -> None:
    """As LAVA looks for them, in what follows the start, until the end."""
    monitor = _monitors("vtd-nopt")[0]
    assert isinstance(monitor["fixupdict"], dict)
    said = CONSOLE.replace("\n", end)
    said = said[said.index(monitor["start"]) + len(monitor["start"]) :]
    found = []
    while True:
        ended = re.search(monitor["end"], said, re.S)
        match = re.search(monitor["pattern"], said, re.S)
        assert ended
        if not match or ended.start() < match.start():
            break
        found.append((monitor["fixupdict"][match["result"]], match["test_case_id"]))
        said = said[match.end() :]
    assert found == RESULTS


def test_a_line_counts_when_it_is_whole() -> None:
    pattern = _monitors("vtd")[0]["pattern"]
    assert not re.search(pattern, "ok 3 0000:00:03.0 inval", re.S)


def test_a_machine_boots_with_each_setting() -> None:
    assert [each["name"] for each in _monitors("vtd")] == ["strict-0", "strict-1"]
    for each in machine.read_all().values():
        if lava.is_for(each):
            where = lava.Directory(Path(), "https://lab")
            text = str(lava.job(each, where, "patched"))
            assert text.count("https://lab/patched'") == 2 and "'no_kvm': True" in text
            assert "iommu.strict=0" in text and "iommu.strict=1" in text
            boots = lava.device(each)["actions"]["boot"]["methods"]["qemu"]
            words = shlex.split(" ".join(boots["parameters"]["extra"]))
            assert set(each.qemu) <= set(words) and "-m" not in words


def test_a_newer_qemu_has_its_own_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "command", lambda *_: ["/new/qemu", "-L", "/new/share"])
    boots = lava.device(machine.read("vtd-flts"))["actions"]["boot"]["methods"]["qemu"]
    assert boots["parameters"]["command"] == "/new/qemu"
    assert boots["parameters"]["options"][0] == "-L /new/share"


# The kernel's command line, what the selftest prints, its status, and what is told to LAVA
BOARDS = (
    (
        "iommu.strict=1",
        "1..1\nok 1 a b",
        0,
        ["iommu_strict_1 pass", "selftest_ends pass", "a_b pass"],
    ),
    (
        "iommu.strict=0",
        "1..1\nok 1 a",
        0,
        ["iommu_strict_1 fail", "selftest_ends pass", "a pass"],
    ),
    (
        "iommu.strict=1",
        "1..5\nok 1 a\nBail out!",
        1,
        ["iommu_strict_1 pass", "selftest_ends fail", "a pass"],
    ),
    (
        "iommu.strict=1",
        "1..1\nnot ok 1 a",
        1,
        ["iommu_strict_1 pass", "selftest_ends fail", "a fail"],
    ),
    (
        "iommu.strict=1",
        "1..1\nok 1 a # SKIP no",
        4,
        ["iommu_strict_1 pass", "selftest_ends skip", "a skip"],
    ),
    (
        "iommu.strict=1",
        "",
        127,
        ["iommu_strict_1 pass", "selftest_ends fail", "reported fail"],
    ),
)


@pytest.mark.parametrize("line, report, status, told", BOARDS)
def test_what_a_board_tells(
    line: str, report: str, status: int, told: Sequence[str], tmp_path: Path
) -> None:
    paths.write(tmp_path / "cmdline", f"root=/dev/nfs {line}\n".encode())
    paths.write(tmp_path / "said", f"{report}\n".encode())
    said = "#!/bin/sh\ncat '%s'\nexit %d\n" % (tmp_path / "said", status)
    paths.write(tmp_path / "selftest", said.encode(), 0o755)
    paths.write(tmp_path / "lava-test-case", b'#!/bin/sh\necho "told $1 $3"\n', 0o755)
    text = lava.BOARD_TEST.replace("STRICT", "1").replace("/proc/", f"{tmp_path}/")
    text = text.replace("/tmp/re", f"{tmp_path}/re").replace(
        "SELFTEST", f"{tmp_path}/selftest"
    )
    out = process.output(["sh", "-ec", f"PATH='{tmp_path}':$PATH\n{text}"])
    assert re.findall("^told (.*)$", out, re.M) == told


def test_who_needs_a_host_is_left_out() -> None:
    with pytest.raises(CannotTell, match="'vtd-late': a host has to plug a device in"):
        lava._choose(["vtd-late"])
    with pytest.raises(CannotTell, match="'nosuch'"):
        lava._choose(["nosuch"])
    names = [each.name for each in lava._choose([])]
    assert "vtd-nopt-external" in names and "vtd-late" not in names
    told = job.told(
        job.Job(lava.left_alone(machine.read("vtd-nopt-external")), "patched", lava._way("0")),
        0,
    )
    assert not [line for line in told if line.startswith(("plug=", "count=", "replug="))]
