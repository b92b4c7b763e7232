# SPDX-License-Identifier: GPL-2.0-only
"""The policy against a second statement of it, which lists every case."""

from __future__ import annotations

from typing import Iterator

from workbench import policy
from workbench.policy import CLASSES, Setting

# By class: the type with iommu.strict=1; with 0, stock and patched; then the same three
# with iommu.passthrough=1. I is identity, D DMA, F DMA-FQ, - none
TYPES = """
free           D F F  I I I
required       D D F  D D F
untrusted      D D D  D D D
late-free      D F F  I I I
late-required  D D F  D D F
no-identity    D F F  D D D
no-dma         I I I  I I I
refused        - - -  - - -
no-iommu       - - -  - - -
"""

# By class and current type: what comes of DMA, DMA-FQ, auto, identity and nonsense, with
# iommu.strict=1 or stock, and with strict=0 patched where that differs. E is EINVAL,
# O EOPNOTSUPP, = the type that the device has after boot
WRITES = """
free           D    D F = I E
free           F    D F = I E
free           I    D F = I E
required       D    D F = E E
required       F    D E = E E   D F = E E
untrusted      D    D F D E E
untrusted      F    D E D E E
late-free      D    D F D E E
late-free      F    D E D E E
late-required  D    D F D E E
late-required  F    D E D E E
no-identity    D    D F = O E
no-identity    F    D F = O E
no-dma         I    E E = I E
"""

NAMES = {"I": "identity", "D": "DMA", "F": "DMA-FQ", "-": "none"}
NAMES |= {"E": "EINVAL", "O": "EOPNOTSUPP"}


def _settings() -> Iterator[tuple[Setting, str]]:
    for strict in ("unset", "0", "1"):
        for passthrough in ("unset", "0", "1"):
            for kernel in ("stock", "patched", "commit"):
                yield Setting(strict, passthrough), kernel


def test_types() -> None:
    rows = dict(line.split(None, 1) for line in TYPES.strip().splitlines())
    assert rows.keys() == CLASSES.keys()
    for name, row in rows.items():
        letters = row.split()
        for setting, kernel in _settings():
            column = 0 if setting.strict == "1" else 1 if kernel == "stock" else 2
            column += 3 if setting.passthrough == "1" else 0
            found = policy.boot_type(CLASSES[name], setting, kernel)
            assert found == NAMES[letters[column]], (name, setting, kernel)


def test_no_iommu_at_all() -> None:
    for name in CLASSES:
        assert policy.boot_type(CLASSES[name], Setting("off"), "patched") == "none"


def test_alternative() -> None:
    """Translated and lazy as with the series, but strict with pass-through."""
    for each in CLASSES.values():
        for setting, _ in _settings():
            mine, other = (
                policy.boot_type(each, setting, kernel)
                for kernel in ("patched", policy.ALTERNATIVE)
            )
            is_strict = each.requires and each.has_dma and setting.passthrough == "1"
            assert other == ("DMA" if is_strict else mine) or not each.has_dma
    required = CLASSES["required"]
    for current in ("DMA", "DMA-FQ"):
        wanted = {"DMA": "DMA", "DMA-FQ": "DMA-FQ", "auto": "DMA", "identity": "EOPNOTSUPP"}
        for word, result in wanted.items():
            kernel = policy.ALTERNATIVE
            found = policy.written(required, Setting("1"), kernel, current, word)
            assert found == result


def test_old() -> None:
    """Where VT-d requires nothing: as what has no opinion."""
    for each in CLASSES.values():
        for setting, kernel in _settings():
            free = CLASSES["late-free" if each.late else "free"]
            found = policy.boot_type(each, setting, policy.OLD)
            if each.requires and (each.trusted or each.late) and each.has_dma:
                assert found == policy.boot_type(free, setting, kernel)
            elif not each.requires or not each.trusted and not each.late:
                assert found == policy.boot_type(each, setting, policy.STOCK)


def test_untrusted_is_cured() -> None:
    """With related/untrusted.patch no untrusted device is ever lazy, and nothing else differs."""
    for each in CLASSES.values():
        cured = policy.with_related(each, ["untrusted"])
        assert policy.with_related(each, ["iova-destroy"]) == each
        for setting, kernel in _settings():
            before = policy.boot_type(each, setting, kernel)
            after = policy.boot_type(cured, setting, kernel)
            assert after == ("DMA" if each.late and before == "DMA-FQ" else before)
            for current in policy.currents(cured):
                for word in policy.WORDS:
                    was = policy.written(each, setting, kernel, current, word)
                    now = policy.written(cured, setting, kernel, current, word)
                    is_lazy = not each.trusted and was == "DMA-FQ"
                    if word != "auto":
                        assert now == ("EINVAL" if is_lazy else was)
                    assert each.trusted or now != "DMA-FQ"


def test_only_what_requires_translation_and_is_trusted_differs() -> None:
    for each in CLASSES.values():
        for setting, _ in _settings():
            stock, patched = (
                policy.boot_type(each, setting, kernel) for kernel in ("stock", "patched")
            )
            if stock != patched:
                assert each.requires and setting.strict != "1"
                assert each.trusted or each.late
                assert (stock, patched) == ("DMA", "DMA-FQ")


def test_writes() -> None:
    seen: dict[str, list[str]] = {}
    for line in WRITES.strip().splitlines():
        name, current, *letters = line.split()
        seen.setdefault(name, []).append(NAMES[current])
        for setting, kernel in _settings():
            is_lazy = setting.strict != "1" and kernel != "stock"
            offset = 5 if is_lazy and len(letters) > 5 else 0
            for word, letter in zip(policy.WORDS, letters[offset:]):
                want = NAMES.get(letter, policy.boot_type(CLASSES[name], setting, kernel))
                found = policy.written(CLASSES[name], setting, kernel, NAMES[current], word)
                assert found == want, (name, setting, kernel, current, word)
    for name, currents in seen.items():
        assert currents == policy.currents(CLASSES[name])


def test_default() -> None:
    """What is unset is as the default says, what is set is not."""
    for kernel in ("stock", "patched"):
        for each in CLASSES.values():
            for strict in ("unset", "0", "1"):
                for passthrough in ("unset", "0", "1"):
                    for default in policy.DEFAULTS:
                        is_strict = {"unset": "01"[default == "strict"]}.get(strict, strict)
                        is_pt = {"unset": "01"[default == "passthrough"]}.get(passthrough)
                        is_pt = "1" if default == "opt-in" else is_pt
                        same = Setting(is_strict, is_pt or passthrough)
                        asked = Setting(strict, passthrough, default)
                        found = policy.boot_type(each, asked, kernel)
                        assert found == policy.boot_type(each, same, kernel)


def test_in_force() -> None:
    assert policy.in_force(Setting("0", "1")) == "identity"
    assert policy.in_force(Setting("1", "0")) == "DMA"
    assert policy.in_force(Setting()) == "DMA-FQ"
