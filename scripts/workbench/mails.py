# SPDX-License-Identifier: GPL-2.0-only
"""A series as mails to those whom the kernel's get_maintainer.pl names."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Iterator, Optional, Sequence

from workbench import base as bases
from workbench import paths, process
from workbench.commits import FIRST, SERIES, TESTS, Commits, commits_on, version_of
from workbench.status import CannotTell


# In the directory that they are in: what write_mails() has left there of each series
_LISTS = {FIRST: ".mails", TESTS: ".mails-tests"}
BRANCH = "default-domain"
LONGEST = 80  # lines of a cover letter


def based_on(base: bases.Base) -> str:
    """Return the line of a cover letter that says what the series is based on."""
    linux = f"Linux {version_of(base.stock)}"
    is_debian = base.version.startswith("linux-source-")
    return f"Based on {linux}" + (f", Debian's {base.version}." if is_debian else ".")


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


def _listed(output: Path, cover: str) -> dict[Path, str]:
    """Return the mails of a series that are still in a directory, with their digests."""
    kept = output / _LISTS[cover]
    found = {}
    for line in kept.read_text().splitlines() if kept.exists() else []:
        digest, _, name = line.partition(" ")
        found[output / Path(name).name] = digest
    return {mail: digest for mail, digest in found.items() if mail.is_file()}


def delete_old(output: Path, cover: str, names: Sequence[str] = ()) -> None:
    """Delete the mails of a series that write_mails() has left, unless they were edited.

    names: of the mails that are to be written. Raises CannotTell, nothing being deleted, if a
    file that is to stay has one of them, or if mails of the other series are there.
    """
    for other in _LISTS:
        if other != cover and _listed(output, other):
            raise CannotTell(f"'{output}' has the mails of the other series: move them away")
    listed = _listed(output, cover)
    ours = [mail for mail, digest in listed.items() if _digest(mail) == digest]
    for name in names:
        if (output / name).exists() and output / name not in ours:
            raise CannotTell(f"'{output / name}' has been edited, or is yours: move it away")
    for mail in ours:
        mail.unlink()
    (output / _LISTS[cover]).unlink(missing_ok=True)


def _digest(mail: Path) -> str:
    return hashlib.sha256(mail.read_bytes()).hexdigest()


def _keep_list(output: Path, cover: str, mails: Sequence[Path]) -> None:
    lines = [f"{_digest(mail)} {mail.name}\n" for mail in mails]
    paths.write(output / _LISTS[cover], "".join(lines).encode())


def read_cover(cover: str, number: int) -> str:
    """Return a cover letter; raise CannotTell if nobody would want to read it as it is.

    number: the version of the series, of which it has to say what has changed.
    """
    text = (SERIES / cover).read_text()
    lines = text.splitlines()
    if len(lines) > LONGEST:
        raise CannotTell(f"series/{cover} has {len(lines)} lines: at most {LONGEST}")
    wanted = f"Changes in v{number}:"
    if number > 1 and wanted not in lines:
        raise CannotTell(f"--version '{number}': series/{cover} has no line \"{wanted}\"")
    return text


def write_mails(
    base: bases.Base, cover: str, number: int, output: Path, identity: Optional[str] = None
) -> list[Path]:
    """Write the mails of a series on a base; return their files.

    The cover letter says last what it is based on: the release has no commit to name.
    number: the version of the series. identity: whose they are, git's user if not given.
    """
    based = based_on(base)
    text = f"{read_cover(cover, number).rstrip()}\n\n{based}\n"
    run = paths.run_directory("series")
    made = commits_on(base, run, cover, identity)
    repository = made.repository
    repository.git("checkout", "-q", "-b", BRANCH, made.last)
    repository.git("config", f"branch.{BRANCH}.description", text)
    repository.git("format-patch", "-q", "-o", str(run / "plain"), made.start)
    options = list(_addresses(base, made, sorted((run / "plain").iterdir())))
    options += [] if number == 1 else ["-v", str(number)]
    options += ["--cover-letter", "--cover-from-description=subject", "--thread=shallow"]
    repository.git("format-patch", "-q", "-o", str(run / "series"), *options, made.start)
    return _put(output, cover, sorted((run / "series").iterdir()))


def _put(output: Path, cover: str, mails: Sequence[Path]) -> list[Path]:
    """Have mails in a directory in place of those of before; return their files there.

    All are copied before the old ones are deleted: the disk may be full.
    """
    output.mkdir(parents=True, exist_ok=True)
    new = {output / f".{mail.name}.new": output / mail.name for mail in mails}
    try:
        for mail, copy in zip(mails, new):
            shutil.copyfile(mail, copy)
        delete_old(output, cover, [mail.name for mail in mails])
        for copy, written in new.items():
            copy.rename(written)
    finally:
        for copy in new:
            paths.remove(copy)
    _keep_list(output, cover, list(new.values()))
    return list(new.values())
