# SPDX-License-Identifier: GPL-2.0-only
"""Guests, with a program in the place of QEMU: it answers, hangs, dies, or floods."""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import time
import types
from pathlib import Path

import pytest

from workbench import emulator, guest, machine, packages, paths, process
from workbench.status import CannotTell

# A QEMU that finds its monitor as QEMU does, and then does what follows
FAKE = r"""
import json, socket, sys, time
chardev = sys.argv[sys.argv.index("-chardev") + 1]
end = socket.socket(fileno=int(chardev.rpartition("fd=")[2]))
lines = end.makefile("rw", newline="\n")
def tell(**answer):
    lines.write(json.dumps(answer) + "\n")
    lines.flush()
def hear():
    line = lines.readline()
    return json.loads(line) if line else None
def begin():
    tell(QMP={})
    assert hear()["execute"] == "qmp_capabilities"
    tell(**{"return": {}})
def ask(what):
    print("# host: " + what, flush=True)
def answer():
    return sys.stdin.readline().strip()
"""


def _run(
    tmp_path: Path, body: str, limit: int = 20, **more: object
) -> tuple[guest.Outcome, str]:
    program = tmp_path / "qemu.py"
    program.write_text(FAKE + body)
    log = tmp_path / "a log, with [odd] names: x"
    command = [sys.executable, "-B", str(program)]
    boot = guest.Boot(command, tmp_path, limit, log, **more)  # type: ignore[arg-type]
    outcome = guest.run(boot)
    return outcome, log.read_text(errors="replace")


def test_ends_by_itself(tmp_path: Path) -> None:
    outcome, log = _run(tmp_path, "begin()\nprint('ok 1 all')\n")
    assert outcome == guest.Outcome()
    assert "ok 1 all" in log and log.startswith("command: timeout")


def test_counts_what_is_traced(tmp_path: Path) -> None:
    trace = tmp_path / "trace, of [it]: x"
    trace.write_text("a\nb\nc\n")
    body = f"""begin()
ask("count"); print("first", answer(), flush=True)
open({str(trace)!r}, "a").write("d\\n")
ask("count"); print("then", answer(), flush=True)
"""
    outcome, log = _run(tmp_path, body, trace=trace)
    assert outcome == guest.Outcome()
    assert "first 3\n" in log and "then 4\n" in log


def test_plugs_before_it_answers(tmp_path: Path) -> None:
    body = """begin()
ask("plug 2")
heard = hear()
assert heard["arguments"] == {"command-line": "device_add nvme,bus=a,id=plugged2"}, heard
import select
assert not select.select([sys.stdin], [], [], 0.3)[0], "told to go on too early"
tell(event="DEVICE_SOMETHING")
tell(**{"return": ""})
print("answered", answer(), flush=True)
ask("unplug 2")
heard = hear()
assert heard["execute"] == "device_del" and heard["arguments"] == {"id": "plugged2"}, heard
tell(error={"class": "DeviceNotFound", "desc": "has gone by itself"})
print("answered", answer(), flush=True)
"""
    outcome, log = _run(tmp_path, body, plugs=["edu", "nvme,bus=a"])
    assert outcome == guest.Outcome(), log
    assert log.count("answered 0\n") == 2


def test_a_monitor_that_refuses_is_our_fault(tmp_path: Path) -> None:
    body = """begin()
ask("plug 1")
hear()
tell(**{"return": "Error: Bus 'a' not found\\r\\n"})
time.sleep(60)
"""
    outcome, _ = _run(tmp_path, body, plugs=["nvme,bus=a"])
    assert outcome.fault == "QEMU: device_add: Error: Bus 'a' not found"


@pytest.mark.parametrize("asked", ["sing", "plug", "plug 0", "plug 2", "unplug x"])
def test_an_unknown_question_is_our_fault(tmp_path: Path, asked: str) -> None:
    body = f"begin()\nask('{asked}')\ntime.sleep(60)\n"
    outcome, _ = _run(tmp_path, body, plugs=["edu"])
    assert f"'{asked}'" in outcome.fault


def test_a_guest_that_hangs_is_killed(tmp_path: Path) -> None:
    outcome, log = _run(tmp_path, "begin()\nprint('last', flush=True)\ntime.sleep(60)\n", 1)
    assert outcome.why == "no end within 1 s, killed" and not outcome.fault
    assert "last\n" in log


def test_a_guest_that_closes_its_console_is_killed(tmp_path: Path) -> None:
    outcome, _ = _run(
        tmp_path, "begin()\nimport os\nos.close(1); os.close(2)\ntime.sleep(60)\n", 1
    )
    assert outcome.why == "no end within 1 s, killed"


def test_a_guest_that_floods_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "_FLOOD", 1 << 20)
    outcome, _ = _run(tmp_path, "begin()\nwhile True: print('x' * 1000)\n")
    assert "on its console, killed" in outcome.why


def test_qemu_that_does_not_start(tmp_path: Path) -> None:
    outcome, log = _run(tmp_path, "print('qemu: no such option')\nsys.exit(1)\n")
    assert outcome.fault == "QEMU failed, status 1"
    assert "no such option" in log


def test_qemu_that_dies(tmp_path: Path) -> None:
    outcome, _ = _run(tmp_path, "begin()\nimport os\nos.abort()\n")
    assert outcome.fault.startswith("QEMU failed, status")


def test_a_line_that_does_not_end(tmp_path: Path) -> None:
    _, log = _run(tmp_path, "begin()\nsys.stdout.write('no end')\n")
    assert log.endswith("no end")


def test_what_is_counted_goes_where_it_is_read(tmp_path: Path) -> None:
    """QEMU replaces "%" in the name that it is given."""
    directory = tmp_path / "run"
    directory.mkdir()
    options = guest.trace_options(machine.read("vtd"), guest.trace_file(directory))
    assert options[0] == "-D" and Path(options[1]).is_file() and "%" not in options[1]


def test_an_event_that_qemu_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that stays 0 would pass for lazy."""
    vtd = machine.read("vtd")
    says = "#!/bin/sh\necho vtd_inv_desc_iotlb_domain\necho vtd_inv_desc_iotlb_pages\n"
    paths.write(tmp_path / vtd.arch.qemu[0], says.encode(), 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    emulator.check_events(vtd)
    with pytest.raises(CannotTell, match="has no event 'vtd_inv_dsc"):
        emulator.check_events(dataclasses.replace(vtd, count=("vtd_inv_dsc_iotlb*",)))


def test_a_qemu_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backports have is not used unchecked."""
    program = "qemu-system-x86_64"

    def extract(_: Path, into: Path) -> None:
        paths.write(into / "usr/bin" / program, b"#!/bin/sh\necho QEMU version 9.2\n", 0o755)

    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(packages.Archive, "__init__", lambda *_: None)
    monkeypatch.setattr(packages.Archive, "download", lambda *_: [tmp_path / "deb"])
    monkeypatch.setattr(packages, "extract", extract)
    with pytest.raises(CannotTell, match="99 is needed; the backports have QEMU version 9.2"):
        emulator.prepare(program, 99, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(emulator, "_version", lambda words: "QEMU version 7.2")
    with pytest.raises(CannotTell, match="qemu-system-s390x 99 is needed, and here is QEMU"):
        emulator.prepare("qemu-system-s390x", 99, tmp_path)


def test_the_qemu_of_the_system_once_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "qemu-system-x86_64"
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    own = tmp_path / f"newer-{name}/usr/bin" / name
    paths.write(own, b"#!/bin/sh\necho QEMU version 10.0\n", 0o755)
    system = tmp_path / "bin" / name
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for version, wanted in (("7.2", str(own)), ("10.1", name)):
        paths.write(system, f"#!/bin/sh\necho QEMU version {version}\n".encode(), 0o755)
        assert emulator.command(name, 10)[0] == wanted
        emulator.prepare(name, 10, tmp_path)
    assert emulator._is_unpacked(name, 10)
    own.unlink()
    assert not emulator._is_unpacked(name, 10)


def test_a_program_that_hangs() -> None:
    with pytest.raises(process.Failed, match="sleep has not ended in 0.1 s"):
        process.output(["sleep", "60"], timeout=0.1)


def test_user_mode_linux_that_cannot_be_run(tmp_path: Path) -> None:
    boot = guest.Boot(["/no/such/linux"], tmp_path, 5, tmp_path / "log", monitor=False)
    assert guest.run(boot).fault == "it failed, status 127"


def test_interrupts_are_remapped_with_kvm_too() -> None:
    """QEMU: "info qtree" says "intremap = off" of VT-d with -accel kvm alone."""
    arch = machine.read("vtd").arch
    assert guest.qemu(arch, "kvm")[-1] == "kvm,kernel-irqchip=split"
    assert guest.qemu(arch, "tcg")[-1] == "tcg"


def test_options() -> None:
    vtd = machine.read("vtd")
    assert "-trace" in guest.trace_options(vtd, Path("x"))
    assert guest.trace_options(machine.read("zpci"), Path("x")) == []
    assert guest.trace_options(machine.read("virtio-iommu"), Path("x")) == []
    line = guest.kernel_options(vtd.arch, Path("k"), Path("i"), ["iommu.strict=0"])
    assert line[-1] == "console=ttyS0 panic=-1 no_timer_check iommu.strict=0"


def test_wakes_a_guest_that_sleeps_and_has_asked(tmp_path: Path) -> None:
    body = """begin()
ask("wake")
print("answered", answer(), flush=True)
import select
assert not select.select([end], [], [], 0.3)[0], "woken too early"
tell(event="STOP")
tell(event="SUSPEND")
assert hear()["execute"] == "system_wakeup"
tell(**{"return": {}})
tell(event="SUSPEND")
assert not select.select([end], [], [], 0.3)[0], "woken without having asked"
print("awake", flush=True)
"""
    outcome, log = _run(tmp_path, body)
    assert outcome == guest.Outcome(), log
    assert "answered 0\n" in log and "awake\n" in log


# Resets after one line, and after two; then it is left alone
RESETS = """
def expect(command, **arguments):
    heard = hear()
    assert (heard["execute"], heard["arguments"]) == (command, arguments), heard
    tell(**{"return": {}})
def reset(guest):
    tell(event="RESET", data={"guest": guest})
begin()
expect("set-action", reboot="reset")
print("first", flush=True)
expect("system_reset")
print("late", flush=True)
reset(False); reset(True)
time.sleep(0.3)
print("second", flush=True)
"""


def test_resets_a_guest(tmp_path: Path) -> None:
    body = """
print("second line", flush=True)
expect("system_reset")
reset(False); reset(True)
time.sleep(0.3)
print("third", flush=True)
expect("set-action", reboot="shutdown")
"""
    outcome, log = _run(tmp_path, RESETS + body, resets=[1, 2])
    assert outcome == guest.Outcome(), log
    parts = log.split(f"\n{guest.RESET}\n")
    assert [part.split()[-1] for part in parts] == ["late", "line", "third"]


def test_a_guest_that_dies_while_it_is_reset() -> None:
    reads, writes = os.pipe()
    os.write(writes, b"first\n")
    os.close(writes)
    child = types.SimpleNamespace(stdout=os.fdopen(reads, "rb"), stdin=io.BytesIO())
    host = types.SimpleNamespace(monitor=None, reset=lambda lines: True)
    console = guest._Console(io.BytesIO(), show=False)
    deadline = time.monotonic() + 5
    assert guest._converse(child, console, host, deadline) == ""  # type: ignore[arg-type]
    child.stdout.close()


def test_a_guest_that_restarts_between_resets_is_wrong(tmp_path: Path) -> None:
    body = "time.sleep(0.3)\nreset(True)\ntime.sleep(0.3)\n"
    outcome, _ = _run(tmp_path, RESETS + body, resets=[1, 2])
    assert outcome.why == "it has restarted by itself"
