# SPDX-License-Identifier: GPL-2.0-only
"""Static checks and scripts/test: what is a finding, and what a fault of the machine's."""

from __future__ import annotations

import ast
import fcntl
import re
from pathlib import Path
from typing import Iterator

import pytest

from workbench import base, boot, check, chroot, kernel, paths, setup, test
from workbench.status import CannotTell, Tally

LONGEST = 60  # lines of a function
README = paths.TOP / "README.md"


@pytest.mark.parametrize(
    "line, error",
    [
        ("exit 1", check.Found),
        ("kill -9 $$", CannotTell),
        ("echo 'ld: out: No space left on device'; exit 1", CannotTell),
        ("echo 'make[2]: *** [scripts/x] Error 137'; exit 2", CannotTell),
        ("echo 'gcc: fatal error: Killed signal terminated program cc1'; exit 2", CannotTell),
        ("echo 'LLVM ERROR: out of memory'; exit 2", CannotTell),
    ],
)
def test_a_tool_that_fails(line: str, error: type[Exception], tmp_path: Path) -> None:
    look = check.Look(base.find("mainline"), {}, tmp_path, tmp_path / "log")
    with pytest.raises(error):
        look.tool("sh", "-c", line)


def _two_kernels(tmp_path: Path) -> check.Look:
    where = base.Base("mainline", tmp_path)
    kernels = {name: kernel.Kernel(where, name) for name in ("stock", "patched")}
    return check.Look(where, kernels, tmp_path, tmp_path / "x.log")


def test_tools_at_once_have_one_log_in_the_end(tmp_path: Path) -> None:
    look = _two_kernels(tmp_path)

    def run(look: check.Look, built: kernel.Kernel) -> str:
        # Each waits for the other, so that they have to run at the same time
        here, there = ("a", "b") if built.name == "stock" else ("b", "a")
        script = f"touch {here}; until [ -e {there} ]; do sleep 0.01; done; echo {built.name}"
        return look.tool("sh", "-c", script, cwd=tmp_path)

    kernels = list(look.kernels.values())
    assert check._at_once(look, kernels, run) == ["stock\n", "patched\n"]
    log = look.log.read_text()
    assert log.index("\nstock\n") < log.index("\npatched\n")
    assert [file.name for file in tmp_path.glob("*.log")] == ["x.log"]


def test_a_warning_that_only_patched_has_is_found(tmp_path: Path) -> None:
    look = _two_kernels(tmp_path)

    def run(look: check.Look, built: kernel.Kernel) -> str:
        return look.tool(
            "echo", "a.c:1: warning: " + ("old" if built.name == "stock" else "new")
        )

    with pytest.raises(check.Found, match="a.c:: warning: new"):
        check._compare(look, run)
    assert "new: a.c:: warning: new" in look.log.read_text()
    check._compare(look, lambda look, built: look.tool("echo", "a.c:1: warning: old"))


def test_a_tool_that_fails_beside_another(tmp_path: Path) -> None:
    look = _two_kernels(tmp_path)
    with pytest.raises(check.Found):
        check._compare(look, lambda look, built: look.tool("test", built.name, "=", "stock"))
    assert "test patched = stock" in look.log.read_text()


class _Fake(kernel.Kernel):
    """A kernel whose tree is always as it should be."""

    def make(self) -> None:
        pass


def _is_locked(file: Path) -> bool:
    with open(file, "ab") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize(
    "name, locks",
    [("gcc", {"lock"}), ("suites-off", {"lock", "mutant.lock"}), ("mypy", set())],
)
def test_nobody_changes_what_a_check_reads(
    name: str, locks: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = base.Base("mainline", tmp_path)
    look = check.Look(where, {"patched": _Fake(where, "patched")}, tmp_path, tmp_path / "log")
    held = set()

    def checked(_: check.Look) -> None:
        for file in ("lock", "mutant.lock"):
            if _is_locked(tmp_path / file):
                held.add(file)

    monkeypatch.setattr(check, "CHECKS", {name: ("", checked)})
    check._one(look, name, "1 of 1", Tally())
    assert held == locks


@pytest.mark.parametrize(
    "line, error",
    [
        ("exit 1", test.Wrong),
        ("exit 3", test.Wrong),
        ("exit 2", CannotTell),
        ("kill -9 $$", CannotTell),
        ("exit 143", CannotTell),
    ],
)
def test_a_program_of_a_check(line: str, error: type[Exception], tmp_path: Path) -> None:
    run = test.Run(tmp_path, tmp_path / "log")
    with pytest.raises(error):
        run.good("sh", "-c", line)
    if line != "exit 1":
        with pytest.raises(error):
            run.fails(1, "", "sh", "-c", line)


@pytest.mark.parametrize(
    "said, why",
    [("FAILED vtd: a\n  | b", "FAILED vtd: a"), ("b\n0 passed, 1 failed", "0 passed")],
)
def test_a_check_says_first_why_a_program_has_failed(
    said: str, why: str, tmp_path: Path
) -> None:
    run = test.Run(tmp_path, tmp_path / "log")
    line = f"echo '{said}'; exit 1"
    with pytest.raises(test.Wrong, match=f"^sh ends with 1: {why}"):
        run.good("sh", "-c", line)
    with pytest.raises(test.Wrong, match=f"; {why}"):
        run.fails(0, "", "sh", "-c", line)


@pytest.mark.parametrize(
    "status, error", [(1, chroot.Failed), (2, CannotTell), (143, CannotTell)]
)
def test_what_is_found_in_a_bare_debian_is_a_verdict(
    status: int, error: type[Exception], tmp_path: Path
) -> None:
    bare = chroot.Bare.__new__(chroot.Bare)
    bare.top = bare.ccache = tmp_path
    bare.call = lambda *words: (status, "1 passed, 1 failed")
    with pytest.raises(error, match="1 passed, 1 failed$"):
        bare.timed("scripts/test", "true")


def test_parts_are_named_once_and_without_full(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def one(check: test.Check, which: str, *more: object) -> test.Tried:
        made.append(which)
        return test.Tried("")

    monkeypatch.setattr(test, "one", one)
    monkeypatch.setattr(setup, "prepare", lambda *words: None)
    test.main(["static", "static"])
    assert made == ["check 1 of 1"]
    with pytest.raises(CannotTell, match="'static': --full is all parts, name none"):
        test.main(["--full", "static"])


def test_what_is_ours_is_checked_first() -> None:
    assert test.PARTS["workbench"].checks[:2] == (test.workbench, test.python_and_shell)
    assert next(iter(test.PARTS)) == "workbench"
    assert set(check.OF_OURS) < set(check.CHECKS)


def _functions_of_python(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def _functions_of_c(file: Path) -> Iterator[tuple[str, int]]:
    for found in re.finditer(
        r"^(\w[^\n;]*\([^;{]*?\))\n\{\n(.*?)^\}", file.read_text(), re.M | re.S
    ):
        yield found[1], found[2].count("\n") + 2


def test_no_function_is_long() -> None:
    found = 0
    for pattern, functions in (("*.py", _functions_of_python), ("*.[ch]", _functions_of_c)):
        for file in sorted(paths.SCRIPTS.rglob(pattern)):
            for name, lines in functions(file):
                found += 1
                assert lines <= LONGEST, f"{file}: {name} has {lines} lines"
    assert found > 1000


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 90


def test_the_table_of_the_readme_is_right() -> None:
    """It has a row for each device of the main job, with the types that policy.py gives."""
    rows = re.findall(
        r"^(\S+) +(iommu.strict=.) +([\d:.]+) +(\S+) +(\S+)( +differs)?$",
        README.read_text(),
        re.M,
    )
    asked = boot.options().parse([])
    chosen = boot.choose(asked)
    jobs = boot._jobs(chosen, boot.ways(asked, chosen), ["stock", "patched"])
    wanted = [
        (stock.machine.name, *stock.way.words, device.address)
        + (stock.type_of(device), patched.type_of(device))
        for stock, patched in zip(jobs[::2], jobs[1::2])
        for device in stock.machine.devices
    ]
    assert [row[:5] for row in rows] == wanted
    assert all(bool(row[5]) == (row[3] != row[4]) for row in rows)
