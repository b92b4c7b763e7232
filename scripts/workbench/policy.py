# SPDX-License-Identifier: GPL-2.0-only
"""What is right: the type of the default domain for each class of device and setting.

This is the specification of the change, and says nothing of how the kernel comes to it.
Stock and patched differ in one thing. A device whose driver requires translation is strict
under stock; under patched, if it is trusted or late, it is lazy unless strict invalidation is
in force. In related/alternatives/ the driver requires nothing, and has no identity domain
instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Collection

STOCK = "stock"
OLD = "old"  # older than NEW: its VT-d requires nothing
NEW = (6, 12)  # "iommu/vt-d: Require DMA domain if hardware not support passthrough"
ALTERNATIVE = "alternative"  # VT-d of related/alternatives/, which requires nothing

# Until when a device reaches what has been unmapped
NEVER = "never"
UNTIL_FLUSH = "until the flush"
NOT_TRANSLATED = "not translated"

OPT_IN = "opt-in"
DEFAULTS = ("lazy", "strict", "passthrough", OPT_IN)  # by Kconfig, see scripts/config/

WORDS = ("DMA", "DMA-FQ", "auto", "identity", "nonsense")  # that are written to sysfs


@dataclass(frozen=True)
class Class:
    """A class of device.

    requires: its driver requires translation, and otherwise has no opinion.
    trusted: what is not is strict, unless it is late.
    late: it is not trusted, and joins the group of its port when that has its domain, and
    gets that.
    iommu: there is one in its way.
    has_identity: the IOMMU can let it through untranslated.
    has_dma: the kernel has IOMMU_DMA.
    cured: with related/untrusted.patch a group that an untrusted device joins is strict, and
    does not take DMA-FQ.
    """

    name: str
    requires: bool = False
    trusted: bool = True
    late: bool = False
    iommu: bool = True
    has_identity: bool = True
    has_dma: bool = True
    cured: bool = False


CLASSES = {
    each.name: each
    for each in (
        Class("free"),
        Class("required", requires=True),
        Class("untrusted", requires=True, trusted=False),
        Class("late-free", trusted=False, late=True),
        Class("late-required", requires=True, trusted=False, late=True),
        Class("no-identity", has_identity=False),
        Class("no-dma", has_dma=False),
        Class("refused", requires=True, has_dma=False),
        Class("no-iommu", iommu=False),
    )
}


@dataclass(frozen=True)
class Setting:
    """How a kernel is booted.

    strict, passthrough: of iommu.strict and iommu.passthrough, "0", "1" or "unset", which
    leaves it to the kernel's configuration. strict "off": there is no IOMMU.
    default: what that is, one of DEFAULTS. OPT_IN: VT-d is off, and the firmware asks for it;
    the kernel then passes through what it trusts, whatever iommu.passthrough says.
    """

    strict: str = "unset"
    passthrough: str = "unset"
    default: str = "lazy"

    @property
    def is_strict(self) -> bool:
        """Whether invalidation is strict."""
        return self.strict == "1" or (self.strict == "unset" and self.default == "strict")

    @property
    def is_passthrough(self) -> bool:
        """Whether devices that require nothing are not translated."""
        is_default = self.passthrough == "unset" and self.default == "passthrough"
        return self.passthrough == "1" or is_default or self.default == OPT_IN


def in_force(setting: Setting) -> str:
    """Return the system's default: the type where nothing requires another."""
    if setting.is_passthrough:
        return "identity"
    return "DMA" if setting.is_strict else "DMA-FQ"


def _required(setting: Setting, kernel: str) -> str:
    """Return the type of a trusted device that requires translation."""
    return "DMA" if setting.is_strict or kernel == STOCK else "DMA-FQ"


def _as_answered(device: Class, kernel: str) -> Class:
    """Return what a device is where a kernel's driver has another answer."""
    if kernel == OLD:
        return replace(device, requires=False)
    if kernel != ALTERNATIVE or not device.requires:
        return device
    return replace(device, requires=False, has_identity=False)


def with_related(device: Class, related: Collection[str]) -> Class:
    """Return what a class of device is with related patches."""
    return replace(device, cured="untrusted" in related)


def boot_type(device: Class, setting: Setting, kernel: str) -> str:
    """Return the type that a device has after boot, or after it was plugged in."""
    kind = _boot_type(_as_answered(device, kernel), setting, kernel)
    return "DMA" if device.late and device.cured and kind == "DMA-FQ" else kind


def reach(device: Class, setting: Setting, kernel: str) -> str:
    """Return until when a device reaches by DMA what has been unmapped."""
    kind = boot_type(device, setting, kernel)
    return {"DMA": NEVER, "DMA-FQ": UNTIL_FLUSH}.get(kind, NOT_TRANSLATED)


def _boot_type(device: Class, setting: Setting, kernel: str) -> str:
    if not device.iommu or setting.strict == "off":
        return "none"
    if not device.has_dma:
        return "none" if device.requires else "identity"
    if not device.trusted and not device.late:
        return "DMA"
    if device.requires:
        return _required(setting, kernel)
    if setting.is_passthrough and not device.has_identity:
        return "DMA"
    return in_force(setting)


def invalidates(kind: str, by_iova: bool, related: Collection[str]) -> str:
    """Return how often what is unmapped is invalidated in a domain of a type.

    "strict": each time; "lazy": seldom; "waits": each time, though the domain is lazy.

    by_iova: it is unmapped by dma_iova_destroy(), which waits unless related/iova-destroy.patch
    is there.
    """
    if kind == "DMA":
        return "strict"
    return "waits" if by_iova and "iova-destroy" not in related else "lazy"


def currents(device: Class) -> list[str]:
    """Return the types from which others are written for a device."""
    if not device.has_dma:
        return ["identity"]
    if device.cured and not device.trusted:
        return ["DMA"]
    can_be_identity = not device.requires and device.trusted and device.has_identity
    return ["DMA", "DMA-FQ"] + (["identity"] if can_be_identity else [])


def written(device: Class, setting: Setting, kernel: str, current: str, word: str) -> str:
    """Return what comes of a word that is written to sysfs: a type, or the error.

    The group's type is current, and no device of it has a driver. A late joiner is known
    for what it is by then.
    """
    device = _as_answered(device, kernel)
    if word == "nonsense":
        return "EINVAL"
    if not device.has_dma:
        return "identity" if word in ("auto", "identity") else "EINVAL"
    if current == "DMA" and word == "DMA-FQ" and (device.trusted or not device.cured):
        return "DMA-FQ"  # a short cut of the core's, whatever the driver says
    if not device.trusted:
        return "DMA" if word in ("auto", "DMA") else "EINVAL"
    if word == "auto":
        return boot_type(device, setting, kernel)
    if device.requires:
        return word if word in ("DMA", _required(setting, kernel)) else "EINVAL"
    if word == "identity" and not device.has_identity:
        return "EOPNOTSUPP"
    return word


def written_bound(device: Class, current: str, word: str) -> str:
    """Return what comes of a word that is written while a driver has the device: as written()."""
    if word == "nonsense":
        return "EINVAL"
    can_be_lazy = device.has_dma and (device.trusted or not device.cured)
    return "DMA-FQ" if (current, word, can_be_lazy) == ("DMA", "DMA-FQ", True) else "EPERM"
