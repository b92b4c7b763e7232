# SPDX-License-Identifier: GPL-2.0-only
"""Building, of a toy kernel: what is built again, and what is not.

The toy's Makefile is called as the kernel's is, and compiles by copying. What it does it
writes to a journal.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Sequence

import pytest

from workbench import base as bases
from workbench import build, check, kernel, packages, paths, process, tree
from workbench.build import Target
from workbench.kernel import Kernel
from workbench.packages import LLVM
from workbench.status import CannotTell

MAKEFILE = r"""
obj := $(CURDIR)/$(O)
note = @echo $(1) >>$(CURDIR)/../journal
objects := $(patsubst %.c,$(obj)/%.o,$(wildcard *.c))
tinyconfig:
	@mkdir -p $(obj) && ln -sfn .. $(obj)/source && echo CONFIG_TINY=y >$(obj)/.config
	$(call note,tinyconfig)
olddefconfig:
	$(call note,olddefconfig)
image: $(objects)
	@cat $^ >$(obj)/image
headers:
$(obj)/%.o: %.c
	@cp $< $@
	$(call note,$*.o)
"""
MERGE = """#!/bin/sh
# as merge_config.sh -m -O . .config FILES does
shift 4
cat "$@" >>.config
"""


class Toy:
    """A base, with the journal of what was made of it."""

    def __init__(self, directory: Path) -> None:
        self.base = bases.Base("toy", directory / "toy")
        self.target = Target("x86_64", "image")
        stock = self.base.stock
        paths.write(stock / "Makefile", MAKEFILE.encode())
        paths.write(stock / "scripts/kconfig/merge_config.sh", MERGE.encode(), 0o755)
        for name in ("a.c", "b.c", "Kconfig"):
            paths.write(stock / name, f"{name}\n".encode())
        for path in stock.rglob("*"):
            os.utime(path, (1e9, 1e9))
        tree.record(stock)
        self.stock = kernel.stock(self.base)
        self.patched = self.kernel({"b.c": b"edited\n"})

    def kernel(self, edits: dict[str, bytes]) -> Kernel:
        """Return a kernel with edits, that may start from stock's objects."""
        return Kernel(self.base, "patched", edits, (), self.stock)

    def build(self, built: Kernel, target: "Target | None" = None) -> list[str]:
        """Build; return what was made."""
        built.make()
        build.kernel_image(built, target or self.target)
        journal = self.base.directory / "journal"
        made = journal.read_text().split() if journal.exists() else []
        journal.write_text("")
        return sorted(made, key=lambda name: name if name.endswith(".o") else "")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy, with fragments and a compiler of its own."""
    config = tmp_path / "config"
    for name in ("common", "x86_64", "arm64", "kunit", "debug", "64k"):
        paths.write(config / f"{name}.config", f"CONFIG_{name.upper()}=y\n".encode())
    programs = tmp_path / "bin"
    for name in (f"clang{LLVM}", f"ld.lld{LLVM}"):
        paths.write(programs / name, b"#!/bin/sh\n", 0o755)
    monkeypatch.setattr(build, "CONFIG", config)
    monkeypatch.setattr(bases, "fetch", lambda base: None)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Toy(tmp_path)


CONFIGURED = ["tinyconfig", "olddefconfig"]


def test_once(toy: Toy) -> None:
    assert toy.build(toy.stock) == [*CONFIGURED, "a.o", "b.o"]
    assert toy.build(toy.stock) == []
    assert (toy.base.stock / "obj-x86_64/image").read_text() == "a.c\nb.c\n"


def test_patched_starts_from_stocks_objects(toy: Toy) -> None:
    toy.build(toy.stock)
    made = toy.build(toy.patched)
    assert "b.o" in made and "a.o" not in made
    assert (toy.patched.tree / "obj-x86_64/image").read_text() == "a.c\nedited\n"


def test_objects_that_are_copied_are_mended(toy: Toy) -> None:
    toy.build(toy.stock)
    (toy.base.stock / "obj-x86_64/tool.cmd").write_text(f"{toy.base.stock}/tool.c\n")
    toy.build(toy.patched)
    mended = (toy.patched.tree / "obj-x86_64/tool.cmd").read_text()
    assert mended == f"{toy.patched.tree}/tool.c\n"


@pytest.mark.parametrize("make", [kernel.probed, kernel.attacked, kernel.failing])
def test_kernels_of_guests_start_from_others(
    make: Callable[[Kernel], Kernel], stock: Path
) -> None:
    base = bases.Base("mainline", stock.parent)
    made = make(Kernel(base, "patched", like=kernel.stock(base)))
    assert made.like and made.like.name.startswith(("patched", "stock"))
    assert not made.is_whole


def test_the_stock_kernel_of_events_starts_from_that_of_loads(stock: Path) -> None:
    plain = kernel.stock(bases.Base("mainline", stock.parent))
    assert kernel.failing(plain).like == plain


def test_an_edit_compiles_what_it_edits(toy: Toy) -> None:
    toy.build(toy.patched)
    assert toy.build(toy.kernel({"b.c": b"again\n"})) == ["b.o"]
    assert toy.build(toy.kernel({})) == ["b.o"]  # as a probe that is removed


def test_changed_with_its_old_date(toy: Toy) -> None:
    toy.build(toy.patched)
    path = toy.patched.tree / "a.c"
    date = path.stat().st_mtime_ns
    path.write_text("x.c\n")
    os.utime(path, ns=(date, date))
    assert toy.build(toy.patched) == ["a.o"]
    assert (toy.patched.tree / "obj-x86_64/image").read_text() == "a.c\nedited\n"


def test_deleted(toy: Toy) -> None:
    toy.build(toy.patched)
    (toy.patched.tree / "a.c").unlink()
    assert toy.build(toy.patched) == ["a.o"]


def test_changed_while_another_architecture_was_built(toy: Toy) -> None:
    """And changed back: what each has been built from is known, not guessed from dates."""
    arm64 = Target("arm64", "image")
    toy.build(toy.patched)
    other = toy.kernel({"b.c": b"other\n"})
    toy.build(other, arm64)
    toy.build(toy.patched, arm64)
    toy.build(toy.patched)
    for name in ("x86_64", "arm64"):
        image = toy.patched.tree / f"obj-{name}/image"
        assert image.read_text() == "a.c\nedited\n"


def test_a_build_that_was_interrupted(toy: Toy) -> None:
    toy.build(toy.patched)
    (toy.patched.tree / "obj-x86_64/built").unlink()
    assert toy.build(toy.patched) == []  # make looks, and finds nothing
    assert (toy.patched.tree / "obj-x86_64/built").exists()


def test_an_image_that_is_gone(toy: Toy) -> None:
    toy.build(toy.patched)
    (toy.patched.tree / "obj-x86_64/image").unlink()
    toy.build(toy.patched)
    assert (toy.patched.tree / "obj-x86_64/image").exists()


def test_another_compiler_builds_all_anew(toy: Toy, tmp_path: Path) -> None:
    toy.build(toy.patched)
    paths.write(tmp_path / f"bin/clang{LLVM}", b"#!/bin/sh\n# newer\n", 0o755)
    assert toy.build(toy.patched) == [*CONFIGURED, "a.o", "b.o"]


def test_another_compiler_takes_no_objects_of_the_old_one(toy: Toy, tmp_path: Path) -> None:
    toy.build(toy.stock)
    paths.write(tmp_path / f"bin/clang{LLVM}", b"#!/bin/sh\n# newer\n", 0o755)
    assert "a.o" in toy.build(toy.patched)


def test_another_fragment_configures_again(toy: Toy) -> None:
    toy.build(toy.patched)
    fragment = build.CONFIG / "common.config"
    fragment.write_text("CONFIG_OTHER=y\n")
    assert toy.build(toy.patched)[:1] == ["olddefconfig"]
    config = toy.patched.tree / "obj-x86_64/.config"
    assert config.read_text() == "CONFIG_TINY=y\nCONFIG_OTHER=y\nCONFIG_X86_64=y\n"
    fragment.write_text("CONFIG_COMMON=y\n")
    assert toy.build(toy.patched)[:1] == ["olddefconfig"]


def test_tinyconfig_is_made_once_for_the_same_kconfig(toy: Toy) -> None:
    toy.build(toy.stock)
    assert "tinyconfig" not in toy.build(toy.patched)
    config = toy.patched.tree / "obj-x86_64/.config"
    assert config.read_text() == "CONFIG_TINY=y\nCONFIG_COMMON=y\nCONFIG_X86_64=y\n"


def _kept(toy: Toy) -> list[Path]:
    return sorted((toy.base.directory / "tinyconfig").iterdir())


@pytest.mark.parametrize("content", [b"", b"CONFIG_MINE=y\n", b"0\nCONFIG_MINE=y\n"])
def test_tinyconfig_that_was_edited_is_made_anew(toy: Toy, content: bytes) -> None:
    toy.build(toy.stock)
    (file,) = _kept(toy)
    kept = file.read_bytes()
    file.write_bytes(content)
    assert "tinyconfig" in toy.build(toy.patched)
    assert (toy.patched.tree / "obj-x86_64/.config").read_text().startswith("CONFIG_TINY=y\n")
    assert _kept(toy) == [file] and file.read_bytes() == kept


def test_tinyconfig_depends_on_what_is_installed(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.build(toy.stock)
    status = tmp_path / "status"
    status.write_text("a package\n")
    monkeypatch.setattr(build, "_INSTALLED", status)
    assert "tinyconfig" in toy.build(toy.patched)


@pytest.mark.parametrize("word", ["CC=ccache gcc", "KCSAN_SANITIZE=n", "ARCH=arm64"])
def test_tinyconfig_depends_on_what_make_is_told(toy: Toy, word: str) -> None:
    toy.build(toy.stock)
    obj = toy.base.stock / "obj"
    one = build._tinyconfig_file(obj, build.make(toy.base.stock, "obj", "x86_64"))
    other = build._tinyconfig_file(obj, build.make(toy.base.stock, "obj", "x86_64", word))
    words = ("W=1", "C=2", "CHECK=sparse")  # they do not matter
    same = build._tinyconfig_file(obj, build.make(toy.base.stock, "obj-2", "x86_64", *words))
    assert one == same != other


def test_tinyconfig_depends_on_both_compilers(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.build(toy.stock)
    paths.write(tmp_path / "bin/gcc", b"#!/bin/sh\n", 0o755)
    assert "tinyconfig" in toy.build(toy.patched)


def test_tinyconfig_is_made_for_each_architecture(toy: Toy) -> None:
    toy.build(toy.stock)
    assert toy.build(toy.stock, Target("arm64", "image"))[:2] == CONFIGURED


@pytest.mark.parametrize("name", ["Kconfig", "kernel/configs/tiny.config"])
def test_kconfig_configures_again(name: str, toy: Toy) -> None:
    toy.build(toy.patched)
    edits = {"b.c": b"edited\n", name: b"config X\n"}
    assert toy.build(toy.kernel(edits))[:2] == CONFIGURED


def test_what_tools_leave_builds_nothing(toy: Toy) -> None:
    toy.build(toy.patched)
    paths.write(toy.patched.tree / "scripts/__pycache__/x.pyc", b"x")
    assert toy.build(toy.patched) == []


def test_a_failure_names_its_log(toy: Toy) -> None:
    broken = toy.kernel({"Makefile": (MAKEFILE + "image: none\nnone:\n\t@exit 3\n").encode()})
    with pytest.raises(
        CannotTell, match=r"build patched for x86_64 failed.*all of it: .*\.log"
    ):
        toy.build(broken)


def test_every_symbol_has_to_be_there() -> None:
    asked = "# a comment\nCONFIG_A=y\nCONFIG_B=n\n# CONFIG_C is not set\nCONFIG_D=4\n"
    config = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_D=4\n"
    assert build.not_configured(asked, config) == []
    lost = build.not_configured(asked, "CONFIG_A=m\nCONFIG_D=2\n")
    assert lost == [
        *("CONFIG_A=y", "# CONFIG_B is not set", "# CONFIG_C is not set", "CONFIG_D=4")
    ]


def test_the_last_of_two_lines_counts() -> None:
    """As merge_config.sh has it: a fragment may take back what another asks for."""
    asked = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_A is not set\n"
    assert build.not_configured(asked, "# CONFIG_A is not set\nCONFIG_B=y\n") == []
    assert build.not_configured(asked, "CONFIG_A=y\nCONFIG_B=y\n") == ["# CONFIG_A is not set"]


def test_a_symbol_that_is_lost_fails(toy: Toy) -> None:
    merge = {"scripts/kconfig/merge_config.sh": b"#!/bin/sh\n"}
    with pytest.raises(
        CannotTell, match="not in the configuration as asked for: CONFIG_COMMON=y"
    ):
        toy.build(toy.kernel(merge))


def test_ccache_serves_another_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled does not tell where, when and by whom."""
    words = build.make(Path("/a/checkout/build/mainline/stock"), "obj-x86_64", "x86_64")
    assert "O=obj-x86_64" in words  # relative, so that make's paths are
    monkeypatch.setenv("CCACHE_DEPEND", "1")
    told = build.environment()
    assert told["KBUILD_BUILD_TIMESTAMP"] == "@0"
    assert told["KBUILD_BUILD_USER"] == told["KBUILD_BUILD_HOST"] == "build"
    # With it ccache of Debian 12 does not see what an object has by .incbin, as piggy.o
    assert "CCACHE_DEPEND" not in told and told["CCACHE_NODEPEND"]
    assert any("ccache" in word for word in build.CLANG)


def test_absolute_paths_of_copied_objects_are_mended(tmp_path: Path) -> None:
    obj = tmp_path / "patched/obj"
    text = f"deps := {tmp_path}/stock/tools/objtool.c {tmp_path}/stocking/x\n"
    paths.write(obj / "tools/.objtool.o.cmd", text.encode())
    paths.write(obj / "binary.o", bytes(tmp_path) + b"/stock/x\0")
    build.move(obj, tmp_path / "stock", tmp_path / "patched")
    mended = (obj / "tools/.objtool.o.cmd").read_text()
    assert mended == f"deps := {tmp_path}/patched/tools/objtool.c {tmp_path}/stocking/x\n"
    assert (obj / "binary.o").read_bytes() == bytes(tmp_path) + b"/stock/x\0"


def test_no_objects_of_other_sources(toy: Toy) -> None:
    """Not those of a stock that has been built before the base has changed."""
    toy.build(toy.stock)
    (toy.base.stock / "a.c").write_text("changed\n")
    os.utime(toy.base.stock / "a.c", (1e9, 1e9))
    tree.record(toy.base.stock)
    assert "a.o" in toy.build(toy.patched)
    assert (toy.patched.tree / "obj-x86_64/image").read_text() == "changed\nedited\n"


def test_no_objects_of_an_edit_that_has_gone(toy: Toy) -> None:
    like = toy.kernel({"a.c": b"edited\n"})
    toy.build(like)
    like = toy.kernel({})
    mutant = Kernel(toy.base, "mutant", {"b.c": b"mutant\n"}, (), like)
    toy.build(mutant)
    assert (mutant.tree / "obj-x86_64/image").read_text() == "a.c\nmutant\n"


def test_no_objects_of_an_edit_that_only_the_other_has(toy: Toy) -> None:
    """As the first commit of a series, which starts from the whole series."""
    like = toy.kernel({"a.c": b"edited\n", "b.c": b"edited\n"})
    toy.build(like)
    first = Kernel(toy.base, "commit", {"a.c": b"edited\n"}, (), like)
    assert "b.o" in toy.build(first)
    assert (first.tree / "obj-x86_64/image").read_text() == "edited\nb.c\n"
    assert not toy.build(first)


@pytest.mark.parametrize("name", ["image", "usr/include/linux/x.h"])
def test_what_was_built_is_damaged(toy: Toy, name: str) -> None:
    obj = toy.stock.tree / "obj-x86_64"
    toy.build(toy.stock)
    paths.write(obj / "usr/include/linux/x.h", b"whole\n")
    (obj / "built").unlink()
    toy.build(toy.stock)
    whole = (obj / "image").read_bytes()
    (obj / name).write_bytes(b"")
    toy.build(toy.stock)
    assert (obj / "image").read_bytes() == whole
    said = build.read_stamp(obj / "built")
    assert said["made"] == build._made(toy.stock, toy.target)


def test_the_compiler_behind_ccache_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.write(tmp_path / "ccache", b"#!/bin/sh\necho ccache\n", 0o755)
    (tmp_path / "masked").mkdir()
    (tmp_path / "masked/cc").symlink_to(tmp_path / "ccache")
    paths.write(tmp_path / "bin/cc", b"#!/bin/sh\necho cc 1.2\necho more\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/masked:{tmp_path}/bin:{os.environ['PATH']}")
    said = process.stamp("cc")
    assert said.startswith(f"{tmp_path}/bin/cc ") and said.endswith(" cc 1.2")
    assert process.stamp("nosuch") == "none"


def test_a_copy_of_objects_that_was_interrupted_is_not_taken(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.build(toy.stock)
    where = toy.stock.tree / "obj-check"

    def fail(command: Sequence[object], **options: object) -> str:
        paths.write(Path(str(command[-1])) / "half", b"")
        raise process.Failed("cp: No space left on device", 1)

    monkeypatch.setattr(process, "output", fail)
    with pytest.raises(process.Failed):
        words = ("obj-check", "x86_64", build.CLANG, False, (), ())
        check._compile(SimpleNamespace(), toy.stock, *words)  # type: ignore[arg-type]
    assert not where.exists()


@pytest.mark.parametrize("version", ["7.3-1", "7.3-2"])
def test_a_tree_is_repaired_from_one_version(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the package is a newer one by now, all files come from that."""
    base = bases.Base("toy", tmp_path / "toy")
    offered = ["7.3-1"]

    def unpack(package: Path, into: Path, log: Path) -> None:
        for name in ("a.c", "b.c"):
            paths.write(into / name, f"{name} of {offered[0]}\n".encode())

    monkeypatch.setattr(bases, "check_place", lambda: None)
    monkeypatch.setattr(bases, "_package", lambda each: Path("x.deb"))
    monkeypatch.setattr(packages, "unpack_source", unpack)
    monkeypatch.setattr(packages, "name_and_version", lambda package: offered[0])
    bases.fetch(base)
    offered[0] = version
    (base.stock / "a.c").write_text("mine\n")
    bases.fetch(base)
    assert base.version == version and tree.is_untouched(base.stock)
    found = {(base.stock / name).read_text() for name in ("a.c", "b.c")}
    assert found == {f"{name} of {version}\n" for name in ("a.c", "b.c")}
    (base.directory / "version").unlink()
    bases.fetch(base)
    assert base.version == version


def test_a_directory_that_changes_during_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.write(tmp_path / "mine/Makefile", b"kernelversion:\n\t@echo 7.3\n")
    base = bases.Base("mine", tmp_path / "toy", tmp_path / "mine")
    monkeypatch.setattr(bases, "check_place", lambda: None)
    for _ in range(2):
        bases.fetch(base)
    paths.write(tmp_path / "mine/a.c", b"new\n")
    with pytest.raises(CannotTell, match="mine' has been changed meanwhile, begin again"):
        bases.fetch(base)


@pytest.mark.parametrize("name", ["KCFLAGS", "KBUILD_OUTPUT", "ARCH", "MAKEFLAGS", "LLVM"])
def test_what_the_user_tells_make_is_not_told_ours(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    assert name not in build.environment()


@pytest.mark.parametrize("has_pinned", [False, True])
def test_where_the_pinned_source_is_gone_the_newest_is_taken(
    has_pinned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [bases.PINNED] if has_pinned else []
    archive = SimpleNamespace(site="http://x", names=lambda pattern: found)
    monkeypatch.setattr(packages, "find", lambda *_: (archive, "linux-source-7.9"))
    monkeypatch.setattr(packages, "latest", lambda: [[]])
    _, name = bases._find_package(bases.Base("mainline", tmp_path))
    assert name == (bases.PINNED if has_pinned else "linux-source-7.9")
    told = "http://x has no linux-source-7.3 any more, the newest is linux-source-7.9\n"
    assert (told in capsys.readouterr().err) is not has_pinned
    _, name = bases._find_package(bases.Base("newest", tmp_path))
    assert name == "linux-source-7.9"


def test_a_download_that_was_interrupted_is_not_taken(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Archive:
        """Its first download is interrupted."""

        tries = 0

        def download(self, names: list[str], into: Path) -> None:
            self.tries += 1
            paths.write(into / f"{names[0]}.deb", b"whole" if self.tries > 1 else b"half")
            if self.tries == 1:
                raise KeyboardInterrupt

    archive = Archive()
    monkeypatch.setattr(bases, "_find_package", lambda base: (archive, "linux-source"))
    with pytest.raises(KeyboardInterrupt):
        bases._package(toy.base)
    for _ in range(2):
        assert bases._package(toy.base).read_bytes() == b"whole"
    assert archive.tries == 2


@pytest.mark.parametrize("before", [None, b"mutant\n"])
def test_a_check_leaves_the_tree_of_mutants_as_it_was(
    toy: Toy, before: "bytes | None"
) -> None:
    look = SimpleNamespace(base=toy.base, kernels={"patched": toy.patched})
    if before:
        kernel.edited(toy.patched, "mutant", {"b.c": before}).make()
    with check._mutant_is_kept(look):  # type: ignore[arg-type]
        kernel.edited(toy.patched, "mutant", {"a.c": b"checked\n"}).make()
    found = tree.edits(toy.base.directory / "mutant")
    assert found == ({"b.c": before} if before else None)


def test_what_a_fragment_has_make_told() -> None:
    words = build.words_for_make(
        [build.CONFIG / "kcsan.config", build.CONFIG / "debug.config"]
    )
    assert words[0] == "KCSAN_SANITIZE=n" and "KCSAN_SANITIZE_iommu.o=y" in words


def test_tree_of_guests_alone_lacks_what_they_never_boot(toy: Toy) -> None:
    gpu, page = "drivers/gpu/a.c", "Documentation/iommu/index.rst"
    for path in (gpu, "drivers/gpu/Kconfig", page, "Documentation/other.rst"):
        paths.write(toy.base.stock / path, b"there\n")
    tree.record(toy.base.stock)
    like = toy.kernel({page: b"edited\n"})
    like.make()
    one = kernel.edited(like, "mutant", like.edits)
    one.make()
    assert (like.tree / gpu).exists() and (like.tree / "Documentation/other.rst").exists()
    assert not (one.tree / gpu).exists() and (one.tree / "drivers/gpu/Kconfig").exists()
    assert not (one.tree / "Documentation/other.rst").exists()
    assert (one.tree / page).read_bytes() == b"edited\n"
    identity = tree.identity(one.tree)
    paths.write(toy.base.stock / gpu, b"another\n")
    tree.record(toy.base.stock)
    one.make()
    assert tree.identity(one.tree) == identity and not (one.tree / gpu).exists()
    # What an edit, or a tree that was whole, has left goes away
    edited = replace(one, edits={**one.edits, gpu: b"edited\n"})
    for other in (edited, one, replace(one, is_whole=True), one):
        other.make()
        assert (one.tree / gpu).exists() == (other is not one)
