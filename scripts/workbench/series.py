# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/series apply DIR
       scripts/series save DIR
       scripts/series test [--base BASE]
       scripts/series mail [--base BASE] [--version N] [--output DIR] [--send]

The series as commits, and as mail. series/series says which commit carries what,
series/NAME is its message, series/cover the cover letter.

  apply DIR       make the commits on top of DIR's HEAD, as the branch default-domain, which
                  it then checks out; with your sign-off
  save DIR        the way back: of DIR's last commits, as many as the series has, write
                  files, diffs and messages here. DIR is of Linux mainline; what 6.12 wants
                  otherwise, NAME.lts.patch, stays as it is. Refused if what it would write
                  over has changes here that are not committed
  test            build the kernel after each commit, boot it where a driver requires
                  translation, and run what tests it has by then
  mail            write the mails, cover letter first, to those whom get_maintainer.pl names
                  by the files, and the messages by Cc and Suggested-by
    --base BASE   on or for mainline (the default), newest, lts or a directory, see
                  scripts/setup
    --version N   as version N, 1 unless given; from 2 on the cover letter must have a line
                  "Changes in vN:"
    --output DIR  to DIR instead of build/series/; older mails of this series in it are deleted
    --send        hand them to git send-email, as a dry run unless you confirm

DIR is the top of a git tree of the kernel without changes that are not committed. The name
and address of the commits are those that git has been told.

Exit status: 0 done; 1 a test failed; 2 not done: bad argument, or the series does not
apply; then DIR and this directory are as before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from workbench import base as bases
from workbench import boot, kernel, kunit, packages, patches, paths, process, progress
from workbench import setup, verb
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell

SERIES = paths.TOP / "series"
BRANCH = "default-domain"
TESTED_ON = ("vtd-nopt", "vtd-nopt-external")


def carried(file: Path = SERIES / "series") -> Mapping[str, list[str]]:
    """Return the files that each commit carries, by the commits' names, in order."""
    found: dict[str, list[str]] = {}
    top = file.parents[1]
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or not (top / words[1]).is_file():
            raise CannotTell(
                f"{file}:{number}: must be NAME FILE, FILE one of this repository"
            )
        found.setdefault(words[0], []).append(words[1])
    return found


@dataclass(frozen=True)
class Commits:
    """The series as commits in a repository: its start, and each commit by its name."""

    repository: Repository
    start: str
    commits: Mapping[str, str]

    @property
    def last(self) -> str:
        """The commit with all of the series."""
        return list(self.commits.values())[-1]


def check_tree(directory: str) -> Repository:
    """Return a clean git tree of the kernel; raise CannotTell if it is none."""
    top = Path(directory)
    if not (top / "drivers/iommu/iommu.c").is_file() or not (top / ".git").exists():
        raise CannotTell(f"'{directory}' is not the top of a git tree of the kernel")
    repository = Repository(top.resolve())
    if repository.git("status", "--porcelain").strip():
        raise CannotTell(
            f"'{directory}' has changes that are not committed: commit or stash them"
        )
    return repository


def version_of(tree: Path) -> str:
    """Return the version in a kernel's Makefile, "7.3.4"."""
    found = re.findall(
        r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\S+)", (tree / "Makefile").read_text(), re.M
    )
    return ".".join(found)


def _message(repository: Repository, name: str) -> bytes:
    """Return the message of a commit, signed off."""
    trailer = f"Signed-off-by: {repository.identity()}"
    return repository.git_bytes(
        "interpret-trailers",
        "--if-exists",
        "addIfDifferent",
        "--trailer",
        trailer,
        given=(SERIES / name).read_bytes(),
    )


def make_commits(repository: Repository, run: Path) -> Commits:
    """Make the series on top of a repository's HEAD.

    Only git's objects are written, so that a failure leaves nothing behind. run: where an
    index may be.
    """
    start = repository.git("rev-parse", "HEAD").strip()
    series = patches.Series(patches.Files(repository.top), version_of(repository.top))
    index = run / "index"
    repository.git("read-tree", start, index=index)
    commit = start
    commits = {}
    for name, files in carried().items():
        changed: list[str] = []
        for file in patches.in_order(files):
            changed += series.add(file)
        for path in changed:
            blob = repository.add_blob(series.files.read(path))
            repository.git(
                "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index
            )
        tree_ = repository.git("write-tree", index=index).strip()
        message = _message(repository, name)
        commit = repository.commit_tree(tree_, commit, message)
        commits[name] = commit
    return Commits(repository, start, commits)


def _apply(directory: str) -> int:
    repository = check_tree(directory)
    repository.identity()
    if repository.has_branch(BRANCH):
        raise CannotTell(f"'{directory}' has a branch {BRANCH} already: rename or delete it")
    made = make_commits(repository, paths.run_directory("series"))
    repository.git("checkout", "-q", "-b", BRANCH, made.last)
    version = version_of(repository.top)
    progress.say(f"{directory}: {len(made.commits)} commits on {version}, branch {BRANCH}")
    return AS_EXPECTED


def _without_git(diff: bytes) -> bytes:
    """Return a diff without what only git knows."""
    lines = diff.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith((b"diff --git ", b"index ")))


def _saved(repository: Repository, name: str, commit: str) -> dict[str, bytes]:
    """Return what a commit has of the files of one of the series, and its message."""
    listed = repository.git("diff-tree", "-r", "--name-only", "--no-commit-id", commit)
    changed = set(listed.splitlines())
    saved = {}
    for file in carried()[name]:
        if file.endswith(".patch"):
            edited = patches.paths_of((paths.TOP / file).read_text())
            diff = _without_git(repository.diff(f"{commit}^", commit, edited))
            if not diff:
                names = " ".join(edited)
                raise CannotTell(
                    f"commit {commit} does not change {names}, which '{name}' should"
                )
            saved[file] = diff
        else:
            edited = [file]
            content = repository.blob(f"{commit}:{file}")
            if content is None:
                raise CannotTell(f"commit {commit} has no {file}, which '{name}' should")
            saved[file] = content
        changed -= set(edited)
    if changed:
        raise CannotTell(
            f"commit {commit} changes {' '.join(sorted(changed))}, "
            f"which series/series does not give to '{name}'"
        )
    saved[f"series/{name}"] = _unsigned(repository, commit)
    return saved


def _unsigned(repository: Repository, commit: str) -> bytes:
    message = repository.git("log", "-1", "--format=%B", commit)
    ours = f"Signed-off-by: {repository.identity()}"
    kept = "\n".join(line for line in message.splitlines() if line != ours)
    return repository.git_bytes("stripspace", given=kept.encode())


def _refuse_changes(names: Sequence[str]) -> None:
    """Raise CannotTell if files of this repository have changes that are not committed."""
    if not (paths.TOP / ".git").exists():
        return
    here = Repository(paths.TOP)
    changed = here.git("status", "--porcelain", "--", *names).splitlines()
    if changed:
        raise CannotTell(f"'{changed[0][3:]}' has changes here that are not committed")


def _save(directory: str) -> int:
    repository = check_tree(directory)
    repository.identity()
    version = version_of(repository.top)
    if version.startswith("6.12"):
        raise CannotTell(f"'{directory}' is Linux {version}: save takes mainline only")
    names = list(carried())
    saved: dict[str, bytes] = {}
    for back, name in zip(range(len(names) - 1, -1, -1), names):
        commit = repository.git("rev-parse", "-q", "--verify", f"HEAD~{back}").strip()
        saved.update(_saved(repository, name, commit))
    different = [
        name for name, content in saved.items() if (paths.TOP / name).read_bytes() != content
    ]
    _refuse_changes(different or ["series"])
    for name in different:
        (paths.TOP / name).write_bytes(saved[name])
    progress.say(f"saved {len(names)} commits of {directory}")
    return AS_EXPECTED


def commits_on(base: bases.Base, run: Path) -> Commits:
    """Make the commits in a repository of our own, of what the series edits of a base."""
    edited = {"Makefile"}
    for file in patches.series_files():
        if file.endswith(".patch") and not patches.is_variant(file):
            edited.update(patches.paths_of((paths.TOP / file).read_text()))
    top = run / "repository"
    for path in sorted(edited):
        if (base.stock / path).exists():
            paths.write(top / path, (base.stock / path).read_bytes())
    attributes = base.stock / ".gitattributes"
    if attributes.exists():
        shutil.copyfile(attributes, top / ".gitattributes")
    repository = Repository(top)
    identity = Repository(paths.TOP).identity()
    repository.begin(identity)
    return make_commits(repository, run)


def _edits_at(made: Commits, commit: str) -> patches.Edits:
    """Return the edits of the series that a commit and those before it have made."""
    changed = made.repository.git("diff", "--name-only", made.start, commit).splitlines()
    contents = {path: made.repository.blob(f"{commit}:{path}") for path in changed}
    return {path: content for path, content in contents.items() if content is not None}


def _test_commit(base: bases.Base, built: kernel.Kernel) -> int:
    """Run what tests a commit has; return the status."""
    options = ["--base", base.name, "--kernel", "commit"]
    status = boot.main([*options, *TESTED_ON])
    if status == AS_EXPECTED and kernel.SUITE in built.edits:
        status = kunit.main(options)
    if (
        status == AS_EXPECTED
        and "tools/testing/selftests/iommu/default_domain.c" in built.edits
    ):
        make: list[str | Path] = ["make", "-C", built.tree / "tools/testing/selftests"]
        make += ["TARGETS=iommu", f"O={built.tree}/obj-x86_64", f"LLVM={packages.LLVM}"]
        process.step("build the selftests", base.log / "series-selftests.log", make)
    return status


def _test(arguments: Sequence[str]) -> int:
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    asked = parser.parse(arguments)
    base = bases.find(asked.base)
    setup.prepare(base, ["x86_64"], *packages.GIT)
    made = commits_on(base, paths.run_directory("series"))
    patched = kernel.patched(base)
    # Other runs have to wait until the end: the commits are all in one tree
    with paths.locked(base.directory, "commit.lock"):
        for commit in made.commits.values():
            progress.result(made.repository.git("log", "-1", "--format=%s", commit).strip())
            edits = _edits_at(made, commit)
            built = kernel.edited(patched, "commit", edits)
            with paths.locked(base.directory):
                built.make()
            if _test_commit(base, built) != AS_EXPECTED:
                return NOT_AS_EXPECTED
    return AS_EXPECTED


def _recipients(base: bases.Base, mails: Sequence[Path], *words: str) -> list[str]:
    """Return the addresses that get_maintainer.pl names.

    Not by keywords: a comment for clang-format is not for those of Clang.
    """
    command = ["scripts/get_maintainer.pl", "--no-tree", "--no-git", "--no-git-fallback"]
    command += ["--no-keywords", "--no-rolestats", *words]
    said = process.output([*command, *mails], cwd=base.stock)
    return sorted(set(said.splitlines()))


def _addresses(base: bases.Base, made: Commits, plain: Sequence[Path]) -> Iterator[str]:
    to = _recipients(base, plain, "--no-l", "--no-r")
    if not to:
        raise CannotTell(f"get_maintainer.pl of {base.stock} names nobody")
    trailers = made.repository.git(
        "log",
        "--format=%(trailers:key=Cc,key=Suggested-by,valueonly)",
        f"{made.start}..{made.last}",
    )
    copies = _recipients(base, plain, "--no-m") + [
        line for line in trailers.splitlines() if line
    ]
    yield from (f"--to={address}" for address in to)
    yield from (f"--cc={address}" for address in copies)


def _is_ours(mail: Path) -> bool:
    """Whether a mail is one of this series: its number, and the subject of a message."""
    match = re.match(r"(?:v\d+-)?\d{4}-(.+)\.patch$", mail.name)
    if not match:
        return False
    subjects = [(SERIES / name).read_text().splitlines()[0] for name in carried()]
    names = [re.sub(r"[^A-Za-z0-9_.]+", "-", subject).strip("-.")[:52] for subject in subjects]
    return match[1] == "cover-letter" or match[1].rstrip("-.") in [
        n.rstrip("-.") for n in names
    ]


def write_mails(base: bases.Base, number: int, output: Path) -> list[Path]:
    """Write the mails of the series on a base; return their files."""
    run = paths.run_directory("series")
    made = commits_on(base, run)
    repository = made.repository
    repository.git("checkout", "-q", "-b", BRANCH, made.last)
    cover = (SERIES / "cover").read_text()
    repository.git("config", f"branch.{BRANCH}.description", cover)
    repository.git("format-patch", "-q", "-o", str(run / "plain"), made.start)
    options = list(_addresses(base, made, sorted((run / "plain").iterdir())))
    options += [] if number == 1 else ["-v", str(number)]
    options += ["--cover-letter", "--cover-from-description=subject", "--thread=shallow"]
    repository.git("format-patch", "-q", "-o", str(run / "series"), *options, made.start)
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("*.patch"):
        if _is_ours(old):
            old.unlink()
    written = []
    for mail in sorted((run / "series").iterdir()):
        written.append(Path(shutil.move(mail, output / mail.name)))
    return written


def _mail(arguments: Sequence[str]) -> int:
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    parser.add_argument("--version", type=verb.number, default=1)
    parser.add_argument("--output", type=Path, default=paths.BUILD / "series")
    parser.add_argument("--send", action="store_true")
    asked = parser.parse(arguments)
    wanted = f"Changes in v{asked.version}:"
    if asked.version > 1 and wanted not in (SERIES / "cover").read_text().splitlines():
        raise CannotTell(f"--version '{asked.version}': series/cover has no line \"{wanted}\"")
    base = bases.find(asked.base)
    packages.install([*packages.FETCH, *packages.GIT], base.log)
    if asked.send and not (Path(_git_exec_path()) / "git-send-email").exists():
        raise CannotTell(
            "--send: there is no git send-email here: apt-get install git-email libmailtools-perl"
        )
    with paths.locked(base.directory):
        bases.fetch(base)
    written = write_mails(base, asked.version, asked.output.resolve())
    for mail in written:
        print(mail)
    if asked.send:
        _send(written)
    return AS_EXPECTED


def _git_exec_path() -> str:
    return process.output(["git", "--exec-path"]).strip()


def _send(mails: Sequence[Path]) -> None:
    """Send the mails; not before you have seen to whom."""
    command = ["git", "send-email", "--confirm=never"]
    names = [str(mail) for mail in mails]
    subprocess.run([*command, "--dry-run", *names], check=True, env=process.environment())
    if input("Send these mails? [y/N] ") != "y":
        progress.say("not sent")
        return
    subprocess.run([*command, *names], check=True, env=process.environment())


def _directory(arguments: Sequence[str], name: str) -> str:
    verb.Arguments(__doc__ or "").parse_help(arguments)
    if len(arguments) != 1 or arguments[0].startswith("--"):
        raise CannotTell(f"{name} wants one directory, see --help")
    packages.install(packages.GIT, paths.BUILD / "log")
    return arguments[0]


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    command: Optional[str] = arguments[0] if arguments else None
    rest = arguments[1:]
    if command == "--help":
        verb.Arguments(__doc__ or "").parse(arguments)
    if command == "apply":
        return _apply(_directory(rest, command))
    if command == "save":
        return _save(_directory(rest, command))
    if command == "test":
        return _test(rest)
    if command == "mail":
        return _mail(rest)
    raise CannotTell(
        f"unknown command '{command or ''}': must be one of: apply save test mail"
    )
