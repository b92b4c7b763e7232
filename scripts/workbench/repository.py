# SPDX-License-Identifier: GPL-2.0-only
"""A git repository that somebody has named, and no other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Optional, Sequence

from workbench import process
from workbench.status import CannotTell


class Repository:
    """The git tree whose top is a directory.

    Whatever a hook has set, as GIT_DIR, does not lead elsewhere: process.environment()
    leaves it out, and commits are not signed, as the user's configuration may want it.
    is_ours: none of the user's configuration is to have an effect in it.
    """

    def __init__(self, top: Path, is_ours: bool = False) -> None:
        self.top = top
        self.told = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        if not is_ours:
            self.told = {}

    def git_bytes(
        self, *words: str, given: bytes = b"", index: Optional[Path] = None
    ) -> bytes:
        """Return what git prints; raise CannotTell if it fails.

        given: for its stdin. index: the file that is the index, instead of the tree's own.
        """
        changes = {**self.told, **({"GIT_INDEX_FILE": str(index)} if index else {})}
        done = subprocess.run(
            ["git", "-c", "commit.gpgsign=false", "-C", str(self.top), *words],
            input=given,
            env=process.environment(**changes),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
            raise CannotTell(f"git {words[0]} in '{self.top}': {said.splitlines()[-1]}")
        output: bytes = done.stdout
        return output

    def git(self, *words: str, index: Optional[Path] = None) -> str:
        """Return what git prints as text; raise CannotTell if it fails."""
        return self.git_bytes(*words, index=index).decode(errors="replace")

    def begin(self, identity: str) -> None:
        """Make it a repository whose one commit, "stock", has all of its files."""
        match = re.match(r"(.*) <(.*)>$", identity)
        assert match
        self.git("init", "-q", "-b", "stock")
        self.git("config", "user.name", match[1])
        self.git("config", "user.email", match[2])
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--no-verify", "-m", "stock")

    def identity(self) -> str:
        """Return who commits, "NAME <ADDRESS>"; raise CannotTell if git has not been told."""
        try:
            ident = self.git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        except CannotTell:
            raise CannotTell(
                "git has not been told who you are: git config --global user.name, user.email"
            ) from None
        return ident.rpartition(">")[0] + ">"

    def has_branch(self, name: str) -> bool:
        """Return whether there is a branch of this name."""
        return bool(self.git("branch", "--list", name).strip())

    def add_blob(self, content: bytes) -> str:
        """Keep a file's content; return what git calls it."""
        said = self.git_bytes("hash-object", "-w", "--stdin", "--no-filters", given=content)
        return said.decode().strip()

    def blob(self, name: str) -> Optional[bytes]:
        """Return the content of "COMMIT:PATH", None if it is not there."""
        try:
            return self.git_bytes("cat-file", "blob", name)
        except CannotTell:
            return None

    def commit_tree(self, tree: str, parent: str, message: bytes) -> str:
        """Make a commit of a tree; return what git calls it."""
        said = self.git_bytes("commit-tree", "-p", parent, tree, given=message)
        return said.decode().strip()

    def diff(self, old: str, new: str, paths: Sequence[str]) -> bytes:
        """Return the diff between two commits, whatever the user has configured."""
        plain = ["--no-color", "--no-ext-diff", "--no-renames"]
        prefixes = ["--src-prefix=a/", "--dst-prefix=b/"]
        return self.git_bytes("diff", *plain, *prefixes, old, new, "--", *paths)
