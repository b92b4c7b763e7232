# SPDX-License-Identifier: GPL-2.0-only
"""Trees, on a toy: content decides whether one is as it should be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Mapping

import pytest

from workbench import tree
from workbench.status import CannotTell

OLD = 1_000_000_000  # seconds since 1970


class Toy:
    """An origin with a few files, and a tree that follows it."""

    def __init__(self, directory: Path) -> None:
        self.origin = directory / "origin"
        self.top = directory / "tree"
        for name in ("a.c", "b.c", "sub/c.c", "sub/Kconfig"):
            path = self.origin / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}\n")
            os.utime(path, (OLD, OLD))
        (self.origin / "link").symlink_to("a.c")
        self.edits: dict[str, bytes] = {"b.c": b"edited\n", "new.c": b"new\n"}
        self.follow()

    def follow(self, leave_out: tuple[str, ...] = ()) -> str:
        """Make the tree right, and return its identity."""
        tree.follow(self.top, self.origin, self.edits, leave_out)
        return tree.identity(self.top)

    def contents(self) -> Mapping[str, str]:
        """Return what the tree's files hold."""
        return {
            str(path.relative_to(self.top)): path.read_text()
            for path in self.top.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def date(self, name: str) -> float:
        """Return a file's date."""
        return (self.top / name).stat().st_mtime


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A toy whose tree is right."""
    return Toy(tmp_path)


RIGHT = {
    "a.c": "a.c\n",
    "b.c": "edited\n",
    "new.c": "new\n",
    "sub/c.c": "sub/c.c\n",
    "sub/Kconfig": "sub/Kconfig\n",
}


def test_made(toy: Toy) -> None:
    assert toy.contents() == RIGHT
    assert os.readlink(toy.top / "link") == "a.c"
    assert toy.date("a.c") == OLD
    assert toy.date("b.c") > OLD


def test_nothing_to_do_changes_nothing(toy: Toy) -> None:
    was = tree.listing(toy.top)
    before = tree.identity(toy.top)
    assert toy.follow() == before
    assert tree.listing(toy.top) == was


@pytest.mark.parametrize("name", ["a.c", "b.c", "sub/c.c"])
def test_changed_with_its_old_date(toy: Toy, name: str) -> None:
    before = tree.identity(toy.top)
    state = (toy.top / name).stat()
    (toy.top / name).write_text("x" * (state.st_size - 1) + "\n")  # of the same size
    os.utime(toy.top / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert toy.follow() != before
    assert toy.contents() == RIGHT
    assert toy.date(name) > state.st_mtime  # or make would not see it


@pytest.mark.parametrize("name", ["a.c", "b.c", "new.c", "link"])
def test_deleted(toy: Toy, name: str) -> None:
    (toy.top / name).unlink()
    toy.follow()
    assert toy.contents() == RIGHT
    assert (toy.top / "link").is_symlink()


def test_added(toy: Toy) -> None:
    (toy.top / "sub/more.c").write_text("more\n")
    toy.follow()
    assert toy.contents() == RIGHT


def test_changed_and_changed_back(toy: Toy) -> None:
    """What was built meanwhile may be of the other content: it gets a new date."""
    (toy.top / "a.c").write_text("x\n")
    (toy.top / "a.c").write_text("a.c\n")
    os.utime(toy.top / "a.c", (OLD, OLD))
    toy.follow()
    assert toy.date("a.c") > OLD


def test_an_edit_changes(toy: Toy) -> None:
    was = toy.date("b.c")
    os.utime(toy.top / "b.c", (OLD, OLD))
    toy.follow()
    toy.edits["b.c"] = b"again\n"
    toy.follow()
    assert toy.contents() == {**RIGHT, "b.c": "again\n"}
    assert toy.date("b.c") >= was and toy.date("a.c") == OLD


def test_an_edit_goes(toy: Toy) -> None:
    """As a probe that is removed, or a file that the series carries no more."""
    before = tree.identity(toy.top)
    toy.edits = {}
    assert toy.follow() != before
    assert toy.contents() == {"a.c": "a.c\n", "b.c": "b.c\n"} | {
        name: RIGHT[name] for name in ("sub/c.c", "sub/Kconfig")
    }
    assert toy.date("b.c") > OLD


def test_the_origin_changes(toy: Toy) -> None:
    (toy.origin / "a.c").write_text("other\n")
    (toy.origin / "sub/c.c").unlink()
    (toy.origin / "sub/d.c").write_text("d\n")
    os.utime(toy.origin / "sub/d.c", (OLD, OLD))
    toy.follow()
    assert toy.contents()["a.c"] == "other\n"
    assert "sub/c.c" not in toy.contents()
    assert toy.date("sub/d.c") > OLD


def test_the_origin_is_only_read(toy: Toy) -> None:
    was = tree.listing(toy.origin)
    (toy.top / "a.c").write_text("x\n")
    toy.edits = {"sub/c.c": b"y\n"}
    toy.follow()
    assert tree.listing(toy.origin) == was


def test_dates_that_move_in_the_origin_rebuild_nothing(toy: Toy) -> None:
    """As git checkout moves them, there and back."""
    os.utime(toy.origin / "a.c")
    (toy.origin / "sub/c.c").write_text("sub/c.c\n")
    toy.follow()
    assert toy.date("a.c") == OLD and toy.date("sub/c.c") == OLD


def test_what_tools_leave_is_no_change(toy: Toy) -> None:
    before = tree.identity(toy.top)
    for name in ("sub/__pycache__/x.pyc", "obj-x86_64/a.o"):
        (toy.top / name).parent.mkdir(parents=True)
        (toy.top / name).write_text("made\n")
    assert toy.follow() == before
    assert (toy.top / "obj-x86_64/a.o").exists()


def test_a_link_that_leads_out_of_the_tree_is_not_followed(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/c.c").write_text("mine\n")
    (toy.origin / "led").symlink_to(tmp_path / "own")
    toy.edits["led/c.c"] = b"edited\n"
    with pytest.raises(CannotTell, match="led/c.c' is not written: a link leads out"):
        toy.follow()
    assert (tmp_path / "own/c.c").read_text() == "mine\n"


def test_left_out_of_a_users_tree(toy: Toy) -> None:
    for name in ("a.o", ".git/HEAD", "include/config/auto.conf", ".config"):
        (toy.origin / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.origin / name).write_text("built\n")
    toy.follow(("./.git", "*.o", "./include/config", "./.config*"))
    assert toy.contents() == RIGHT


def test_only_kconfig(toy: Toy) -> None:
    before = tree.identity(toy.top, "Kconfig")
    (toy.origin / "a.c").write_text("other\n")
    toy.follow()
    assert tree.identity(toy.top, "Kconfig") == before
    (toy.origin / "sub/Kconfig").write_text("other\n")
    toy.follow()
    assert tree.identity(toy.top, "Kconfig") != before


def test_interrupted_as_it_was_made(toy: Toy) -> None:
    (toy.top.with_name("tree.state") / "own").unlink()
    (toy.top / "a.c").write_text("half\n")
    toy.follow()
    assert toy.contents() == RIGHT


def test_a_mode_that_changes(toy: Toy) -> None:
    (toy.origin / "a.c").chmod(0o755)
    toy.follow()
    assert (toy.top / "a.c").stat().st_mode & 0o777 == 0o755


def test_a_directory_in_the_place_of_a_file(toy: Toy) -> None:
    (toy.top / "a.c").unlink()
    (toy.top / "a.c").mkdir()
    (toy.top / "a.c/x").write_text("x\n")
    toy.follow()
    assert toy.contents() == RIGHT


def test_repaired_from_what_is_fresh(toy: Toy, tmp_path: Path) -> None:
    tree.record(toy.origin)
    assert tree.is_untouched(toy.origin)
    subprocess.run(["cp", "-a", toy.origin, tmp_path / "fresh"], check=True)
    (toy.origin / "a.c").write_text("spoilt\n")
    (toy.origin / "b.c").unlink()
    assert not tree.is_untouched(toy.origin)
    tree.repair(toy.origin, tmp_path / "fresh")
    assert (toy.origin / "a.c").read_text() == "a.c\n"
    assert (toy.origin / "b.c").exists() and tree.is_untouched(toy.origin)


def test_edits_that_were_made_last(toy: Toy, tmp_path: Path) -> None:
    assert tree.edits(toy.top) == toy.edits
    assert tree.edits(tmp_path / "none") is None


def test_edits_that_were_changed_since_are_not_taken(toy: Toy) -> None:
    (toy.top / "b.c").write_text("by hand\n")
    with pytest.raises(CannotTell, match="b.c' has been changed"):
        tree.edits(toy.top)
    (toy.top / "b.c").unlink()
    with pytest.raises(CannotTell, match="b.c' has been changed"):
        tree.edits(toy.top)


def test_a_name_that_is_not_utf_8(toy: Toy) -> None:
    name = os.fsdecode(b"caf\xe9.c")
    (toy.origin / name).write_text("x\n")
    toy.follow()
    assert (toy.top / name).read_text() == "x\n"
    tree.follow(toy.top.with_name("fresh"), toy.origin, {})
    assert (toy.top.with_name("fresh") / name).exists()
