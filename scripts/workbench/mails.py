# SPDX-License-Identifier: GPL-2.0-only
"""The series as mails to those whom the kernel's get_maintainer.pl names."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Iterator, Optional, Sequence

from workbench import base as bases
from workbench import paths, process
from workbench.commits import SERIES, Commits, commits_on
from workbench.status import CannotTell


_LIST = ".mails"  # in the directory that they are in: what write_mails() has left there
BRANCH = "default-domain"


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


def delete_old(output: Path) -> None:
    """Delete the mails that write_mails() has left in a directory, unless they were edited."""
    kept = output / _LIST
    if not kept.exists():
        return
    for line in kept.read_text().splitlines():
        digest, _, name = line.partition(" ")
        mail = output / Path(name).name
        if mail.is_file() and hashlib.sha256(mail.read_bytes()).hexdigest() == digest:
            mail.unlink()
    kept.unlink()


def _keep_list(output: Path, mails: Sequence[Path]) -> None:
    lines = [
        f"{hashlib.sha256(mail.read_bytes()).hexdigest()} {mail.name}\n" for mail in mails
    ]
    paths.write(output / _LIST, "".join(lines).encode())


def write_mails(
    base: bases.Base, number: int, output: Path, identity: Optional[str] = None
) -> list[Path]:
    """Write the mails of the series on a base; return their files.

    number: the version of the series. identity: whose they are, git's user if not given.
    """
    run = paths.run_directory("series")
    made = commits_on(base, run, identity)
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
    delete_old(output)
    written = []
    for mail in sorted((run / "series").iterdir()):
        written.append(Path(shutil.move(mail, output / mail.name)))
    _keep_list(output, written)
    return written
