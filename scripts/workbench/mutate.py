# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/mutate [--base BASE] [--list] [MUTANT ...]

Prove that the KUnit suites can fail. A mutant is the patched kernel with one mistake, from
the file scripts/mutants, or with none of the change: stock. Each is built, and the suites
are run on it, of which a case must fail; before that, without a mistake, where none may.
With no MUTANT: all of them.

  --base BASE    mainline (the default), newest, lts or a directory, see scripts/setup.
                 With lts, name mutants that need neither User Mode Linux nor a related
                 patch: see --list
  --list         print the mutants and what is wrong with each

Prints for each mutant the cases that killed it and, last, "N killed, N survived".

Exit status: 0 all were killed; 1 some survived; 2 there is no verdict: bad argument, a
mutant that does not apply or build any more, or suites that fail without one.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional, Sequence

from workbench import base as bases
from workbench import kernel, machine, patches, paths, progress, setup, verb, verdict
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell
from workbench.suites import ARCHS, Suites, Tally, build_suites, check_um

FILE = paths.SCRIPTS / "mutants"
CHANGE = "drivers/iommu/iommu.c.patch"

_HEAD = re.compile(r"mutant (\S+) (\S+)(?: with (\S+))?: (.+)$")


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, on which architecture the suites find it, and what it is.

    diff: to the patched kernel; is_reversed: to be taken back from it. related: the patch of
    related/ that the kernel has as well, or "".
    """

    name: str
    arch: str
    about: str
    diff: bytes = b""
    is_reversed: bool = False
    related: str = ""


def read(file: Path = FILE) -> Mapping[str, Mutant]:
    """Return the mutants by their names."""
    change = (paths.TOP / CHANGE).read_bytes()
    about = "nothing is changed: drivers answer DMA, and get it"
    found = {"stock": Mutant("stock", "x86_64", about, change, is_reversed=True)}
    parts = re.split(r"^(?=mutant )", file.read_text(), flags=re.M)
    number = parts[0].count("\n") + 1
    for part in parts[1:]:
        head, _, diff = part.partition("\n")
        match = _HEAD.match(head)
        if not match or match[1] in found:
            raise CannotTell(
                f"{file}:{number}: must be 'mutant NAME ARCH: WHAT', NAME a new one, "
                "with RELATED behind ARCH or not"
            )
        if match[2] not in ARCHS:
            known = " ".join(ARCHS)
            raise CannotTell(f"{file}:{number}: '{match[2]}': must be one of: {known}")
        name, arch, related, about = match.groups()
        if related and related not in kernel.related():
            raise CannotTell(f"{file}:{number}: '{related}': related/ has no such patch")
        found[name] = Mutant(name, arch, about, diff.encode(), related=related or "")
        number += part.count("\n")
    return found


def edits_of(patched: kernel.Kernel, mutant: Mutant) -> patches.Edits:
    """Return the edits of the patched kernel with a mistake."""
    files = patches.Files(patched.base.stock, patched.edits)
    try:
        files.apply(mutant.diff, mutant.name, mutant.is_reversed)
    except patches.DoesNotApply as error:
        raise CannotTell(f"mutant '{mutant.name}' does not apply: {error}") from None
    return files.edits


def killers(found: Tally) -> str:
    """Return which cases have killed a mutant, or how its guest died between two; else "".

    A guest that has run no case has not killed it.
    """
    return " ".join(found.names) or (found.why if found.at_boot != (0, 0) else "")


class Runner:
    """Builds mutants, and runs the suites on each while the next one is built."""

    def __init__(self, patched: kernel.Kernel) -> None:
        self.patched = patched
        self.run = paths.run_directory("mutate")
        self.parser = verdict.Parser(patched.base.stock)
        self.executor = ThreadPoolExecutor(1)
        self.last: Optional[tuple[Mutant, Future[tuple[Tally, Path]]]] = None
        self.killed = 0
        self.survived = 0

    def begin(self, mutant: Mutant, edits: patches.Edits) -> "Future[tuple[Tally, Path]]":
        """Build, and have the suites run."""
        arch = machine.arch(mutant.arch)
        built = kernel.edited(self.patched, "mutant", edits)
        image, files = build_suites(built, arch, self.run)
        image = image.rename(self.run / f"{mutant.name}-{arch.name}.image")
        suites = Suites(arch, image, files, self.parser, self.run)
        return self.executor.submit(suites.boot, "0", mutant.name)

    def like(self, related: str) -> kernel.Kernel:
        """Return the kernel that a mutant has a mistake less than."""
        return kernel.with_related(self.patched, [related] if related else [])

    def check_without(self, arch: str, related: str) -> None:
        """Raise CannotTell if the suites fail without a mistake."""
        label = " with ".join([arch, related] if related else [arch])
        none = Mutant(f"none-{arch}-{related}", arch, "no mistake")
        with progress.activity(f"no mutant, on {label}"):
            found, log = self.begin(none, self.like(related).edits).result()
        if found.failed:
            paths.keep(self.run)
            names = " ".join(found.names)
            raise CannotTell(f"on {label} fail without a mutant: {names} {found.why} ({log})")

    def add(self, mutant: Mutant) -> None:
        """Take the next mutant, and judge the one before it."""
        future = self.begin(mutant, edits_of(self.like(mutant.related), mutant))
        self.finish()
        self.last = (mutant, future)

    def finish(self) -> None:
        """Judge the last mutant."""
        if not self.last:
            return
        mutant, future = self.last
        self.last = None
        found, log = future.result()
        if found.failed and not killers(found):
            paths.keep(self.run)
            raise CannotTell(f"no verdict on '{mutant.name}': {found.why} (all of it: {log})")
        (self.run / f"{mutant.name}-{mutant.arch}.image").unlink()
        if found.failed:
            self.killed += 1
            progress.result(f"killed   {mutant.name} by {killers(found)}")
        else:
            self.survived += 1
            progress.result(f"SURVIVED {mutant.name}: {mutant.about}")


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("mutants", nargs="*")
    asked = parser.parse(arguments)
    known = read()
    if asked.list:
        for mutant in known.values():
            print(f"{mutant.name} {mutant.arch} {mutant.about}")
        return AS_EXPECTED
    for name in asked.mutants:
        if name not in known:
            raise CannotTell(f"unknown mutant '{name}', see --list")
    chosen = [known[name] for name in asked.mutants or known]
    base = bases.find(asked.base)
    archs = sorted({mutant.arch for mutant in chosen})
    setup.prepare(base, archs)
    if "um" in archs:
        check_um(base)
    # Other runs have to wait until the end: the mutants are all in one tree
    with paths.locked(base.directory, "mutant.lock"):
        return _run(Runner(kernel.patched(base)), chosen)


def _run(runner: Runner, chosen: Sequence[Mutant]) -> int:
    for arch, related in sorted({(mutant.arch, mutant.related) for mutant in chosen}):
        runner.check_without(arch, related)
    for number, mutant in enumerate(chosen, 1):
        with progress.activity(f"mutant {number} of {len(chosen)}: {mutant.name}"):
            runner.add(mutant)
    runner.finish()
    progress.result(f"{runner.killed} killed, {runner.survived} survived")
    return NOT_AS_EXPECTED if runner.survived else AS_EXPECTED
