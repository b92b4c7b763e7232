# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/series apply DIR
       scripts/series save DIR
       scripts/series test [--base BASE]
       scripts/series mail [--tests] [--base BASE] [--version N] [--output DIR] [--send]

The change and its documentation, and its tests: two series, as commits and as mails. Each
applies with or without the other. series/series says which commit is of which series and
carries what, series/NAME is its message, series/cover and series/cover-tests are the cover
letters, of at most 80 lines.

  apply DIR       make the commits of both on top of DIR's HEAD, as the branch
                  default-domain, which it then checks out; with your sign-off. There,
                  git format-patch --base tells what they are based on
  save DIR        the way back: of DIR's last commits, as many as both series have, write
                  files, diffs and messages here. DIR is of Linux mainline; what 6.12 wants
                  otherwise, NAME.lts.patch, stays as it is. Refused if what it would write
                  over has changes here that are not committed
  test            build the kernel after each commit, boot it where a driver requires
                  translation, and run what tests it has by then. Last the same with the
                  tests alone: it must do as stock does, and of the KUnit cases those must
                  fail that the message of the suites names, and no others
  mail            write the mails of the change, cover letter first. They go to those whom
                  get_maintainer.pl gives for the files, and to those whom the messages name
                  in Cc and Suggested-by. The cover letter ends with the version that they
                  are based on
    --tests       the mails of the tests instead
    --base BASE   on or for mainline (the default), newest, lts or a directory, see
                  scripts/setup
    --version N   as version N, 1 unless given; from 2 on the cover letter must have a line
                  "Changes in vN:"
    --output DIR  to DIR instead of build/series/, or with --tests build/series-tests/; older
                  mails of the same series in it are deleted. Refused if DIR has mails of the
                  other series, or if this would write over a mail that you have edited, or
                  over a file that is not ours
    --send        hand them to git send-email, as a dry run unless you confirm

DIR is the top of a git tree of the kernel without changes that are not committed. The name
and address of the commits are those that git has been told.

Exit status: 0 done; 1 a test failed; 2 not done: bad argument, or the series does not
apply; then DIR and this directory are as before.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Optional, Sequence

from workbench import base as bases
from workbench import boot, kernel, kunit, machine, packages, patches, paths, process
from workbench import progress, setup, verb, verdict
from workbench.commits import FIRST, SERIES, TESTS, Commits, carried, check_tree
from workbench.commits import commits_on, make_commits, version_of
from workbench.mails import BRANCH, read_cover, write_mails
from workbench.repository import Repository
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell
from workbench.suites import Suites, build_suites, failing

TESTED_ON = ("vtd-nopt", "vtd-nopt-external")


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
    if different:
        _refuse_changes(different)
    paths.write_all({paths.TOP / name: saved[name] for name in different})
    progress.say(f"saved {len(names)} commits of {directory}")
    return AS_EXPECTED


def _edits_at(made: Commits, commit: str) -> patches.Edits:
    """Return the edits of the series that a commit and those before it have made."""
    changed = made.repository.git("diff", "--name-only", made.start, commit).splitlines()
    contents = {path: made.repository.blob(f"{commit}:{path}") for path in changed}
    return {path: content for path, content in contents.items() if content is not None}


def _test_kernel(like: kernel.Kernel, name: str, edits: patches.Edits) -> int:
    """Build a kernel with edits, and run what tests it has; return the status.

    name: "commit", or "tests", which must do as stock does.
    """
    base = like.base
    built = kernel.edited(like, name, edits)
    with paths.locked(base.directory):
        built.make()
    options = ["--base", base.name, "--kernel", name]
    status = boot.main([*options, *TESTED_ON])
    if status == AS_EXPECTED and kernel.SUITE in edits:
        status = _suites_fail(built) if name == "tests" else kunit.main(options)
    if status == AS_EXPECTED and "tools/testing/selftests/iommu/default_domain.c" in edits:
        # Alone: of 6.12.117 iommufd, beside it, does not compile
        output = built.tree / "obj-x86_64/kselftest/iommu"
        output.mkdir(parents=True, exist_ok=True)
        make: list[str | Path] = ["make", "-C", built.tree / "tools/testing/selftests/iommu"]
        make += [f"OUTPUT={output}", f"LLVM={packages.LLVM}", output / "default_domain"]
        with paths.locked(base.directory):
            process.step("build the selftests", base.log / "series-selftests.log", make)
    return status


def _suites_fail(built: kernel.Kernel) -> int:
    """Run the suites: those cases must fail which their message names; return the status."""
    wanted = failing((SERIES / "kunit").read_text(), built.edits[kernel.SUITE].decode())
    run = paths.run_directory("kunit")
    arch = machine.arch("x86_64")
    image, files = build_suites(built, arch, run)
    suites = Suites(arch, image, files, verdict.Parser(built.base.stock), run)
    with progress.activity("run KUnit without the change"):
        found, log = suites.boot("0")  # as scripts/mutate: where the system is lazy
    differs = wanted.differs(found)
    told = f"{wanted.failed} of {wanted.ran} cases fail, as they should"
    progress.result(f"KUnit without the change: {differs or told}")
    if not differs:
        return AS_EXPECTED
    paths.keep(run)
    progress.say(f"console: {log}")
    return NOT_AS_EXPECTED


def _test(arguments: Sequence[str]) -> int:
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    asked = parser.parse(arguments)
    base = bases.find(asked.base)
    setup.prepare(base, ["x86_64"], *packages.GIT)
    run = paths.run_directory("series")
    made = commits_on(base, run / "both")
    alone = commits_on(base, run / "tests", TESTS)
    # Other runs have to wait until the end: the commits are all in one tree
    with paths.locked(base.directory, "commit.lock"):
        for commit in made.commits.values():
            progress.result(made.repository.git("log", "-1", "--format=%s", commit).strip())
            edits = _edits_at(made, commit)
            if _test_kernel(kernel.patched(base), "commit", edits) != AS_EXPECTED:
                return NOT_AS_EXPECTED
        progress.result("The tests without the change")
        return _test_kernel(kernel.stock(base), "tests", _edits_at(alone, alone.last))


def _mail(arguments: Sequence[str]) -> int:
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--base", default="mainline")
    parser.add_argument("--version", type=verb.number, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--send", action="store_true")
    asked = parser.parse(arguments)
    if asked.send and not sys.stdin.isatty():
        raise CannotTell("--send: asks before it sends, and there is no terminal")
    cover, place = (TESTS, "series-tests") if asked.tests else (FIRST, "series")
    read_cover(cover, asked.version)  # before anything is fetched for it
    base = bases.find(asked.base)
    packages.install([*packages.FETCH, *packages.GIT], base.log)
    if asked.send and not (Path(_git_exec_path()) / "git-send-email").exists():
        raise CannotTell(
            "--send: there is no git send-email here: apt-get install git-email libmailtools-perl"
        )
    with paths.locked(base.directory):
        bases.fetch(base)
    output: Path = asked.output or paths.BUILD / place
    written = write_mails(base, cover, asked.version, output.resolve())
    for mail in written:
        print(mail)
    if asked.send:
        _send(written)
    return AS_EXPECTED


def _git_exec_path() -> str:
    return process.output(["git", "--exec-path"]).strip()


def _send(mails: Sequence[Path]) -> None:
    """Send the mails; not before you have seen to whom."""
    _send_email("--dry-run", *mails)
    if input("Send these mails? [y/N] ") != "y":
        progress.say("not sent")
        return
    _send_email(*mails)


def _send_email(*words: str | Path) -> None:
    command = ["git", "send-email", "--confirm=never", *words]
    done = subprocess.run(command, check=False, env=process.environment())
    if done.returncode:
        raise CannotTell(f"git send-email ends with {done.returncode}, see above")


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
