# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/report [--baseline FILE] [DIR]

Make report.html of what scripts/bench has left in DIR, build/bench unless given:
summary.csv and about. One page that needs nothing else: a sentence, two plots, tables.
Prints the rows that matter most, as scripts/README.md has them, and where the page is.

  --baseline FILE  compare with FILE, a summary.csv of before: print where patched is slower
                   than stock though nothing may differ, and what is not as it was

Exit status: 0 done; 1 with --baseline, patched is slower where it must not differ; 2 not
possible: bad argument, nothing to report, or nothing that was measured before, too.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Optional, Sequence

from workbench import packages, page, paths, progress, summary, verb
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell
from workbench.summary import Row


def report(directory: Path, baseline: Optional[Sequence[Row]] = None) -> int:
    """Make the page in a directory, print what matters most; return the exit status."""
    file, about = directory / "summary.csv", directory / "about"
    if not file.is_file() or not about.is_file():
        raise CannotTell(f"'{directory}' has no summary.csv or about: run scripts/bench")
    rows = summary.read(file)
    made = page.page(rows, about.read_text())
    paths.write(directory / "report.html", made.encode())
    for line in textwrap.wrap(page.finding(rows), 88):
        progress.result(line)
    for line in page.small_table(rows):
        progress.result(line)
    status = AS_EXPECTED
    if baseline is not None:
        compared = summary.compare(baseline, rows)
        for line in compared.lines:
            progress.result(line)
        status = NOT_AS_EXPECTED if compared.is_slower else AS_EXPECTED
    progress.say(str(directory / "report.html"))
    return status


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("directory", nargs="?", type=Path, default=paths.BUILD / "bench")
    asked = parser.parse(arguments)
    baseline = summary.read(asked.baseline) if asked.baseline else None
    packages.install(packages.REPORT, paths.BUILD / "log")
    return report(asked.directory, baseline)
