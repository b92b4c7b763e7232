# SPDX-License-Identifier: GPL-2.0-only
"""The two series as commits: which carries what, and making them in a git repository."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

from workbench import base as bases
from workbench import patches, paths
from workbench.repository import Repository
from workbench.status import CannotTell


SERIES = paths.TOP / "series"


FIRST, TESTS = "cover", "cover-tests"  # each series goes by its cover letter
BOTH = ""

Carried = Mapping[str, list[str]]  # the files that each commit carries, by its name, in order


def read(file: Path = SERIES / "series") -> Mapping[str, Carried]:
    """Return what the commits of each series carry, in order."""
    found: dict[str, dict[str, list[str]]] = {}
    series_of: dict[str, str] = {}
    cover = ""
    top = file.parents[1]
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) == 1 and words[0] not in found and (file.parent / words[0]).is_file():
            cover = words[0]
            found[cover] = {}
        elif (
            len(words) == 2
            and (top / words[1]).is_file()
            and cover
            and series_of.setdefault(words[0], cover) == cover
        ):
            found[cover].setdefault(words[0], []).append(words[1])
        else:
            raise CannotTell(
                f"{file}:{number}: must be NAME FILE, FILE one of this repository, "
                "or COVER, before the commits of its series"
            )
    return found


def carried(cover: str = BOTH) -> Carried:
    """Return the files that each commit of a series carries, or of both, in order."""
    return {
        name: files
        for series, commits in read().items()
        if cover in (BOTH, series)
        for name, files in commits.items()
    }


@dataclass(frozen=True)
class Commits:
    """A series as commits in a repository: its start, and each commit by its name."""

    repository: Repository
    start: str
    commits: Mapping[str, str]

    @property
    def last(self) -> str:
        """The commit with all of it."""
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
    """Return the version in a kernel's Makefile, "7.3.4" or "7.4.0-rc2"."""
    found = re.findall(
        r"^(?:VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) =[ \t]*(\S*)$",
        (tree / "Makefile").read_text(),
        re.M,
    )
    return ".".join(found[:3]) + "".join(found[3:])


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


def make_commits(repository: Repository, run: Path, cover: str = BOTH) -> Commits:
    """Make a series, or both, on top of a repository's HEAD.

    Only git's objects are written, so that a failure leaves nothing behind. run: where an
    index may be.
    """
    start = repository.git("rev-parse", "HEAD").strip()
    series = patches.Series(patches.Files(repository.top), version_of(repository.top))
    index = run / "index"
    repository.git("read-tree", start, index=index)
    commit = start
    commits = {}
    for name, files in carried(cover).items():
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


def commits_on(
    base: bases.Base, run: Path, cover: str = BOTH, identity: Optional[str] = None
) -> Commits:
    """Make a series, or both, in a repository of our own, of what they edit of a base.

    identity: who commits, git's user if not given.
    """
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
    repository = Repository(top, is_ours=True)
    repository.begin(identity or Repository(paths.TOP).identity())
    return make_commits(repository, run, cover)
