# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/kunit [OPTION ...] [FILTER]

Run the KUnit suites of drivers/iommu/iommu-kunit.c on the patched kernel, in an emulated
machine that has no IOMMU but the suites' own. All run at boot, and then again, the last
suite first. Installs, fetches and builds what is missing first.

  --arch ARCH        x86_64 (the default), arm64, s390, or um: User Mode Linux, where the
                     kernel has no IOMMU_DMA
  --base BASE        mainline (the default), newest, lts or a directory, see scripts/setup
  --kernel KERNEL    patched (the default); or what scripts/mutate has made last: mutant; or
                     what scripts/series test has: commit
  --with NAME        with related/NAME.patch on top, and its cases; may be given again
  --strict 0|1       only with this iommu.strict, else with each
  --debug            with KASAN, lockdep and more; a finding of theirs fails
  --kcsan            with KCSAN, which looks for data races in the IOMMU's core
  --64k              with pages of 64 KiB; needs --arch arm64
  --timeout SECONDS  until a guest counts as hung, 300 unless given
  FILTER             only these: SUITE or SUITE.CASE, with * as in a shell

Prints for each setting the cases that failed, a line of numbers, and why cases were
skipped; last, "N passed, N failed, N skipped", each case counted every time it has run.
The consoles are kept if a case failed, and named.

Exit status: 0 all passed or were skipped; 1 some failed, or none ran; 2 there is no
verdict: bad argument, or something could not be built or started.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, Sequence

from workbench import base as bases
from workbench import kernel, machine, paths, progress, setup, verb, verdict
from workbench.status import AS_EXPECTED, NOT_AS_EXPECTED, CannotTell
from workbench.suites import ARCHS, TIMEOUT, Suites, Tally, build_suites, check_um


def _choose(base: bases.Base, name: str) -> kernel.Kernel:
    return kernel.patched(base) if name == "patched" else kernel.kept(base, name)


def _lines(label: str, found: Tally) -> Iterator[str]:
    for name in found.names:
        yield f"  {name} failed"
    yield f"{label}: {found.passed} passed, {found.failed} failed, {found.skipped} skipped"
    for reason in sorted({reason for _, reason in found.skips if reason}):
        yield f"  skipped: {reason}"


def run_suites(suites: Suites, label: str, stricts: Sequence[str]) -> Tally:
    """Run the suites under several settings at once, print what came of it, and add up."""
    total = Tally()
    with progress.activity(f"run KUnit on {label}"):
        executor = ThreadPoolExecutor(len(stricts))
        try:
            results = list(executor.map(suites.boot, stricts))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
    for strict, (found, log) in zip(stricts, results):
        if found.why:
            tail = log.read_text(errors="replace").splitlines()[-20:]
            progress.say(f"{label}, iommu.strict={strict}: {found.why}; {log} ends:")
            progress.say(*(f"  | {line.rstrip()}" for line in tail))
        for line in _lines(f"{label}, iommu.strict={strict}", found):
            progress.result(line)
        total.total(found)
    return total


def _options() -> verb.Arguments:
    parser = verb.Arguments(__doc__ or "")
    add = parser.add_argument
    add("--debug", action="store_true")
    add("--kcsan", action="store_true")
    add("--64k", dest="large", action="store_true")
    add("--arch", type=verb.one_of(*ARCHS), default="x86_64")
    add("--base", default="mainline")
    add("--kernel", type=verb.one_of("patched", "mutant", "commit"), default="patched")
    add("--with", dest="related", action="append", default=[])
    add("--strict", type=verb.one_of("0", "1"))
    add("--timeout", type=verb.number, default=TIMEOUT)
    add("filter", nargs="*")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    asked = _options().parse(arguments)
    if len(asked.filter) > 1:
        raise CannotTell(
            f"FILTER '{asked.filter[1]}': one only, '{asked.filter[0]}' was given"
        )
    glob = asked.filter[0] if asked.filter else ""
    if re.search(r"\s", glob):
        raise CannotTell(f"FILTER '{glob}': must be a glob without blanks")
    for name in ("debug", "kcsan"):
        if getattr(asked, name) and asked.arch == "um":
            raise CannotTell(f"--arch 'um': with --{name} it must be an emulated architecture")
    if asked.debug and asked.kcsan:
        raise CannotTell("--debug and --kcsan cannot go together")
    if asked.large and asked.arch != "arm64":
        raise CannotTell(f"--arch '{asked.arch}': with --64k it must be arm64")
    kernel.check_related(asked.related)
    base = bases.find(asked.base)
    setup.prepare(base, [asked.arch])
    if asked.arch == "um":
        check_um(base)
    run = paths.run_directory("kunit")
    arch = machine.arch(asked.arch)
    more = [name for name in ("debug", "kcsan") if getattr(asked, name)]
    more += ["64k"] * asked.large
    built = kernel.with_related(_choose(base, asked.kernel), asked.related)
    image, files = build_suites(built, arch, run, more)
    options = ["-m", "1G"] if more else []
    options += ["-smp", "2"] if asked.kcsan else []  # only two CPUs race
    parser = verdict.Parser(base.stock)
    suites = Suites(arch, image, files, parser, run, asked.timeout, glob, options)
    label = "-".join([asked.arch, *more, *asked.related])
    total = run_suites(suites, label, [asked.strict] if asked.strict else ["0", "1"])
    if total.failed:
        paths.keep(run)
        progress.say(f"consoles: {run}/*.strict*")
    progress.result(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return NOT_AS_EXPECTED if total.failed else AS_EXPECTED
