# SPDX-License-Identifier: GPL-2.0-only
"""A kernel is a base, edits of its source, and a configuration, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Mapping, Optional, Sequence

from workbench import base as bases
from workbench import patches, paths, progress, tree
from workbench.status import CannotTell, must_be_one_of

PROBES = paths.SCRIPTS / "probe"
RELATED = paths.TOP / "related"
ATTACK = PROBES / "attack"
QUEUE = PROBES / "events/queue.patch"
PCIEHP = PROBES / "debug/pciehp.patch"
ALTERNATIVES = RELATED / "alternatives"
# More than half of the source, and nothing that a guest of ours boots is made of it. A copy
# of a whole tree takes 1.8 GB, one without this 0.8 GB.
NOT_BOOTED = (
    *("./drivers/gpu/*.[ch]", "./drivers/media/*.[ch]", "./drivers/net/wireless/*.[ch]"),
    *("./drivers/accel/*.[ch]", "./drivers/infiniband/*.[ch]", "./sound/*.[ch]"),
    *("./Documentation/*.rst", "./Documentation/*.yaml", "./Documentation/*.svg"),
    *("./arch/*.dts", "./arch/*.dtsi", "./tools/perf"),
)
SUITES_OF = ".kunit.patch"  # what a related patch adds to the suites
SUITE = "drivers/iommu/iommu-kunit.c"


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    name: of its tree, below the base's directory.
    edits: what files hold instead of what they do in the base.
    fragments: of scripts/config/, on top of what each kernel of an architecture has.
    like: a kernel whose objects it may start from, since little differs.
    is_whole: whether its tree has the files in NOT_BOOTED, too.
    """

    base: bases.Base
    name: str
    edits: Mapping[str, bytes] = field(default_factory=dict)
    fragments: tuple[str, ...] = ()
    like: Optional["Kernel"] = None
    is_whole: bool = True

    @property
    def tree(self) -> Path:
        """Where its source is, once make() has been called."""
        return self.base.directory / self.name

    def make(self) -> None:
        """Have its tree as it should be, and the base's; its lock is held."""
        bases.fetch(self.base)
        if self.name != "stock":
            leave_out = () if self.is_whole else NOT_BOOTED
            tree.follow(self.tree, self.base.stock, self.edits, leave_out)

    def has(self, path: str) -> bool:
        """Return whether its source has this file."""
        return path in self.edits or (self.base.stock / path).exists()


def stock(base: bases.Base) -> Kernel:
    """The base as it is."""
    return Kernel(base, "stock")


def patched(base: bases.Base) -> Kernel:
    """The base with the series; it has been fetched.

    If the series does not apply, the hunks that do not are printed.
    """
    try:
        edits = patches.apply_series(base.stock, base.version)
    except patches.DoesNotApply as error:
        progress.say(*error.hunks.splitlines())
        raise
    return Kernel(base, "patched", edits, _suite(edits), stock(base))


def _suite(edits: Mapping[str, bytes]) -> tuple[str, ...]:
    return ("kunit",) if SUITE in edits else ()


def edited(like: Kernel, name: str, edits: Mapping[str, bytes]) -> Kernel:
    """A kernel of its own name with these edits: a mutant, or a commit of the series."""
    return Kernel(like.base, name, edits, _suite(edits), like, is_whole=False)


def related() -> list[str]:
    """Return the names of the related patches."""
    found = [file.name for file in RELATED.glob("*.patch")]
    return sorted(name[: -len(".patch")] for name in found if not name.endswith(SUITES_OF))


def check_related(names: Sequence[str], own: bool = False) -> None:
    """Raise CannotTell unless these are different related patches.

    own: whether a diff of the user's own may be one, by its path.
    """
    for name in names:
        if own and "/" in name:
            if not Path(name).is_file():
                raise CannotTell(f"--with '{name}': no such file")
            for known in related():
                if Path(name).samefile(RELATED / f"{known}.patch"):
                    raise CannotTell(f"--with '{name}': is known as --with {known}")
            if not re.fullmatch(r"[\w.+-]+", Path(name).stem):
                raise CannotTell(
                    f"--with '{name}': the kernel's make wants a name without blanks and the like"
                )
        else:
            must_be_one_of("--with", name, related())
        if names.count(name) > 1:
            raise CannotTell(f"--with '{name}': given twice")


def _apply(base: bases.Base, edits: patches.Edits, diffs: Sequence[Path]) -> patches.Edits:
    """Return edits with diffs on top; if one does not apply, the error names the base."""
    try:
        return patches.apply_all(base.stock, edits, diffs)
    except patches.DoesNotApply as error:
        raise patches.DoesNotApply(f"{error} to {base.version}", error.hunks) from None


def with_related(kernel: Kernel, names: Sequence[str]) -> Kernel:
    """The same with related patches, and with their cases where it has the suites."""
    if not names:
        return kernel
    diffs = [Path(name) if "/" in name else RELATED / f"{name}.patch" for name in names]
    if SUITE in kernel.edits:
        more = [RELATED / f"{name}{SUITES_OF}" for name in names]
        diffs += [diff for diff in more if diff.exists()]
    edits = _apply(kernel.base, kernel.edits, diffs)
    name = "+".join([kernel.name, *sorted(Path(name).stem for name in names)])
    return replace(kernel, name=name, edits=edits, like=kernel)


def alternatives() -> list[str]:
    """Return the names of the other ways that the cover letter compares with."""
    return sorted(file.stem for file in ALTERNATIVES.glob("*.patch"))


def alternative(base: bases.Base, name: str) -> Kernel:
    """The base with one of them in place of the series."""
    edits = _apply(base, {}, [ALTERNATIVES / f"{name}.patch"])
    return Kernel(base, "alternative", edits, like=stock(base), is_whole=False)


def probes() -> Sequence[Path]:
    """Return the diffs of scripts/probe/."""
    return sorted(PROBES.glob("*.patch"))


def _of_guests(
    kernel: Kernel,
    suffix: str,
    edits: Mapping[str, bytes],
    fragments: tuple[str, ...],
    like: Optional[Kernel],
) -> Kernel:
    """The same with more edits, for our guests alone."""
    name = f"{kernel.name}-{suffix}"
    return replace(
        kernel, name=name, edits=edits, fragments=fragments, like=like, is_whole=False
    )


def probed(kernel: Kernel) -> Kernel:
    """The same, but with drivers that require translation, and without a suite to run."""
    edits = patches.apply_all(kernel.base.stock, kernel.edits, probes())
    return _of_guests(kernel, "probe", edits, (), kernel)


def attacked(kernel: Kernel) -> Kernel:
    """The same, but with a driver for a device that attacks, and without a suite to run."""
    edits = dict(patches.apply_all(kernel.base.stock, kernel.edits, [ATTACK / "edu.patch"]))
    edits["drivers/misc/edu.c"] = (ATTACK / "edu.c").read_bytes()
    edits["include/uapi/linux/edu.h"] = (ATTACK / "edu.h").read_bytes()
    like = attacked(kernel.like) if kernel.like else kernel
    return _of_guests(kernel, "attack", edits, ("attack",), like)


def debugged(kernel: Kernel) -> Kernel:
    """The same, but lockdep does not stop at what it finds in the base's own pciehp."""
    try:
        edits = patches.apply_all(kernel.base.stock, kernel.edits, [PCIEHP])
    except patches.DoesNotApply:
        progress.say(f"{kernel.base.name} has another pciehp: lockdep looks at all of it")
        edits = kernel.edits
    like = debugged(kernel.like) if kernel.like else None
    return _of_guests(kernel, "debug", edits, kernel.fragments, like)


def failing(kernel: Kernel) -> Kernel:
    """The same, but the allocation of a flush queue can be made to fail."""
    edits = patches.apply_all(kernel.base.stock, kernel.edits, [QUEUE])
    like = failing(kernel.like) if kernel.like else kernel
    return _of_guests(kernel, "failing", edits, kernel.fragments, like)


def kept(base: bases.Base, name: str) -> Kernel:
    """Return what edited() was asked for last by a name; CannotTell if there is nothing.

    Nor may it have a related patch: it is judged by its name.
    """
    edits = _edits_of(base, name)
    if edits is None:
        by = "scripts/mutate MUTANT" if name == "mutant" else "scripts/series test"
        raise CannotTell(f"{base.name} has no kernel '{name}' yet: run {by}")
    plain = patched(base)
    for each in related():
        if _has_suites_of(edits, plain, each):
            raise CannotTell(
                f"kernel '{name}': the last one was made with {each}, make another"
            )
    return edited(plain, name, edits)


def _edits_of(base: bases.Base, name: str) -> Optional[patches.Edits]:
    if name != "mutant":
        return tree.edits(base.directory / name)
    # Who makes mutants, or has lent their tree, is waited for
    with paths.locked(base.directory, "mutant.lock"):
        return tree.edits(base.directory / name)


def _has_suites_of(edits: patches.Edits, plain: Kernel, name: str) -> bool:
    """Return whether edits have the cases that a related patch adds to the suites."""
    try:
        suite = with_related(plain, [name]).edits.get(SUITE)
    except patches.DoesNotApply:
        return False
    return edits.get(SUITE) == suite != plain.edits.get(SUITE)


def lacks(base: bases.Base, needs: str, is_probed: bool) -> str:
    """Return what a base does not have of what a machine needs, "" if it has all.

    needs: a file of the kernel's source, or "".
    """
    if needs and not (base.stock / needs).exists():
        return needs
    if is_probed:
        try:
            probed(stock(base))
        except patches.DoesNotApply:
            return "what the diffs in scripts/probe/ are for"
    return ""
