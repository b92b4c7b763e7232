# SPDX-License-Identifier: GPL-2.0-only
"""A guest: starting it, answering what it asks for on its console, and its end."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Mapping, Optional, Sequence

from workbench import emulator, process
from workbench.machine import Arch, Machine

ASKS = b"# host: "
RESET = "the host has reset it"  # a line in the log; what precedes it is no longer judged
_FLOOD = 64 << 20  # bytes: more than any guest has to say
_GRACE = 10  # seconds for timeout(1) to end a guest, before we do
_MONITOR = 20.0  # seconds until QEMU has to have answered
DISKS = 6
_NOT_RUN = (125, 126, 127)  # what timeout(1) ends with if it cannot run a program


@dataclass
class Outcome:
    """How a guest has ended.

    why: what was wrong with its end, "" if nothing was.
    fault: what kept it from being run at all, "" if nothing did: no verdict on it.
    """

    why: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Boot:
    """A guest to run.

    command: of QEMU, or of User Mode Linux.
    directory: where it runs.
    limit: seconds until it counts as hung.
    log: the file for its console; what else it needs is beside it.
    trace: the file in which QEMU counts what a guest asks to be counted, a line each.
    plugs: what QEMU's device_add is told when the guest asks to have the first device plugged
    in, the second and so on.
    resets: after how many lines on the console it is reset, each time it boots; then it is
    left alone.
    monitor: whether it is QEMU, which has one.
    """

    command: Sequence[str]
    directory: Path
    limit: int
    log: Path
    trace: Optional[Path] = None
    plugs: Sequence[str] = ()
    monitor: bool = True
    resets: Sequence[int] = ()


# With its whole interrupt controller in KVM, QEMU's VT-d would not remap interrupts
_ACCELS = {("kvm", "x86_64"): "kvm,kernel-irqchip=split"}


def qemu(arch: Arch, accel: str, major: int = 0) -> list[str]:
    """Return how QEMU is called for every machine of an architecture.

    major: the version that is needed at least, if not for the architecture's sake.
    """
    plain = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    return [
        *emulator.command(arch.qemu[0], major or arch.emulator),
        *arch.qemu[1:],
        *plain,
        "-serial",
        "stdio",
        "-accel",
        _ACCELS.get((accel, arch.name), accel),
    ]


def machine_options(machine: Machine, nvme: bool = True) -> list[str]:
    """Return QEMU's options for a machine's IOMMU and devices."""
    options = [*machine.qemu, *machine.arch.disks, *(machine.arch.nvme if nvme else ())]
    for port in machine.external:
        options += ["-acpitable", f"file={port.table}"]
    for number in range(DISKS):
        options += ["-blockdev", disk(f"disk{number}")]
    return options


def disk(name: str) -> str:
    """Return the value of -blockdev for a disk with the records that a guest checks."""
    return f"raw,node-name={name},read-only=on,file.driver=file,file.filename=disk.img"


def trace_file(directory: Path) -> Path:
    """Make the file for what QEMU counts. Its name has no "%", which -D would replace."""
    file, name = tempfile.mkstemp(".trace", dir=directory)
    os.close(file)
    return Path(name)


def trace_options(machine: Machine, trace: Path) -> list[str]:
    """Return the options that have QEMU write a line for each invalidation."""
    if not machine.count or machine.count == ("kernel",):
        return []
    options = ["-D", str(trace)]
    for event in machine.count:
        options += ["-trace", event]
    return options


def command_line(arch: Arch, words: Sequence[str]) -> str:
    """Return the kernel's command line, with words of a machine's and others."""
    return " ".join([f"console={arch.console}", "panic=-1", *arch.append, *words])


def kernel_options(arch: Arch, image: Path, initrd: Path, words: Sequence[str]) -> list[str]:
    """Return the options for what boots, with words for the kernel's command line."""
    line = command_line(arch, words)
    return ["-kernel", str(image), "-initrd", str(initrd), "-append", line]


class MonitorError(Exception):
    """QEMU has refused a command. The first argument is the class of the error."""


class Monitor:
    """QEMU's monitor, spoken to by QMP over a socket."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(_MONITOR)
        self.socket = end
        self.buffer = b""
        self.events: list[Mapping[str, Any]] = []

    def receive(self) -> bool:
        """Wait for something, and take it; return whether QEMU is still there."""
        said = self.socket.recv(1 << 16)
        self.buffer += said
        return bool(said)

    def hear(self) -> Iterator[Mapping[str, Any]]:
        """Yield the events that QEMU has told of until now, each once."""
        while b"\n" in self.buffer:
            self._read()
        while self.events:
            yield self.events.pop(0)

    def _read(self) -> Mapping[str, Any]:
        while b"\n" not in self.buffer:
            if not self.receive():
                raise MonitorError("Closed", "QEMU has closed its monitor")
        line, _, self.buffer = self.buffer.partition(b"\n")
        answer: Mapping[str, Any] = json.loads(line)
        if "event" in answer:
            self.events.append(answer)
        return answer

    def begin(self) -> None:
        """Have it take commands."""
        while "QMP" not in self._read():
            pass
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: str) -> Any:
        """Have a command carried out; return what it returns, MonitorError if it fails."""
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                error = answer["error"]
                raise MonitorError(error["class"], f"{command}: {error['desc']}")
            if "return" in answer:
                return answer["return"]


@dataclass
class _Host:
    """What answers a guest's questions."""

    boot: Boot
    monitor: Optional[Monitor] = None
    counted: int = 0
    position: int = 0
    wakes: bool = False
    stays: bool = False
    resets: list[int] = field(default_factory=list)
    wrong: str = ""

    def begin(self, monitor: Monitor) -> None:
        """Take a monitor; a guest that is to be reset must not end QEMU by that."""
        self.monitor = monitor
        monitor.begin()
        self.resets = list(self.boot.resets)
        self.stays = bool(self.resets)
        if self.stays:
            monitor.execute("set-action", reboot="reset")

    def hear(self, lines: int) -> None:
        """Take note of what QEMU has told of, with so many lines on the console since a reset.

        Wake the guest if it sleeps, and has asked for that. The firmware resets once more
        before there is a line.
        """
        assert self.monitor
        for event in self.monitor.hear():
            if event["event"] == "SUSPEND" and self.wakes:
                self.wakes = False
                self.monitor.execute("system_wakeup")
            if event["event"] == "RESET" and lines and event["data"]["guest"]:
                self.wrong = "it has restarted by itself"

    def reset(self, lines: int) -> bool:
        """Reset the guest if it is time to; return whether it was.

        lines: on the console since the last time. After the last reset the guest may end
        QEMU again, as soon as the firmware is done.
        """
        if not self.monitor or not self.stays or not lines:
            return False
        if not self.resets:
            self.stays = False
            self.monitor.execute("set-action", reboot="shutdown")
        if not self.resets or lines < self.resets[0]:
            return False
        self.resets.pop(0)
        self.monitor.execute("system_reset")
        while "RESET" not in [event["event"] for event in self.monitor.hear()]:
            if not self.monitor.receive():
                raise MonitorError("Closed", "QEMU has closed its monitor")
        return True

    def answer(self, asked: str) -> int:
        """Do what is asked; return the number to answer with."""
        if asked == "count":
            return self.count()
        if asked == "wake" and self.monitor:
            self.wakes = True
            return 0
        what, _, number = asked.partition(" ")
        known = [str(each + 1) for each in range(len(self.boot.plugs))]
        if not self.monitor or what not in ("plug", "unplug") or number not in known:
            raise MonitorError("Unknown", f"the guest asks for '{asked}'")
        if what == "plug":
            self.plug(self.monitor, int(number))
        else:
            self.unplug(self.monitor, int(number))
        return 0

    def count(self) -> int:
        """Return how many lines the trace has."""
        if not self.boot.trace:
            raise MonitorError("Unknown", "the guest asks to count, and nothing is traced")
        with open(self.boot.trace, "rb") as file:
            file.seek(self.position)
            while block := file.read(1 << 20):
                self.counted += block.count(b"\n")
                self.position += len(block)
        return self.counted

    def plug(self, monitor: Monitor, number: int) -> None:
        """Plug a device in.

        In QMP's own device_add each option has a type, which is not the same for each QEMU.
        """
        options = f"{self.boot.plugs[number - 1]},id=plugged{number}"
        line = {"command-line": f"device_add {options}"}
        said = monitor.execute("human-monitor-command", **line)
        if said:
            raise MonitorError("GenericError", f"device_add: {str(said).strip()}")

    def unplug(self, monitor: Monitor, number: int) -> None:
        """Take a device away, which goes by itself when its slot loses power."""
        try:
            monitor.execute("device_del", id=f"plugged{number}")
        except MonitorError as error:
            if error.args[0] != "DeviceNotFound":
                raise


@dataclass
class _Console:
    """What a guest prints, kept in a log; questions are found in it line by line."""

    log: BinaryIO
    show: bool
    line: bytes = b""
    size: int = 0
    lines: int = 0
    asked: list[str] = field(default_factory=list)

    def begin_anew(self) -> None:
        """Forget what the guest has printed: it has been reset."""
        self.log.write(f"\n{RESET}\n".encode())
        self.lines, self.line = 0, b""
        self.asked.clear()

    def take(self, said: bytes) -> None:
        """Take what the guest has printed."""
        self.log.write(said)
        self.log.flush()
        self.size += len(said)
        if self.show:
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
        *whole, self.line = (self.line + said).split(b"\n")
        self.lines += len(whole)
        for line in whole:
            if line.startswith(ASKS):
                self.asked.append(line[len(ASKS) :].strip().decode(errors="replace"))


def _converse(
    child: "subprocess.Popen[bytes]", console: _Console, host: _Host, deadline: float
) -> str:
    """Read a guest's console to its end, and answer. Return what is wrong, "" if nothing."""
    assert child.stdout and child.stdin
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if host.monitor:
            selector.register(host.monitor.socket, selectors.EVENT_READ)
        while True:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return "hung"
            found = [key.fileobj for key, _ in ready]
            if host.monitor and host.monitor.socket in found:
                if not host.monitor.receive():
                    selector.unregister(host.monitor.socket)
                host.hear(console.lines)
            if child.stdout not in found:
                continue
            said = os.read(child.stdout.fileno(), 1 << 16)
            if not said:
                return ""
            console.take(said)
            if console.size > _FLOOD:
                return "flood"
            if host.reset(console.lines):
                while child.stdout in [key.fileobj for key, _ in selector.select(0)]:
                    said = os.read(child.stdout.fileno(), 1 << 16)
                    if not said:
                        return ""
                    console.take(said)
                console.begin_anew()
            while console.asked:
                answer = host.answer(console.asked.pop(0))
                child.stdin.write(b"%d\n" % answer)
                child.stdin.flush()


def run(boot: Boot, show: bool = False) -> Outcome:
    """Run a guest to its end, with its console in the log, and with show on stdout as well.

    timeout(1) ends it, should we be killed with -9 before.
    """
    ours, theirs = socket.socketpair()
    command = ["timeout", "--foreground", "-k", "5", str(boot.limit), *boot.command]
    if boot.monitor:
        command += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
        command += ["-mon", "chardev=qmp,mode=control"]
    with ours, open(boot.log, "wb") as log:
        log.write(f"command: {' '.join(command)}\n".encode())
        child = process.start(
            command,
            cwd=boot.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        try:
            return _run(boot, child, ours, _Console(log, show))
        finally:
            process.kill(child)
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()


def _run(
    boot: Boot, child: "subprocess.Popen[bytes]", ours: socket.socket, console: _Console
) -> Outcome:
    host = _Host(boot)
    deadline = time.monotonic() + boot.limit + _GRACE
    try:
        if boot.monitor:
            host.begin(Monitor(ours))
        wrong = _converse(child, console, host, deadline)
    except (BrokenPipeError, ConnectionError):
        wrong = ""  # QEMU has gone; its status says why
    except MonitorError as error:
        if error.args[0] != "Closed":
            return Outcome(fault=f"QEMU: {error.args[1]}")
        wrong = _rest(child, console)
    except (TimeoutError, ValueError):
        return Outcome(fault="QEMU's monitor does not answer")
    if wrong == "flood":
        return Outcome(why=f"more than {_FLOOD >> 20} MiB on its console, killed")
    status = 124 if wrong else _status(child)
    if status in (124, 137):
        return Outcome(why=f"no end within {boot.limit} s, killed")
    if status and (boot.monitor or status in _NOT_RUN):
        what = "QEMU" if boot.monitor else "it"
        return Outcome(fault=f"{what} failed, status {status}")
    return Outcome(why=f"the guest failed, status {status}" if status else host.wrong)


def _rest(child: "subprocess.Popen[bytes]", console: _Console) -> str:
    """Keep what QEMU says as it ends before its monitor has begun."""
    assert child.stdout
    while said := os.read(child.stdout.fileno(), 1 << 16):
        console.take(said)
    return ""


def _status(child: "subprocess.Popen[bytes]") -> int:
    try:
        return child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        return 124
