# SPDX-License-Identifier: GPL-2.0-only
"""What a guest boots with, and the parts of its programs that can be run here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from workbench import dmar, initramfs, kernel, machine, paths, process

HARNESS = r"""
#define main guest_main
#include "%(source)s"
#undef main
int main(int argc, char *argv[])
{
%(body)s
}
"""


def _run(tmp_path: Path, stock: Path, source: str, body: str, given: bytes = b"") -> str:
    """Compile a program of the guest's with another main(), and run that."""
    text = HARNESS % {"source": initramfs.GUEST / source, "body": body}
    (tmp_path / "test.c").write_text(text)
    # Debian does not have these, or older ones, nor that of what attacks
    for header in ("linux/map_benchmark.h", "linux/iommufd.h", "linux/vfio.h"):
        paths.write(tmp_path / header, (stock / "include/uapi" / header).read_bytes())
    paths.write(tmp_path / "linux/edu.h", (kernel.ATTACK / "edu.h").read_bytes())
    headers = [*initramfs.system_headers(), tmp_path]
    sources = initramfs.Sources(stock, headers)
    program = tmp_path / "test"
    target = "x86_64-linux-gnu"
    command = initramfs.command(tmp_path / "test.c", sources, target, program)
    # The headers have not been made for programs, as those of make headers have
    command += ["-w", "-I", initramfs.GUEST, "-D__user=", "-D__counted_by(x)="]
    subprocess.run([str(word) for word in command], check=True)
    done = subprocess.run([str(program)], input=given, capture_output=True, check=False)
    return f"{done.stdout.decode()}status {done.returncode}"


RELAY = 'return relay(0, "  ");'


def test_a_line_that_is_too_long_loses_nothing(tmp_path: Path, stock: Path) -> None:
    line = "".join(f"{number:04}" for number in range(300))
    said = _run(tmp_path, stock, "init.c", RELAY, f"{line}\nok 1 x\n".encode())
    assert said.replace("\n  ", "").startswith("  " + line)
    assert said.endswith("  ok 1 x\nstatus 1")


def test_the_last_line_need_not_end(tmp_path: Path, stock: Path) -> None:
    """As what a judge prints that crashes."""
    said = _run(tmp_path, stock, "init.c", RELAY, b"one\nBail out! no end")
    assert said == "  one\n  Bail out! no end\nstatus 0"
    assert (
        _run(tmp_path, stock, "init.c", RELAY, b"not ok 1\nok 2")
        == "  not ok 1\n  ok 2\nstatus 1"
    )
    assert _run(tmp_path, stock, "init.c", RELAY, b"") == "status 0"


FAULT = "DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0xfffe000 [x"


# What the kernel says, whether an attack expects that, and whether it counts as its fault
FAULTS = (
    (FAULT, 1, 1),
    ("DMAR: DRHD: handling fault status reg 2", 1, 0),
    (FAULT.replace("05.0", "06.0"), 0, 0),
    (FAULT.replace("0000:", "0001:"), 0, 0),
    (FAULT.replace("fffe000", "ffff000"), 0, 0),
    (FAULT.replace("fffe000", "fffe0000"), 0, 0),
    (FAULT.replace("Read", "Write"), 0, 0),
    (f"x {FAULT}", 0, 0),
)


def test_an_attack_allows_its_own_fault_alone(tmp_path: Path, stock: Path) -> None:
    """The device, the address and the direction have to be the right ones."""
    body = 'int good; device = "0000:00:05.0";'
    for text, _, _ in FAULTS:
        body += f'expect_fault(0xfffe123, false); good = is_expected("{text}");'
        body += 'printf("%d %d, ", good, faults);'
        body += f'expect_fault(0, false); printf("%d\\n", is_expected("{text}"));'
    said = _run(tmp_path, stock, "attack.c", body + "return 0;")
    wanted = [f"{allowed} {counted}, 0" for _, allowed, counted in FAULTS]
    assert said.splitlines() == [*wanted, "status 0"]


# What is expected of a load, invalidations, uses, and whether that is as expected
COUNTED = (
    *(("strict", 512, 512, 1), ("strict", 511, 512, 0), ("strict", 0, 0, 0)),
    *(("strict", 5000, 512, 1), ("strict", 0, -1, 0)),
    *(("lazy", 31, 512, 1), ("lazy", 32, 512, 0), ("lazy", 0, 0, 0), ("lazy", 0, 16, 1)),
    *(("waits", 512, 512, 1), ("waits", 511, 512, 0), ("waits", 0, 0, 0)),
    *(("waits", 543, 512, 1), ("waits", 544, 512, 0)),
    *(("strickt", 512, 512, 0), ("", 512, 512, 0)),
)


def test_how_often_a_load_may_invalidate(tmp_path: Path, stock: Path) -> None:
    body = "".join(
        f'printf("%d\\n", as_expected("{expect}", {count}, {uses}));'
        for expect, count, uses, _ in COUNTED
    )
    said = _run(tmp_path, stock, "loads.c", body + "return 0;")
    assert said.splitlines() == [*(str(good) for *_, good in COUNTED), "status 0"]


def test_what_may_be_a_slow_host_is_tried_again(tmp_path: Path, stock: Path) -> None:
    counted = (
        *(("lazy", 511, 512), ("lazy", 512, 512), ("lazy", 0, 0)),
        *(("waits", 600, 512), ("strict", 511, 512)),
    )
    body = "".join(
        f'printf("%d ", tries_of("{expect}", {count}, {uses}) > 1);'
        for expect, count, uses in counted
    )
    said = _run(tmp_path, stock, "loads.c", body + "return 0;")
    assert said.split() == ["1", "0", "1", "1", "0", "status", "0"]


# What the kernel says as an error, and whether it says so if it has no memory
ERRORS = (
    ("pci 0000:00:02.0: Failed to add to iommu group 3: -12", 1),
    ("pci 0000:00:02.0: Failed to add to iommu group 3: -22", 0),
    ("pci 0000:00:02.0: Failed to add to iommu group 12: -120", 0),
    ("virtio_blk: probe with driver virtio_blk failed with error -12", 1),
    ("virtio_blk: probe with driver virtio_blk failed with error -120", 0),
    ("nvme: something else -12", 0),
    ("kobject: can not set name properly!", 1),
    ("DMAR: DRHD: handling fault status reg 2", 0),
)


def test_which_errors_say_that_there_is_no_memory(tmp_path: Path, stock: Path) -> None:
    body = "".join(f'printf("%d\\n", says_no_memory("{text}"));' for text, _ in ERRORS)
    said = _run(tmp_path, stock, "events.c", body + "return 0;")
    assert said.splitlines() == [*(str(allowed) for _, allowed in ERRORS), "status 0"]


# Fills the segments of a reader as from its place on the disk, does something, then compares
FILL = r"""
    for (i = 0; i < SEGMENTS; i++)
        for (j = 0; j < RECORDS; j++) {
            snprintf(text, sizeof(text), "%%015d\n", (%d + i) * RECORDS + j);
            memcpy((char *)segments[i].iov_base + j * RECORD_SIZE, text, RECORD_SIZE);
        }
    %s
    printf("%%d\n", hold_records(segments, 64, %d));
"""
_SWAP = "last = segments[63]; segments[63] = segments[0]; segments[0] = last;"
# From where on they are filled, what is done then, which record is compared, and is it good?
PAGES = (
    *((64, "", 0, 1), (64, "", 127, 1), (0, "", 0, 0), (65, "", 7, 0)),
    *((64, "spoil_records(segments, 7);", 7, 0), (64, "spoil_records(segments, 7);", 8, 1)),
    (64, _SWAP, 9, 0),
)


def test_what_readers_read_is_compared(tmp_path: Path, stock: Path) -> None:
    body = "struct iovec segments[SEGMENTS], last; char text[RECORD_SIZE + 1]; int i, j;"
    body += "have_segments(segments, SEGMENTS, HALF_PAGE); (void)last; "
    body += 'printf("%d\\n", hold_records(segments, 0, 0));'
    body += "".join(FILL % each[:3] for each in PAGES)
    said = _run(tmp_path, stock, "events.c", body + "return 0;")
    assert said.splitlines() == ["0", *(str(good) for *_, good in PAGES), "status 0"]


def test_half_a_page_never_ends_where_a_page_begins(tmp_path: Path, stock: Path) -> None:
    body = "struct iovec all[64]; char *end; int i, borders; size_t size;"
    body += """
    for (size = HALF_PAGE; size <= PAGE; size += HALF_PAGE) {
        have_segments(all, 64, size);
        for (i = borders = 0; i < 64; i++) {
            end = (char *)all[i].iov_base + all[i].iov_len;
            borders += !((unsigned long)end % PAGE);
        }
        printf("%d\\n", borders);
    }
    """
    said = _run(tmp_path, stock, "init.c", body + "return 0;")
    assert said.splitlines() == ["0", "64", "status 0"]


# What is written to the file "type", and what the kernel takes it for
WORDS = (
    *(("DMA", "DMA"), ("DMA\\n", "DMA"), ("DMA-FQ", "DMA-FQ"), ("auto\\0x", "auto")),
    *(("DMA\\nx", "nonsense"), ("DMA\\n\\n", "nonsense"), ("DM", "nonsense")),
    *(("dma", "nonsense"), ("", "nonsense"), (" DMA", "nonsense"), ("DMA\\n\\0x", "DMA")),
)


def test_what_a_text_is_taken_for(tmp_path: Path, stock: Path) -> None:
    body = "".join(
        f'printf("%s\\n", word_in("{text}", sizeof("{text}") - 1));' for text, _ in WORDS
    )
    said = _run(tmp_path, stock, "events.c", body + "return 0;")
    assert said.splitlines() == [*(word for _, word in WORDS), "status 0"]


def test_table_by_which_the_firmware_asks() -> None:
    """The kernel refuses one with a wrong sum or length; of one that is not newer it keeps QEMU's."""
    table = dmar.opting_in()
    assert sum(table) % 256 == 0 and table[4:8] == len(table).to_bytes(4, "little")
    assert table[:4] == b"DMAR" and table[10:24] == b"BOCHS BXPC    "
    assert table[24:28] == b"\2\0\0\0" and table[37] == 5  # the revision; flags


def test_archive(tmp_path: Path) -> None:
    """As cpio(5) reads it; more than the 32 arguments of the kernel's fit in."""
    base = tmp_path / "base"
    base.write_bytes(initramfs.archive([initramfs.Entry("init", 0o100755, b"#!\n")]))
    told = [f"line {number}" for number in range(100)]
    initramfs.tell(base, told, tmp_path / "both")
    found = _read((tmp_path / "both").read_bytes())
    assert found["init"] == b"#!\n"
    assert found["told"].decode().splitlines() == told


def _read(packed: bytes) -> dict[str, bytes]:
    """Read archives that follow each other, as the kernel does."""
    found = {}
    place = 0
    while place < len(packed):
        if not packed[place]:
            place += 1
            continue
        assert packed[place : place + 6] == b"070701" and place % 4 == 0
        fields = [int(packed[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = packed[place + 110 : place + 110 + name_size - 1].decode()
        place += (110 + name_size + 3) // 4 * 4
        found[name] = packed[place : place + size]
        place += (size + 3) // 4 * 4
    return found


def test_what_a_guest_boots_with_is_made_again_if_it_must(
    tmp_path: Path, stock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def step(label: str, log: Path, *commands: "list[str]", **options: object) -> None:
        made.append(label)
        for command in commands:
            Path(command[command.index("-o") + 1]).write_bytes(b"program")

    monkeypatch.setattr(process, "step", step)
    headers = tmp_path / "include"
    paths.write(headers / "linux/reboot.h", b"one")
    sources = initramfs.Sources(stock, [headers])
    arch, directory = machine.arch("x86_64"), tmp_path / "guest"
    initramfs.build(sources, arch, directory)
    initramfs.build(sources, arch, directory)
    assert len(made) == 1
    paths.write(headers / "linux/reboot.h", b"two")
    initramfs.build(sources, arch, directory)
    assert len(made) == 2
    for name in ("disk.img", "initramfs.cpio", "init"):
        (directory / name).unlink()
        initramfs.build(sources, arch, directory)
        assert (directory / name).exists()
    monkeypatch.setattr(process, "stamp", lambda program: "another")
    initramfs.build(sources, arch, directory)
    assert len(made) == 6


@pytest.mark.parametrize(
    "header, programs",
    [
        ("map_benchmark.h", {"bench", "loads"}),
        ("iommufd.h", {"events"}),
        ("edu.h", {"attack"}),
    ],
)
def test_programs_need_headers(tmp_path: Path, header: str, programs: set[str]) -> None:
    """What a kernel's headers lack, nothing is compiled for."""
    paths.write(tmp_path / "linux" / header, b"")
    paths.write(tmp_path / initramfs.EVENTS_NEED, b"")
    sources = initramfs.Sources(tmp_path, [tmp_path])
    always = {"init", "default_domain"}
    assert initramfs.programs_of(sources).keys() == always | programs
