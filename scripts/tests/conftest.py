# SPDX-License-Identifier: GPL-2.0-only
"""What several tests need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from workbench import base, paths, verdict  # noqa: E402


@pytest.fixture(scope="session")
def stock() -> Path:
    """The unpacked source of mainline, which scripts/test has fetched."""
    source = base.find("mainline").stock
    assert source.is_dir(), "scripts/setup has not been run"
    return source


@pytest.fixture(scope="session")
def parser(stock: Path) -> verdict.Parser:
    """The kernel's own parser of KTAP."""
    return verdict.Parser(stock)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what a test leaves go below its own directory, whoever commits."""
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{who}_{what}", raising=False)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
