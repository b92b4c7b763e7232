# SPDX-License-Identifier: GPL-2.0-only
"""How a verb ends, whatever happens in it; and what may not happen around it."""

from __future__ import annotations

import errno
import importlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Sequence

import pytest

from workbench import base, main, packages, paths, process, verb
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, NOT_FOUND_OUT, CannotTell


def _raise(error: BaseException) -> Callable[[Sequence[str]], int]:
    def main(arguments: Sequence[str]) -> int:
        raise error

    return main


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the signals of this process, and what it may start, as they are."""
    monkeypatch.setattr(verb, "SIGNALS", ())
    monkeypatch.setattr(process, "end_all", lambda: None)


def _run(main: Callable[[Sequence[str]], int], tmp_path: Path) -> int:
    return verb.run("boot", main, [], tmp_path / "crashes")


@pytest.mark.parametrize("status", [AS_EXPECTED, NOT_AS_EXPECTED])
def test_a_verdict(status: int, tmp_path: Path) -> None:
    assert _run(lambda arguments: status, tmp_path) == status


@pytest.mark.parametrize(
    "error, says",
    [
        (CannotTell("no network"), "boot: no network\n"),
        (process.Failed("git: fatal", 1), "boot: git: fatal\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "boot: No space left on device",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "boot: No space left on device\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "qemu"), "boot: No such file: qemu"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "boot: Permission denied: /x",
        ),
        (ValueError("x\ny"), "boot: ValueError: x (where from: "),
        (AssertionError(), "boot: AssertionError"),
    ],
)
def test_a_fault_is_no_verdict(
    error: Exception, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(_raise(error), tmp_path) == NOT_FOUND_OUT
    said = capsys.readouterr().err
    assert said.startswith(says) and said.count("\n") == 1


def test_the_traceback_is_kept(tmp_path: Path) -> None:
    _run(_raise(ValueError("x")), tmp_path)
    kept = list((tmp_path / "crashes").iterdir())
    assert len(kept) == 1 and "Traceback" in kept[0].read_text()


def test_an_import_that_fails_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib, "import_module", _raise(SyntaxError("x")))
    assert _run(partial(main.main, "boot"), tmp_path) == NOT_FOUND_OUT
    assert capsys.readouterr().err.startswith("boot: SyntaxError: x (where from: ")


def test_what_root_writes_belongs_to_the_owner_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start, as with sudo, and not only once packages have been installed."""
    order: list[int] = []
    nobody = pwd.getpwnam("nobody")
    state = SimpleNamespace(st_uid=nobody.pw_uid)
    monkeypatch.setattr(paths, "TOP", SimpleNamespace(stat=lambda: state))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "setegid", order.append)
    monkeypatch.setattr(os, "seteuid", order.append)
    toy = SimpleNamespace(main=lambda words: len(order))
    monkeypatch.setattr(importlib, "import_module", lambda name: toy)
    assert _run(partial(main.main, "toy"), tmp_path) == 2
    assert order == [nobody.pw_gid, nobody.pw_uid]


def test_signals(tmp_path: Path) -> None:
    assert _run(_raise(SystemExit(130)), tmp_path) == 130


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(process.Failed, match="No space left on device"):
        process.step("write", tmp_path / "log", ["sh", "-c", "cat /bin/sh >/dev/full"])


def test_the_reason_is_the_line_that_tells_best(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("CC a.o\nx.c:1: error: no such thing\nmake: *** stop\n")
    assert process.reason(log) == "x.c:1: error: no such thing"
    log.write_text("one\ntwo\n")
    assert process.reason(log) == "two"
    log.write_text("")
    assert process.reason(log) == "it has said nothing"


def test_a_full_disk_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log may be empty then."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert process.reason(tmp_path / "log") == "no space left on the disk"


def test_what_fails_stops_the_rest(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(process.Failed):
        process.step("two", tmp_path / "log", ["false"], ["touch", mark])
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"]
)
def test_no_hook_leads_git_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/mine")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    assert name not in process.environment()
    assert process.environment()["GIT_AUTHOR_NAME"] == "somebody"


def test_git_knows_no_other_variables_of_a_repository() -> None:
    said = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True
    )
    assert not set(said.stdout.split()) - process.OF_A_REPOSITORY


@pytest.mark.parametrize("place", ["/a b/build", "/a:b/build", "/a$b", "/a'b", "/a#b"])
def test_a_place_where_make_cannot_work(place: str) -> None:
    with pytest.raises(CannotTell) as raised:
        base.check_place(Path(place))
    assert place in str(raised.value) and "\n" not in str(raised.value)


def test_a_users_tree_may_be_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "my kernel: new"
    paths.write(source / "Kbuild", b"")
    paths.write(source / "drivers/iommu/iommu.c", b"")
    found = base.find(str(source))
    assert found.source == source and " " not in str(found.directory.name)
    assert ":" not in found.directory.name


def test_a_relative_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.write(tmp_path / "linux/Kbuild", b"")
    paths.write(tmp_path / "linux/drivers/iommu/iommu.c", b"")
    monkeypatch.chdir(tmp_path)
    assert base.find("linux").source == tmp_path / "linux"
    with pytest.raises(CannotTell, match="'nowhere' is neither"):
        base.find("nowhere")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "mirror", lambda log: "http://localhost:9/debian")
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with pytest.raises(process.Failed) as raised:
        packages.Archive(tmp_path, ["stable"])
    assert "read the lists of stable failed: E: " in str(raised.value)


def test_packages_that_are_missing_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = packages.Need("no-such-package", "no-such-program")
    assert packages.missing([need, packages.Need("x", "sh")]) == [need]
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(CannotTell, match="missing: sudo apt-get install no-such-package$"):
        packages.install([need], tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotTell, match="not Debian, and these are missing: no-such-package"):
        packages.install([need], tmp_path)


NESTED = """
import sys
sys.path.insert(0, {scripts!r})
from workbench import process
child = process.start([sys.executable, "-B", "-c", {inner!r}], stdout=None)
import time; time.sleep(1)
process.kill(child)
"""


def test_what_a_verb_has_started_ends_with_it(tmp_path: Path) -> None:
    """As QEMU of a scripts/boot that scripts/test has started."""
    scripts, crashes = str(paths.SCRIPTS), str(tmp_path)
    inner = WAITS.format(scripts=scripts, crashes=crashes)
    program = NESTED.format(scripts=scripts, inner=inner)
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True
    )
    started = int(done.stdout.split()[0])
    assert _ends(started)


def _ends(number: int) -> bool:
    for _ in range(50):
        if not Path(f"/proc/{number}").exists():
            return True
        time.sleep(0.1)
    return False


LOCKS = """
import sys, time
sys.path.insert(0, {scripts!r})
from pathlib import Path
from workbench import paths, process
with paths.locked(Path({directory!r})):
    process.{call}["sh", "-c", "echo >{directory}/log; sleep 2"])
"""


@pytest.mark.parametrize("call", ["output(", "step('write', Path(sys.argv[1]), "])
def test_a_lock_outlives_kill_9_while_something_writes(call: str, tmp_path: Path) -> None:
    program = LOCKS.format(call=call, scripts=str(paths.SCRIPTS), directory=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-B", "-c", program, tmp_path / "step"], stderr=subprocess.DEVNULL
    ) as it:
        while not (tmp_path / "log").exists():
            time.sleep(0.05)
        it.kill()
        it.wait()
        held = ["flock", "-n", str(tmp_path / "lock"), "true"]
        assert subprocess.run(held, check=False).returncode == 1
        assert subprocess.run(["flock", "-w", "10", *held[2:]], check=False).returncode == 0


def test_another_workbench_in_the_directory_is_not_run(tmp_path: Path) -> None:
    paths.write(tmp_path / "workbench/__init__.py", b"print('another')")
    paths.write(tmp_path / "workbench/main.py", b"print('another')")
    said = subprocess.run(
        [paths.SCRIPTS / "boot", "--list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "another" not in said.stdout and "vtd-nopt" in said.stdout


@pytest.mark.parametrize("name", ["a:b", "a b", "it's"])
def test_a_checkout_may_be_anywhere_until_make_is_called(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name
    shutil.copytree(paths.SCRIPTS, copy / "scripts")
    said = subprocess.run(
        [copy / "scripts/boot", "vtd"], capture_output=True, text=True, check=False
    )
    assert said.returncode == NOT_FOUND_OUT
    assert "the kernel's make wants a path without" in said.stderr


def test_a_module_of_ours_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    """Not even one of those that tell of errors."""
    shutil.copytree(paths.SCRIPTS, tmp_path / "scripts")
    (tmp_path / "scripts/workbench/verb.py").write_text("def\n")
    said = subprocess.run(
        [tmp_path / "scripts/boot", "vtd"], capture_output=True, text=True, check=False
    )
    assert said.returncode == NOT_FOUND_OUT
    assert said.stderr.startswith("boot: SyntaxError: ") and said.stderr.count("\n") == 1


PROGRAMS = {"apt-get": "echo E: no such package; exit 100", "id": "echo {user}"}


@pytest.mark.parametrize(
    "user, programs, says",
    [
        (0, ["id"], "boot: python3 is missing, and this is not Debian"),
        (
            1000,
            ["id", "apt-get"],
            "boot: python3 is missing, run this once: sudo {top}/scripts/setup",
        ),
        (
            0,
            ["id", "apt-get", "mktemp", "tail"],
            "boot: install python3\n"
            "boot: python3 cannot be installed: E: no such package (all of it: {top}/tmp.",
        ),
    ],
)
def test_a_machine_without_python(
    user: int, programs: Sequence[str], says: str, tmp_path: Path
) -> None:
    shutil.copytree(paths.SCRIPTS, tmp_path / "scripts")
    start = tmp_path / "scripts/workbench/start.sh"
    start.write_text(start.read_text().replace("=/usr/bin/python3", "=/nowhere/python3"))
    (tmp_path / "bin").mkdir()
    for name in ("dirname", *programs):
        program = tmp_path / "bin" / name
        if name in PROGRAMS:
            program.write_text(f"#!/bin/sh\n{PROGRAMS[name].format(user=user)}\n")
            program.chmod(0o755)
        else:
            program.symlink_to(str(shutil.which(name)))
    told = {"PATH": str(tmp_path / "bin"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [tmp_path / "scripts/boot"], env=told, capture_output=True, text=True, check=False
    )
    assert done.returncode == NOT_FOUND_OUT
    assert done.stderr.startswith(says.format(top=tmp_path))


def test_a_full_disk_behind_stderr_is_no_verdict() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([paths.SCRIPTS / "boot", "nosuch"], stderr=full, check=False)
    assert done.returncode == NOT_FOUND_OUT


WAITS = """
import sys, time
sys.path.insert(0, {scripts!r})
from pathlib import Path
from workbench import process, verb
def main(arguments):
    child = process.start(["sleep", "1000"])
    print(child.pid, flush=True)
    child.wait()
    return 0
sys.exit(verb.run("waits", main, [], Path({crashes!r})))
"""


COMPILES = """
import sys
sys.path.insert(0, {scripts!r})
from pathlib import Path
from workbench import paths, process, verb
def main(arguments):
    with paths.locked(Path({directory!r})):
        process.step("compile", Path({directory!r}, "log"), ["make", "-C", {directory!r}])
    return 0
sys.exit(verb.run("compiles", main, [], Path({directory!r})))
"""


def test_ctrl_c_ends_a_compile(tmp_path: Path) -> None:
    """Make, the compiler that it has started, and the lock that both hold."""
    (tmp_path / "Makefile").write_text("all:\n\techo $$$$ >new && mv new cc && sleep 100\n")
    program = COMPILES.format(scripts=str(paths.SCRIPTS), directory=str(tmp_path))
    with subprocess.Popen([sys.executable, "-B", "-c", program]) as it:
        while not (tmp_path / "cc").exists():
            time.sleep(0.05)
        it.send_signal(signal.SIGINT)
        assert it.wait(20) == 128 + signal.SIGINT
    assert _ends(int((tmp_path / "cc").read_text()))
    free = ["flock", "-n", str(tmp_path / "lock"), "true"]
    assert subprocess.run(free, check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_was_started(number: signal.Signals, tmp_path: Path) -> None:
    program = WAITS.format(scripts=str(paths.SCRIPTS), crashes=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-B", "-c", program], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        started = int(child.stdout.readline())
        child.send_signal(number)
        assert child.wait(10) == 128 + number
    assert _ends(started)


def test_one_waits_for_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold = f"exec flock {tmp_path}/lock sleep 0.5"
    with subprocess.Popen(["sh", "-c", hold]):
        time.sleep(0.2)
        with paths.locked(tmp_path):
            assert "waiting until another run" in capsys.readouterr().err


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.write(tmp_path / "x", b"old")

    def fail(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        paths.write(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"


def test_half_a_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "chmod", fail)
    with pytest.raises(OSError):
        paths.write(tmp_path / "x", b"half")
    assert not list(tmp_path.iterdir())


def test_runs_of_before_go_after_a_day() -> None:
    kept = paths.run_directory("boot")
    paths.keep(kept)
    os.utime(kept, (1e9, 1e9))
    young = paths.run_directory("boot")
    assert not kept.exists() and young.exists()
    paths.remove_run_directories()
    assert not young.exists()
