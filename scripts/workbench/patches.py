# SPDX-License-Identifier: GPL-2.0-only
"""The series as files of this repository, and diffs that apply without fuzz or not at all."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Iterable, Iterator, Mapping, MutableMapping, Optional, Sequence

from workbench import paths, process
from workbench.status import CannotTell

Edits = Mapping[str, bytes]  # what a file of the kernel holds instead, by its path

_DIRECTORIES = ("Documentation", "drivers", "include", "tools")
_VARIANT = ".lts.patch"
_HOW = ("patch", "-p1", "-F0", "-f", "-s", "--no-backup-if-mismatch")


def series_files(top: Path = paths.TOP) -> list[str]:
    """Return the files of the series, by their paths in a checkout, variants with them."""
    found = [top / "MAINTAINERS.patch"]
    for directory in _DIRECTORIES:
        found += [path for path in (top / directory).rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(top)) for path in found if path.is_file())


def is_variant(name: str) -> bool:
    """Return whether a file is what a base other than mainline wants instead."""
    return name.endswith(_VARIANT)


def paths_of(diff: str) -> list[str]:
    """Return the paths of the files that a diff edits."""
    return [
        line[len("--- a/") :].split("\t")[0].strip()
        for line in diff.splitlines()
        if line.startswith("--- a/")
    ]


def created(diff: str) -> list[str]:
    """Return the paths of the files that a diff creates."""
    lines = diff.splitlines()
    return [
        new[len("+++ b/") :].split("\t")[0].strip()
        for old, new in zip(lines, lines[1:])
        if old.startswith("--- /dev/null") and new.startswith("+++ b/")
    ]


class DoesNotApply(CannotTell):
    """A diff does not apply. "hunks" are those that do not."""

    def __init__(self, text: str, hunks: str = "") -> None:
        super().__init__(text)
        self.hunks = hunks


class Files:
    """Files of a kernel as edits make them: read from a tree, and never written to it."""

    def __init__(self, tree: Path, edits: Optional[Edits] = None) -> None:
        self.tree = tree
        self.edits: MutableMapping[str, bytes] = dict(edits or {})

    def read(self, path: str) -> bytes:
        """Return what a file holds now."""
        if path in self.edits:
            return self.edits[path]
        return (self.tree / path).read_bytes()

    def add(self, path: str, content: bytes) -> None:
        """Have a file hold this."""
        self.edits[path] = content

    def apply(self, diff: bytes, name: str, reverse: bool = False) -> None:
        """Apply a diff to the files that it edits or creates, without fuzz.

        name: what the diff is called in an error. Raises DoesNotApply, nothing being
        changed, if a hunk does not apply; CannotTell if it has none, or deletes a file.
        """
        text = diff.decode(errors="replace")
        edited, new = paths_of(text), created(text)
        if not edited and not new:
            raise CannotTell(f"{name} edits no file: each must have a line '--- a/PATH'")
        with tempfile.TemporaryDirectory() as directory:
            into = Path(directory)
            for path in edited:
                try:
                    paths.write(into / path, self.read(path))
                except FileNotFoundError:
                    raise DoesNotApply(f"{name} does not apply: no {path} there") from None
            rejects = into / "rejects"
            command = [*_HOW, "-d", directory, "-r", str(rejects)]
            done = subprocess.run(
                command + (["-R"] if reverse else []),
                input=diff,
                env=process.environment(),
                capture_output=True,
                check=False,
            )
            if done.returncode not in (0, 1):
                why = (done.stderr or done.stdout).decode(errors="replace").strip()
                last = why.splitlines()[-1] if why else f"status {done.returncode}"
                raise process.Failed(f"{name}: patch: {last}", done.returncode)
            if done.returncode:
                hunks = rejects.read_text(errors="replace") if rejects.exists() else ""
                raise DoesNotApply(f"{name} does not apply", hunks)
            for path in [*edited, *new]:
                if not (into / path).is_file():
                    raise CannotTell(f"{name} deletes or renames {path}: only edits are taken")
            for path in [*edited, *new]:
                self.edits[path] = (into / path).read_bytes()


class Series:
    """The series, applied file by file to a kernel.

    Where the text of an edit, NAME.patch, does not apply but its variant does, the base
    wants the variants, and what is different of our own files for it.
    """

    def __init__(self, files: Files, version: str, top: Path = paths.TOP) -> None:
        self.files = files
        self.version = version
        self.top = top
        self.wants_variants = False

    def add(self, name: str) -> list[str]:
        """Apply one file of the series; return the paths that it changes in the kernel."""
        content = (self.top / name).read_bytes()
        if name.endswith(".patch"):
            self._edit(name, content)
            return paths_of(content.decode())
        self.files.add(name, content)
        variant = self.top / (name + _VARIANT)
        if self.wants_variants and variant.is_file():
            self.files.apply(variant.read_bytes(), variant.name)
        return [name]

    def _edit(self, name: str, diff: bytes) -> None:
        try:
            self.files.apply(diff, name)
            return
        except DoesNotApply as error:
            failure = error
        variant = self.top / (name[: -len(".patch")] + _VARIANT)
        if variant.is_file():
            try:
                self.files.apply(variant.read_bytes(), str(variant.relative_to(self.top)))
                self.wants_variants = True
                return
            except DoesNotApply:
                pass
        self._refuse(name, diff, failure)

    def _refuse(self, name: str, diff: bytes, failure: DoesNotApply) -> None:
        try:
            Files(self.files.tree, self.files.edits).apply(diff, name, reverse=True)
        except DoesNotApply:
            raise DoesNotApply(
                f"{failure.args[0]} to {self.version}; --base lts is Linux 6.12", failure.hunks
            ) from None
        raise DoesNotApply(f"{name} does not apply to {self.version}: it is in there already")


def in_order(names: Iterable[str]) -> Iterator[str]:
    """Yield the files of the series in the order in which they apply: edits first.

    An edit tells whether a base wants variants, which our own files have to know.
    """
    names = [name for name in names if not is_variant(name)]
    yield from (name for name in names if name.endswith(".patch"))
    yield from (name for name in names if not name.endswith(".patch"))


def apply_series(
    tree: Path, version: str, top: Path = paths.TOP, names: Optional[Iterable[str]] = None
) -> Edits:
    """Return the edits that the series makes to a base's stock tree.

    names: of its files that are applied, all of them if not given.
    """
    series = Series(Files(tree), version, top)
    for name in in_order(series_files(top) if names is None else names):
        series.add(name)
    return series.files.edits


def apply_all(tree: Path, edits: Edits, diffs: Sequence[Path]) -> Edits:
    """Return edits with diffs on top of them."""
    files = Files(tree, edits)
    for diff in diffs:
        files.apply(diff.read_bytes(), str(diff))
    return files.edits
