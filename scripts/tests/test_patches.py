# SPDX-License-Identifier: GPL-2.0-only
"""Diffs: without fuzz, variants, and what does not apply is told."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from workbench import base, kernel, mutate, patches, paths, process, tree
from workbench.status import CannotTell

OLD = [f"line {number}\n" for number in range(20)]


def _diff(old: list[str], number: int, new: str) -> str:
    changed = [*old[:number], new, *old[number + 1 :]]
    return "".join(difflib.unified_diff(old, changed, "a/x.c", "b/x.c"))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with one edit and one file."""
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers/x.c.patch").write_text(_diff(OLD, 9, "mainline\n"))
    (tmp_path / "drivers/own.c").write_text("own\n")
    own = "--- a/drivers/own.c\n+++ b/drivers/own.c\n@@ -1 +1 @@\n-own\n+lts\n"
    (tmp_path / "drivers/own.c.lts.patch").write_text(own)
    return tmp_path


def _tree(top: Path, lines: list[str]) -> Path:
    (top / "tree").mkdir(exist_ok=True)
    (top / "tree/x.c").write_text("".join(lines))
    return top / "tree"


def test_applied(top: Path) -> None:
    edits = patches.apply_series(_tree(top, OLD), "Linux", top)
    assert b"mainline\n" in edits["x.c"] and edits["drivers/own.c"] == b"own\n"


def test_moved_is_no_fuzz(top: Path) -> None:
    edits = patches.apply_series(_tree(top, ["more\n"] * 5 + OLD), "Linux", top)
    assert b"mainline\n" in edits["x.c"]


def test_other_context_is_refused(top: Path) -> None:
    other = [*OLD[:7], "other\n", *OLD[8:]]
    with pytest.raises(patches.DoesNotApply) as raised:
        patches.apply_series(_tree(top, other), "Linux", top)
    assert "drivers/x.c.patch does not apply to Linux; --base lts" in str(raised.value)
    assert "mainline" in raised.value.hunks


def test_the_variant_is_taken_with_those_of_our_own_files(top: Path) -> None:
    other = [*OLD[:7], "other\n", *OLD[8:]]
    (top / "drivers/x.c.lts.patch").write_text(_diff(other, 9, "variant\n"))
    edits = patches.apply_series(_tree(top, other), "Linux", top)
    assert b"variant\n" in edits["x.c"] and edits["drivers/own.c"] == b"lts\n"


def test_the_variant_has_no_fuzz_either(top: Path) -> None:
    other = [*OLD[:7], "other\n", *OLD[8:]]
    (top / "drivers/x.c.lts.patch").write_text(_diff(other, 9, "variant\n"))
    with pytest.raises(patches.DoesNotApply):
        patches.apply_series(_tree(top, [*OLD[:7], "third\n", *OLD[8:]]), "Linux", top)


def test_in_there_already(top: Path) -> None:
    with pytest.raises(patches.DoesNotApply, match="it is in there already"):
        patches.apply_series(_tree(top, [*OLD[:9], "mainline\n", *OLD[10:]]), "Linux", top)


def test_a_file_that_is_not_there(top: Path) -> None:
    (top / "tree").mkdir()
    with pytest.raises(patches.DoesNotApply, match="no x.c there"):
        patches.apply_series(top / "tree", "Linux", top)


def test_a_tool_that_is_killed_is_no_diff_that_does_not_apply(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.write(top / "bin/patch", b"#!/bin/sh\necho no space >&2; exit 2\n", 0o755)
    monkeypatch.setenv("PATH", f"{top}/bin:{os.environ['PATH']}")
    with pytest.raises(process.Failed, match="mine: patch: no space"):
        patches.Files(_tree(top, OLD)).apply(_diff(OLD, 9, "mine\n").encode(), "mine")


NEW = "--- /dev/null\n+++ b/drivers/new.c\n@@ -0,0 +1 @@\n+new\n"
GONE = "--- a/x.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-line 0\n"


def test_a_diff_may_create_a_file(top: Path) -> None:
    files = patches.Files(_tree(top, OLD))
    files.apply((_diff(OLD, 9, "mine\n") + NEW).encode(), "mine")
    assert b"mine\n" in files.edits["x.c"] and files.edits["drivers/new.c"] == b"new\n"


@pytest.mark.parametrize(
    "diff, says", [("", "mine edits no file"), (GONE, "mine deletes or renames x.c")]
)
def test_a_diff_that_is_no_edit_is_refused(top: Path, diff: str, says: str) -> None:
    files = patches.Files(_tree(top, OLD[:1]))
    with pytest.raises(CannotTell, match=says):
        files.apply(diff.encode(), "mine")
    assert not files.edits


def test_the_tree_is_only_read(top: Path) -> None:
    tree = _tree(top, OLD)
    patches.apply_series(tree, "Linux", top)
    assert (tree / "x.c").read_text() == "".join(OLD)
    assert [path.name for path in tree.iterdir()] == ["x.c"]


def test_the_hunk_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: object) -> None:
        raise patches.DoesNotApply("x does not apply", "@@ -1 +1 @@\n-a\n+b\n")

    monkeypatch.setattr(patches, "apply_series", fail)
    (tmp_path / "version").write_text("Linux")
    with pytest.raises(patches.DoesNotApply):
        kernel.patched(base.Base("toy", tmp_path))
    assert capsys.readouterr().err == "@@ -1 +1 @@\n-a\n+b\n"


def test_related_patches_apply_in_any_order(stock: Path) -> None:
    """To stock and to patched, and what comes of it is the same; alternatives to both, too."""
    mainline = base.Base("mainline", stock.parent)
    names = kernel.related()
    assert names
    for plain in (kernel.stock(mainline), kernel.patched(mainline)):
        there = kernel.with_related(plain, names)
        back = kernel.with_related(plain, names[::-1])
        assert there.edits == back.edits and there.name == back.name
        assert {"drivers/iommu/iommu.c", "drivers/iommu/dma-iommu.c"} <= set(there.edits)
        for name in kernel.alternatives():
            file = kernel.ALTERNATIVES / f"{name}.patch"
            assert patches.apply_all(stock, plain.edits, [file]) != plain.edits


def test_what_was_made_with_a_related_patch_is_not_taken_for_less(
    stock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mainline = base.Base("mainline", stock.parent)
    plain = kernel.patched(mainline)
    for name, says in (
        ("", ""),
        ("untrusted", "'mutant': the last one was made with untrusted"),
    ):
        made = kernel.with_related(plain, [name] if name else []).edits
        monkeypatch.setattr(tree, "edits", lambda top, made=made: made)
        if not name:
            assert kernel.kept(mainline, "mutant").edits == made
            continue
        with pytest.raises(CannotTell, match=says):
            kernel.kept(mainline, "mutant")


def test_every_related_patch_of_a_mutant_can_be_told(stock: Path) -> None:
    """By the cases that it adds to the suites."""
    mainline = base.Base("mainline", stock.parent)
    plain = kernel.patched(mainline)
    for name in {each.related for each in mutate.read().values() if each.related}:
        assert kernel._has_suites_of(kernel.with_related(plain, [name]).edits, plain, name)


def test_every_file_of_the_series_ends_with_a_newline() -> None:
    files = [paths.TOP / name for name in patches.series_files()]
    assert files and not [file for file in files if not file.read_bytes().endswith(b"\n")]
