# SPDX-License-Identifier: GPL-2.0-only
"""The series as commits and mail, as far as that takes no kernel; and static checks."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Sequence

import pytest

from workbench import base, boot, check, commits, kernel, kunit, mails, paths
from workbench import process, series, suites, verdict
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one commit."""
    paths.write(tmp_path / "tree/file", b"content\n")
    made = Repository(tmp_path / "tree")
    made.begin("A B <a@b>")
    return made


def test_a_repository(repository: Repository) -> None:
    assert repository.git("log", "--format=%an <%ae> %s").strip() == "A B <a@b> stock"
    assert repository.has_branch("stock") and not repository.has_branch("other")
    assert repository.blob("HEAD:file") == b"content\n"
    assert repository.blob("HEAD:none") is None
    with pytest.raises(CannotTell, match="git checkout in"):
        repository.git("checkout", "none")


def test_the_users_configuration_does_not_sign(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "gitconfig"
    told.write_text("[commit]\n\tgpgsign = true\n[user]\n\tsigningkey = none\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(told))
    (repository.top / "file").write_text("other\n")
    repository.git("commit", "-q", "-a", "-m", "other")


def test_a_hook_leads_nowhere(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Repository(tmp_path / "mine")
    paths.write(mine.top / "my file", b"mine\n")
    mine.begin("Me <me@x>")
    before = mine.git("log", "--all", "--format=%H") + mine.git("status", "--porcelain")
    monkeypatch.setenv("GIT_DIR", str(mine.top / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(mine.top / ".git/index"))
    paths.write(repository.top / "new", b"new\n")
    repository.git("add", "-A")
    repository.git("commit", "-q", "-m", "new")
    assert (
        mine.git("log", "--all", "--format=%H") + mine.git("status", "--porcelain") == before
    )


def test_who_commits_has_to_be_known(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    assert repository.identity() == "A B <a@b>"
    subprocess.run(["git", "init", "-q", tmp_path / "none"], check=True)
    with pytest.raises(CannotTell, match="git has not been told who you are"):
        Repository(tmp_path / "none").identity()


def test_each_commit_carries_files_that_are_there() -> None:
    carried = commits.carried()
    assert list(carried) == ["core", "docs", "kunit", "selftest"]
    from workbench import patches

    every = [name for names in carried.values() for name in names]
    ours = [name for name in patches.series_files() if not patches.is_variant(name)]
    assert sorted(every) == ours


def test_each_series_has_its_commits() -> None:
    assert {cover: list(each) for cover, each in commits.read().items()} == {
        commits.FIRST: ["core", "docs"],
        commits.TESTS: ["kunit", "selftest"],
    }
    assert list(commits.carried(commits.TESTS)) == ["kunit", "selftest"]


@pytest.mark.parametrize(
    "line",
    [
        *("core no/such/file", "core series/series more", "nothing", "cover"),
        *("core series/cover", "core"),  # of the other series, and no cover letter
    ],
)
def test_a_wrong_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "series/series"
    for name in ("cover", "cover-tests"):
        paths.write(file.with_name(name), b"")
    good = "# a comment\ncover\ncore series/cover\ncover-tests\nkunit series/cover\n"
    file.write_text(good)
    assert len(commits.read(file)) == 2
    file.write_text(good + line + "\n")
    with pytest.raises(CannotTell, match=r"series/series:6: must be NAME FILE"):
        commits.read(file)
    file.write_text("core series/cover\n" + good)
    with pytest.raises(CannotTell, match=r"series/series:1: must be NAME FILE"):
        commits.read(file)


def _words(name: str) -> str:
    """Return what a message or cover letter says, however its lines are broken."""
    return " ".join((commits.SERIES / name).read_text().split())


def _subject(name: str) -> str:
    return (commits.SERIES / name).read_text().partition("\n")[0]


def test_the_series_name_each_other_by_their_subjects() -> None:
    assert f'"{_subject("cover")}"' in _words("cover-tests")
    assert f'"{_subject("cover-tests")}"' in _words("cover")
    for name in commits.carried(commits.TESTS):
        assert f'Without "{_subject("core")}"' in _words(name)


def test_a_cover_letter_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cover in commits.read():
        mails.read_cover(cover, 1)
    monkeypatch.setattr(mails, "SERIES", tmp_path)
    (tmp_path / "cover").write_text("line\n" * 79 + "Changes in v2:\n")
    assert mails.read_cover("cover", 2).endswith("v2:\n")
    with pytest.raises(CannotTell, match='series/cover has no line "Changes in v3:"'):
        mails.read_cover("cover", 3)
    (tmp_path / "cover").write_text("line\n" * 81)
    with pytest.raises(CannotTell, match="series/cover has 81 lines: at most 80"):
        mails.read_cover("cover", 1)


@pytest.fixture(name="told")
def _told() -> suites.Failing:
    message = (commits.SERIES / "kunit").read_text()
    return suites.failing(message, (paths.TOP / kernel.SUITE).read_text())


def _found(told: suites.Failing, why: str = "") -> suites.Tally:
    """Return what comes of the suites without the change, in a boot."""
    names = sorted(told.names)
    return suites.Tally(names=names, why=why, at_boot=(told.failed, told.ran))


def test_the_message_of_the_suites_names_the_cases_that_fail(told: suites.Failing) -> None:
    readme = (paths.SCRIPTS / "README.md").read_text()
    table = readme.partition("\nOn stock they fail")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == told.names
    assert len(told.names) <= told.failed < told.ran
    assert f"{told.failed} of the {told.ran} cases" in _words("cover-tests")
    for message in ("18 of the 98 cases", "every_group fails"):
        with pytest.raises(CannotTell, match="does not say which cases fail"):
            suites.failing(message, "KUNIT_CASE(every_group)")


def test_just_these_cases_fail_without_the_change(told: suites.Failing) -> None:
    assert told.differs(_found(told)) == ""
    killed = "no end within 1 s, killed"
    assert told.differs(_found(told, killed)) == killed
    fewer = replace(told, names=told.names - {"replug"})
    assert fewer.differs(_found(told)) == "replug should not fail"
    found = _found(told)
    found.names.remove("replug")
    assert told.differs(found) == "replug should fail"
    found = _found(told)
    found.at_boot = (told.failed - 1, told.ran)
    some = f"{told.failed - 1} of {told.ran} cases fail"
    assert told.differs(found) == f"{some}, not {told.failed} of {told.ran}"


@pytest.mark.parametrize("why, status", [("", AS_EXPECTED), ("killed", NOT_AS_EXPECTED)])
def test_the_tests_alone(
    why: str,
    status: int,
    told: suites.Failing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are booted as stock, and their suites have to fail."""
    booted: list[str] = []

    def boot_machines(words: Sequence[str]) -> int:
        booted.extend(words)
        return AS_EXPECTED

    class Suites:
        def __init__(self, *words: object) -> None:
            pass

        def boot(self, strict: str) -> "tuple[suites.Tally, Path]":
            booted.append(strict)
            return _found(told, why), tmp_path

    monkeypatch.setattr(boot, "main", boot_machines)
    monkeypatch.setattr(kunit, "main", lambda words: NOT_AS_EXPECTED)
    monkeypatch.setattr(kernel.Kernel, "make", lambda self: None)
    monkeypatch.setattr(series, "build_suites", lambda *words: (tmp_path, tmp_path))
    monkeypatch.setattr(series, "Suites", Suites)
    monkeypatch.setattr(verdict, "Parser", lambda tree: None)
    monkeypatch.setattr(process, "step", lambda *words: None)
    edits = {name: (paths.TOP / name).read_bytes() for name in (kernel.SUITE, check.SELFTEST)}
    like = kernel.stock(base.Base("toy", tmp_path))
    assert series._test_kernel(like, "tests", edits) == status
    assert booted == ["--base", "toy", "--kernel", "tests", *series.TESTED_ON, "0"]
    assert series._test_kernel(like, "commit", edits) == NOT_AS_EXPECTED


def test_only_mails_of_ours_are_deleted(tmp_path: Path) -> None:
    ours = tmp_path / "v2-0001-a-subject-that-has-changed-since.patch"
    edited = tmp_path / "0002-edited.patch"
    for mail in (ours, edited):
        mail.write_text("ours\n")
    mails._keep_list(tmp_path, commits.FIRST, [ours, edited])
    edited.write_text("edited\n")
    for name in ("0000-cover-letter.patch", "mine.patch"):
        (tmp_path / name).write_text("somebody's own\n")
    mails.delete_old(tmp_path, commits.FIRST)
    left = sorted(path.name for path in tmp_path.glob("*.patch"))
    assert left == ["0000-cover-letter.patch", "0002-edited.patch", "mine.patch"]


def test_mails_of_before_stay_if_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    new = [tmp_path / name for name in ("0000-a.patch", "0001-b.patch")]
    for mail in new:
        mail.write_text("old\n")
    mails._put(out, commits.FIRST, new)
    copied: list[Path] = []

    def copyfile(mail: Path, to: Path) -> None:
        to.write_text("half")
        copied.append(to)
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copyfile)
        with pytest.raises(OSError):
            mails._put(out, commits.FIRST, new)
    assert {path.read_text() for path in out.glob("*.patch")} == {"old\n"}
    assert not any(path.exists() for path in copied)
    new[0].write_text("new\n")
    mails._put(out, commits.FIRST, new)
    assert (out / new[0].name).read_text() == "new\n"


@pytest.mark.parametrize("name", ["0000-cover-letter.patch", "0002-edited.patch"])
def test_no_mail_is_written_over(name: str, tmp_path: Path) -> None:
    ours, edited = tmp_path / "0001-ours.patch", tmp_path / "0002-edited.patch"
    for mail in (ours, edited):
        mail.write_text("ours\n")
    mails._keep_list(tmp_path, commits.FIRST, [ours, edited])
    (tmp_path / name).write_text("edited, or somebody's own\n")
    with pytest.raises(CannotTell, match=f"{name}' has been edited, or is yours"):
        mails.delete_old(tmp_path, commits.FIRST, [ours.name, name])
    assert ours.exists() and (tmp_path / name).read_text() != "ours\n"


@pytest.mark.parametrize(
    "series, other",
    [(commits.FIRST, commits.TESTS), (commits.TESTS, commits.FIRST)],
)
def test_mails_of_the_other_series_are_not_touched(
    series: str, other: str, tmp_path: Path
) -> None:
    mail = tmp_path / "0000-cover-letter.patch"
    mail.write_text("ours\n")
    mails._keep_list(tmp_path, other, [mail])
    with pytest.raises(CannotTell, match="has the mails of the other series"):
        mails.delete_old(tmp_path, series)
    assert mail.exists()
    mails.delete_old(tmp_path, other)
    assert not mail.exists()
    mails.delete_old(tmp_path, series)


def test_the_users_configuration_does_not_change_mails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "gitconfig"
    told.write_text("[diff]\n\tnoprefix = true\n[format]\n\tuseAutoBase = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(told))
    ours = Repository(tmp_path / "ours", is_ours=True)
    paths.write(ours.top / "file", b"one\n")
    ours.begin("A B <a@b>")
    (ours.top / "file").write_text("two\n")
    ours.git("commit", "-q", "-a", "-m", "two")
    ours.git("checkout", "-q", "-b", "branch")
    assert "--- a/file" in ours.git("format-patch", "--stdout", "HEAD~1")


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(b"old")
    with pytest.raises(TypeError):
        paths.write_all({one: b"new", two: None})  # type: ignore[dict-item]
    assert one.read_bytes() == two.read_bytes() == b"old"
    paths.write_all({one: b"new", two: b"new"})
    assert one.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["one", "two"]


@pytest.mark.parametrize("place", ["/nowhere", "/"])
def test_what_is_no_tree_is_refused(place: str) -> None:
    with pytest.raises(CannotTell, match="is not the top of a git tree of the kernel"):
        commits.check_tree(place)


@pytest.mark.parametrize(
    "extra, version", [("", "7.4.0"), (" ", "7.4.0"), (" -rc2", "7.4.0-rc2")]
)
def test_the_version_of_a_tree(extra: str, version: str, tmp_path: Path) -> None:
    head = "# GPL\nVERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\n"
    (tmp_path / "Makefile").write_text(f"{head}EXTRAVERSION ={extra}\nNAME = x\n")
    assert commits.version_of(tmp_path) == version


def test_a_finding_counts_if_stock_does_not_have_it_as_often() -> None:
    trees = [Path("/b/stock"), Path("/b/patched")]
    stock = check.findings("/b/stock/a.c:10:5: warning: x\nCC a.o\n", trees)
    patched = check.findings(
        "/b/patched/a.c:12:5: warning: x\n../a.c:99: warning: x\n$ error: x\n", trees
    )
    assert check.new_findings(stock, patched) == ["a.c:: warning: x"]
    assert check.new_findings(stock, stock) == []


def test_every_shell_file_is_checked() -> None:
    names = {str(path.relative_to(paths.TOP)) for path in check.shell_files()}
    assert {".ci/run", "scripts/boot", "scripts/workbench/start.sh"} <= names
    verbs = {path for path in (paths.TOP / "scripts").iterdir() if path.stat().st_mode & 0o111}
    assert {f"scripts/{path.name}" for path in verbs if path.is_file()} <= names
