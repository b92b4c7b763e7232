# SPDX-License-Identifier: GPL-2.0-only
"""Kernel parameters: those of scripts/parameters, each line checked, and drawn ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Mapping, Sequence

from workbench import machine, paths
from workbench.policy import Setting
from workbench.status import CannotTell, must_be_one_of

FILE = paths.SCRIPTS / "parameters"

# kstrtobool() looks at the first letter only, and of "on" and "off" at the second
_TRUE = ("1", "y", "Yes", "on", "true", "1x")
_FALSE = ("0", "N", "no", "OFF", "False", "0-")
_TRUTHS = (*_TRUE, *_FALSE)
_NO_TRUTHS: tuple[str, ...] = (
    *("", "2", "-1", "+1", "=1", "o", "ok"),
    *("banana", "strict", "lazy", "%s"),
)
_NO_PARAMETERS = (
    *("iommu.stric", "iommu.strict.", "iommu.strict0", "iommu_strict", "IOMMU.strict"),
    *("iommu.passthroug", "iommu.pass_through", "iommu.pt", "iommu_passthrough"),
)
# VT-d's own word. It takes what begins as one of its options does; nothing changes by these,
# unless there is scalable mode; and it is read after iommu.strict, wherever it stands
_INTEL_IOMMU = ("", "banana", "Strict", "stric", "sm_on", "sm_off,banana", "on,", ",one")
_INTEL_IOMMU_STRICT = ("strict", "stricter", "sm_on,strict")
_MOST = 8  # words, since the kernel has its limits, too

Odd = tuple[Setting, tuple[str, ...]]  # what is then expected, and the parameters


def read(file: Path = FILE) -> Mapping[str, list[Odd]]:
    """Return the parameters for each machine that has some."""
    known = machine.names()
    found: dict[str, list[Odd]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 4:
            raise CannotTell(
                f"{file}:{number}: must be MACHINES STRICT PASSTHROUGH PARAMETERS"
            )
        must_be_one_of(f"{file}:{number}:", words[1], ("unset", "0", "1", "off"))
        must_be_one_of(f"{file}:{number}:", words[2], ("unset", "0", "1"))
        for name in words[0].split(","):
            must_be_one_of(f"{file}:{number}:", name, known)
            odd = (Setting(words[1], words[2]), tuple(words[3:]))
            found.setdefault(name, []).append(odd)
    return found


def spelled(draw: random.Random, setting: Setting, is_vtd: bool) -> list[str]:
    """Return a setting's parameters, each in one of the ways in which it can be written."""
    ways: list[Sequence[str]] = []
    if setting.strict != "unset":
        values = _TRUE if setting.strict == "1" else _FALSE
        own = ["intel_iommu=strict"] if is_vtd and setting.strict == "1" else []
        ways.append([*(f"iommu.strict={value}" for value in values), *own])
    if setting.passthrough != "unset":
        values = _TRUE if setting.passthrough == "1" else _FALSE
        own = ["iommu=pt"] if setting.passthrough == "1" else ["iommu=nopt"]
        ways.append([*(f"iommu.passthrough={value}" for value in values), *own])
    return [draw.choice(way) for way in ways]


def drawn(draw: random.Random, setting: Setting, has_scalable: bool) -> list[str]:
    """Return drawn parameters that change nothing where those of a setting come after them.

    Some are no parameters, some have no truth value, and others are given again later.
    has_scalable: the IOMMU has a scalable mode, which is not turned off.
    """
    words = []
    given = {"iommu.strict": setting.strict, "iommu.passthrough": setting.passthrough}
    for _ in range(draw.randint(0, _MOST)):
        name = draw.choice((*given, *given, "iommu", "intel_iommu", *_NO_PARAMETERS))
        values = _NO_TRUTHS
        if name == "iommu":
            values = ("banana", "PT") if setting.passthrough == "unset" else ("pt", "nopt")
        elif name == "intel_iommu":
            values = _INTEL_IOMMU + _INTEL_IOMMU_STRICT * (setting.strict == "1")
            values = tuple(each for each in values if not has_scalable or "sm_off" not in each)
        elif given.get(name) != "unset":
            values += _TRUTHS
        words.append(f"{name}={draw.choice(values)}")
    return words
