# SPDX-License-Identifier: GPL-2.0-only
"""
Usage: scripts/setup [--base mainline|newest|lts|DIR]

Install the Debian packages that all the scripts need, get the base's kernel source, and
make two trees of it under build/: stock, as it is, and patched, with the series of this
repository. Does only what is still to be done. The other scripts do by themselves what
they need of it; this is for those who want it all at once.

  --base mainline  linux-source-7.3 (the default), of Debian's backports or unstable; the
                   newest that they carry, should that be gone
         newest    the newest linux-source-X.Y that they carry
         lts       Debian's linux-source-6.12
         DIR       your own kernel tree; it is copied, never written to

Only the packages take root. In a checkout that belongs to a user, "sudo scripts/setup"
installs them, and does all else as that user. After that no script needs root, but for
"series mail --send" (git-email), and of "test --full" the parts that try a bare Debian,
"page" (chromium) and "lava".

The trees are build/BASE/stock and build/BASE/patched (for DIR, BASE is DIR's own name and
a number). A change of the series, or in DIR, is carried over the next time, and what has
been changed in the trees is put back. Remove build/newest to have a newer kernel fetched.

All comes, with its signature checked, from the Debian mirror that the machine already
uses; the machine's own apt sources are left alone.

Exit status: 0 done; 2 not possible, with one line that says why.
"""

from __future__ import annotations

from typing import Sequence

from workbench import base as bases
from workbench import emulator, kernel, machine, packages, paths, progress, verb
from workbench.status import AS_EXPECTED


def prepare(base: bases.Base, archs: Sequence[str], *more: packages.Need) -> None:
    """Have what building a base and booting it on some architectures takes.

    archs: names of scripts/machine/NAME.arch. more: what is needed beside that.
    """
    found = [machine.arch(name) for name in archs]
    _prepare(base, found, found, [*packages.BUILD, *packages.ACPI, *more])


def prepare_machines(
    base: bases.Base, chosen: Sequence[machine.Machine], *more: packages.Need
) -> None:
    """Have what booting these machines takes. more: what is needed beside that."""
    tables = packages.ACPI if any(each.external for each in chosen) else ()
    _prepare(base, [each.arch for each in chosen], chosen, [*tables, *more])


def _prepare(
    base: bases.Base,
    archs: Sequence[machine.Arch],
    want: Sequence[machine.Arch | machine.Machine],
    more: Sequence[packages.Need],
) -> None:
    """Install, and fetch. want: what says which QEMU it needs at least."""
    needs = [*packages.FETCH, *packages.GUEST, *more]
    for arch in archs:
        needs += emulator.needs(arch)
    packages.install(needs, base.log)
    with paths.locked(paths.BUILD):
        for arch, each in zip(archs, want):
            if each.emulator:
                emulator.prepare(arch.qemu[0], each.emulator, base.log)
    with paths.locked(base.directory):
        bases.fetch(base)


def main(arguments: Sequence[str]) -> int:
    """Do what the verb is for."""
    parser = verb.Arguments(__doc__ or "")
    parser.add_argument("--base", default="mainline")
    asked = parser.parse(arguments)
    base = bases.find(asked.base)
    more = [*packages.BUILD, *packages.CHECK, *packages.GIT, *packages.REPORT, *packages.IMAGE]
    more += [*packages.PYTEST, *packages.PACKAGE, *packages.DEBIAN]
    prepare_machines(base, list(machine.read_all().values()), *more)
    with paths.locked(base.directory):
        kernel.patched(base).make()
    progress.say(f"{base.name} is {base.version}: {base.directory}/stock and patched")
    return AS_EXPECTED
