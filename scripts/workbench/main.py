# SPDX-License-Identifier: GPL-2.0-only
"""The beginning of every verb: scripts/VERB hands its name and arguments over to here."""

import importlib
import sys

from workbench import paths, verb

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    module = importlib.import_module(f"workbench.{name}")
    sys.exit(verb.run(name, module.main, arguments, paths.BUILD / "log"))
