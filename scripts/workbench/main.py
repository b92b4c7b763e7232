# SPDX-License-Identifier: GPL-2.0-only
"""The beginning of every verb: scripts/VERB hands its name and arguments over to here."""

import importlib
import sys
from pathlib import Path

# Whatever the directory is that one stands in, and whatever is in the path to here
sys.path[0] = str(Path(__file__).resolve().parents[1])

from workbench import paths, verb  # noqa: E402

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    module = importlib.import_module(f"workbench.{name}")
    sys.exit(verb.run(name, module.main, arguments, paths.BUILD / "log"))
