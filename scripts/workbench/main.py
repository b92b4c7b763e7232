# SPDX-License-Identifier: GPL-2.0-only
"""The beginning of every verb: scripts/VERB hands its name and arguments over to here."""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Sequence

# Whatever the directory is that one stands in, and whatever is in the path to here
sys.path[0] = str(Path(__file__).resolve().parents[1])

try:
    from workbench import packages, paths, verb
except Exception as error:  # the modules that would tell of it are not there yet
    print(f"{sys.argv[1]}: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)  # which is status.NOT_FOUND_OUT


def main(verb_name: str, words: Sequence[str]) -> int:
    """Import a verb and run it, as the owner of the checkout; return its exit status."""
    packages.act_as_owner()
    status: int = importlib.import_module(f"workbench.{verb_name}").main(words)
    return status


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    sys.exit(verb.run(name, partial(main, name), arguments, paths.BUILD / "log"))
