# SPDX-License-Identifier: GPL-2.0-only
"""What scripts/boot --attack boots, and what it makes of what guests have left."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest

from workbench import base as bases
from workbench import attack, boot, boots, guest, job, kernel, machine, policy, verdict
from workbench.status import CannotTell

MACHINES = ["vtd", "vtd-late", "vtd-nopt", "vtd-nopt-external", "vtd-nopt-late"]

# What each guest is told that attacks: by machine; with iommu.strict=0, stock, patched, and
# patched with related/untrusted; with 1; and with iommu.passthrough=1, stock and patched.
# L lazy, S strict, I not translated
REACH = """
vtd                LLL S II
vtd-nopt           SLL S SL
vtd-nopt-external  SSS S SS
vtd-late           LLS S II
vtd-nopt-late      SLS S SL
"""
LETTERS = {"L": policy.UNTIL_FLUSH, "S": policy.NEVER, "I": policy.NOT_TRANSLATED}


def _jobs(*arguments: str) -> list[job.Job]:
    asked = boot.options().parse(["--attack", *arguments])
    boot._refuse_together(asked)
    chosen = boot.choose(asked)
    names = [asked.kernel] if asked.kernel else ["stock", "patched"]
    return boot._jobs(chosen, boot.ways(asked, chosen), names, asked.related)


def _one(name: str, kernel_: str, *words: str, related: str = "") -> job.Job:
    more = ["--with", related] if related else []
    found = _jobs(name, "--kernel", kernel_, *more, *words)
    assert len(found) == 1
    return found[0]


def test_every_machine_that_can() -> None:
    jobs = _jobs()
    assert list(dict.fromkeys(each.machine.name for each in jobs)) == MACHINES
    assert len(jobs) == 5 * 3 * 2
    assert len(_jobs("vtd", "--strict", "0")) == 2
    assert len(_jobs("vtd", "--all")) == 18


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--odd",), "--attack and --odd"),
        (("--image", "x"), "--attack and --image"),
        (("--replug", "2"), "--attack and --replug"),
        (("--base", "lts"), "mainline"),
        (("--accel", "kvm"), "tcg"),
        (("smmuv3",), "'smmuv3': its file has no 'attack'"),
        (("vtd", "vtd-nopt-cm"), "'vtd-nopt-cm': its file has no 'attack'"),
    ],
)
def test_refusals(arguments: Sequence[str], says: str) -> None:
    with pytest.raises(CannotTell) as raised:
        _jobs(*arguments)
    assert says in str(raised.value)


def test_reach() -> None:
    """Against a second statement of it."""
    rows = dict(line.split(None, 1) for line in REACH.strip().splitlines())
    assert list(rows) != MACHINES and sorted(rows) == MACHINES
    for name, row in rows.items():
        found = []
        for words in (("--strict", "0"), ("--strict", "1"), ("--passthrough", "1")):
            strict = () if "--strict" in words else ("--strict", "unset")
            kernels = [("stock", ""), ("patched", ""), ("patched", "untrusted")]
            each = [_one(name, one, *words, *strict, related=more) for one, more in kernels]
            found.append([one.reach_of(attack.attacker(one.machine).device) for one in each])
        lazy, strict_, passed = row.split()
        assert found[0] == [LETTERS[letter] for letter in lazy]
        assert found[1] == [LETTERS[strict_]] * 3
        assert found[2][:2] == [LETTERS[letter] for letter in passed]


def test_told() -> None:
    late = _one("vtd-nopt-late", "patched", "--strict", "0")
    words = ["attack", "device=0000:01:00.0", "type=DMA-FQ", "plug", "bounced", "lazy"]
    assert attack.told(late) == words
    cured = _one("vtd-nopt-late", "patched", "--strict", "0", related="untrusted")
    assert attack.told(cured) == [*words[:2], "type=DMA", "plug", "bounced"]
    free = _one("vtd", "stock", "--strict", "1")
    assert attack.told(free) == ["attack", "device=0000:00:05.0", "type=DMA"]


def test_the_attacker_has_its_bus_for_itself() -> None:
    words = attack.options(machine.read("vtd-nopt-external"))
    devices = [words[place + 1] for place, word in enumerate(words) if word == "-device"]
    assert [each for each in devices if "bus=external" in each] == ["edu,bus=external"]
    assert any(each.startswith("pcie-root-port,id=external") for each in devices)
    late = attack.options(machine.read("vtd-nopt-late"))
    assert not any("bus=external" in word for word in late)
    for name in MACHINES:
        words = attack.options(machine.read(name))
        assert words.count("edu,addr=6") == 1 and "shift=1,sleep=off" in words


def _result(which: job.Job, tmp_path: Path, console: str, **reports: str) -> attack.Result:
    """What comes of a console; reports: the status of a result, if it is not SUCCESS."""
    expected = attack.expected_results(which)
    parts = [
        verdict.Report(
            each.name,
            reports.get(
                each.name, "SKIPPED" if each.skip is verdict.Skip.ALWAYS else "SUCCESS"
            ),
        )
        for each in expected
    ]

    class Parser:
        """Has understood any console."""

        def parse(self, said: str) -> verdict.Report:
            """Return what was reported."""
            assert said == console
            good = all(part.status != "FAILURE" for part in parts)
            status = "SUCCESS" if good else "FAILURE"
            count = len(parts)
            return verdict.Report("main", status, parts=parts, planned=count, printed=count)

    booter = attack.Booter(boots.How(), tmp_path, Parser())  # type: ignore[arg-type]
    (tmp_path / "log").write_text(console)
    return booter.judge(which, tmp_path / "log", guest.Outcome())


LAZY = """# attack type DMA-FQ
# attack mapped reached
# attack unmapped reached
# attack window 13124,14126
# attack flushed refused
# attack reused refused
"""


def test_rows(tmp_path: Path) -> None:
    which = _one("vtd-nopt", "patched", "--strict", "0")
    result = _result(which, tmp_path, LAZY)
    assert not result.complaints
    words = ["yes", "13", "ms", "no", "no", "-", "lazy"]
    assert attack.row(result).split()[3:] == words
    late = _result(_one("vtd-nopt-late", "patched", "--strict", "0"), tmp_path, LAZY)
    assert attack.row(late).endswith("LAZY, and untrusted")


def test_what_is_not_as_expected_is_marked(tmp_path: Path) -> None:
    which = _one("vtd-nopt", "stock", "--strict", "0")
    result = _result(which, tmp_path, LAZY, unmapped="FAILURE")
    assert "unmapped failed" in result.complaints
    assert attack.row(result).endswith("UNEXPECTED: the type should be DMA")
    strict = LAZY.replace("DMA-FQ", "DMA")
    result = _result(which, tmp_path, strict, unmapped="FAILURE")
    assert attack.row(result).endswith("UNEXPECTED: unmapped failed")
    result = _result(which, tmp_path, strict, slot="SUCCESS")
    assert attack.row(result).endswith("slot was judged, and should have been skipped")


def test_nothing_is_attacked_where_nothing_is_translated(tmp_path: Path) -> None:
    which = _one("vtd-late", "stock", "--passthrough", "1", "--strict", "unset")
    result = _result(which, tmp_path, "# attack type identity\n")
    assert not result.complaints and attack.row(result).endswith("not translated")
    result = _result(which, tmp_path, "# attack type identity\n", mapped="SUCCESS")
    assert "mapped was judged, and should have been skipped" in result.complaints


def test_rows_come_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = _jobs("vtd-nopt", "--strict", "0")
    rows = attack.Rows(jobs)
    results = [_result(each, tmp_path, LAZY) for each in jobs]
    capsys.readouterr()
    rows.add(results[1])
    assert capsys.readouterr().out == ""
    rows.add(results[0])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "stock",
        "patched",
    ]


def test_kernels_differ_by_the_driver_alone(stock: Path) -> None:
    base = bases.Base("mainline", stock.parent)
    one = kernel.attacked(kernel.stock(base))
    assert one.name == "stock-attack" and one.fragments == ("attack",)
    assert sorted(one.edits) == [
        "drivers/misc/Kconfig",
        "drivers/misc/Makefile",
        "drivers/misc/edu.c",
        "include/uapi/linux/edu.h",
    ]
    assert one.like == kernel.stock(base)
