# SPDX-License-Identifier: GPL-2.0-only
"""Packages: which configuration they have."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from workbench import base as bases
from workbench import package, paths
from workbench.status import CannotTell


@pytest.mark.parametrize("name", ["debian", "debian-cloud", "debian-rt", "/dev/../bin/sh"])
def test_names_of_configurations(name: str) -> None:
    package.check(name)


def test_what_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotTell, match="'debian-big': must be a file"):
        package.check("debian-big")
    monkeypatch.setattr("platform.release", lambda: "0-nosuch")
    if not Path("/proc/config.gz").exists():
        with pytest.raises(CannotTell, match="/boot/config-0-nosuch nor"):
            package.check("running")


def test_debians_own(tmp_path: Path) -> None:
    base = bases.Base("mine", tmp_path)
    version = b"VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"
    paths.write(base.stock / "Makefile", version)
    for name in ("none_amd64", "none_cloud-amd64", "rt_amd64"):
        file = (
            base.directory
            / f"linux-config-7.3/usr/src/linux-config-7.3/config.amd64_{name}.xz"
        )
        paths.write(file, lzma.compress(name.encode()))
    for flavour, wanted in (
        ("", "none_amd64"),
        ("-cloud", "none_cloud-amd64"),
        ("-rt", "rt_amd64"),
    ):
        assert package.configuration(f"debian{flavour}", base) == wanted.encode()


def test_a_version_tells_kernels_apart() -> None:
    assert b'LOCALVERSION="-default-domain"' in package._fragment("patched")
    assert b'LOCALVERSION="-stock"' in package._fragment("stock")


def test_packages_replace_those_of_before(tmp_path: Path) -> None:
    tree, to = tmp_path / "tree", tmp_path / "packages"
    names = [f"linux-{what}-7.3-stock_7.3-{{}}_amd64.deb" for what in ("headers", "image")]
    for directory, number in ((to, 1), (tree, 2)):
        for name in [*names, "linux-libc-dev_7.3-{}_amd64.deb"]:
            paths.write(directory / name.format(number), b"")
    found = package._collect(tree, to)
    assert found == [to / name.format(2) for name in names]
    assert all(deb.exists() for deb in found)
    assert not any((to / name.format(1)).exists() for name in names)
    package._remove_packages(tree)
    assert not list(tree.iterdir())


def test_a_version_names_related_patches() -> None:
    assert package.suffix("patched+iova-destroy+untrusted") == (
        "-default-domain-iova-destroy-untrusted"
    )


def test_no_modules_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LOADED", tmp_path / "modules")
    with pytest.raises(CannotTell, match="this kernel has no modules"):
        package._loaded()
    (tmp_path / "modules").write_text("nvme 1 2 - Live\next4 3 4 - Live\n")
    assert package._loaded() == ["nvme", "ext4"]
