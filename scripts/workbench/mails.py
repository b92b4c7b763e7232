# SPDX-License-Identifier: GPL-2.0-only
"""The series as mails to those whom the kernel's get_maintainer.pl names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Iterator, Sequence

from workbench import base as bases
from workbench import paths, process
from workbench.commits import SERIES, Commits, carried, commits_on
from workbench.status import CannotTell


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
