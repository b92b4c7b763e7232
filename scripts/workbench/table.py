# SPDX-License-Identifier: GPL-2.0-only
"""The tables that are printed: columns, cells, and what is marked in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from workbench import policy
from workbench.policy import Setting

_DEFAULTS = {
    "strict": "The kernel's default is strict.",
    "passthrough": "The kernel's default is passthrough.",
    policy.OPT_IN: "VT-d is on since the firmware asks for it.",
}

LONG = "{:18}  {:34}  {:12}  {:8}  {:8}  {}"
ONE = "{:18}  {:34}  {:12}  {:8}  {}"


@dataclass(frozen=True)
class Cell:
    """What a device got: its type under each of two kernels, "-" if not booted.

    marks: what is wrong with it. note: what else there is to say of it.
    """

    first: str
    second: str
    marks: Sequence[str] = ()
    note: str = ""

    @property
    def differs(self) -> bool:
        """Whether the two kernels do not agree."""
        return "-" not in (self.first, self.second) and self.first != self.second

    def long(self) -> str:
        """Return what there is to say of it in a row of its own."""
        return " ".join((["differs"] if self.differs else []) + list(self.marks))

    def short(self) -> str:
        """Return it as one word: "first>second" where they differ, "!" if wrong."""
        both = {"-": self.second}.get(self.first, self.first)
        if self.differs:
            both += f">{self.second}"
        both = both.replace("DMA-FQ", "FQ").replace("identity", "ident")
        return both + ("!" if self.marks else "")


@dataclass(frozen=True)
class Table:
    """A table: the lines of its head, and what makes a row.

    row: takes a machine, parameters, a device and its cells.
    """

    head: Sequence[str]
    row: Callable[[str, str, str, Sequence[Cell]], str]


def long(first: str = "stock", second: str = "patched") -> Table:
    """Return a table with a row for each machine, parameters and device.

    first, second: the names of the kernels.
    """

    def row(machine: str, words: str, device: str, cells: Sequence[Cell]) -> str:
        cell = cells[0]
        line = LONG.format(machine, words or "-", device, cell.first, cell.second, cell.long())
        return line.rstrip()

    head = LONG.format("machine", "parameters", "device", first, second, "").rstrip()
    return Table([head], row)


def one() -> Table:
    """Return a table with a row as in long(), of one kernel."""

    def row(machine: str, words: str, device: str, cells: Sequence[Cell]) -> str:
        cell = cells[0]
        says = " ".join([cell.note, *cell.marks]).strip()
        return ONE.format(machine, words or "-", device, cell.first, says).rstrip()

    return Table([ONE.format("machine", "parameters", "device", "type", "").rstrip()], row)


def several(names: Sequence[str], width: int) -> Table:
    """Return a table with a row as in long(), of several kernels. width: of parameters."""
    form = f"{{:18}}  {{:{width}}}  {{:12}}" + "".join(f"  {{:{len(name)}}}" for name in names)

    def row(machine: str, words: str, device: str, cells: Sequence[Cell]) -> str:
        said = [cell.short() + ("*" if cell.note else "") for cell in cells]
        return form.format(machine, words or "-", device, *said).rstrip()

    title = "The type under each kernel: FQ is DMA-FQ, * strict, though it could be lazy,"
    title += " - no driver for it."
    return Table([title, form.format("machine", "parameters", "device", *names).rstrip()], row)


def short(settings: Sequence[Setting], first: str = "stock", second: str = "patched") -> Table:
    """Return a table with a row for each machine and device, the settings across.

    first, second: the names of the kernels.
    """
    form = "{:18}  {:12} " + " {:7}" * len(settings)
    above = []
    for number, setting in enumerate(settings):
        is_new = not number or settings[number - 1].passthrough != setting.passthrough
        above.append(setting.passthrough if is_new else "")

    def row(machine: str, words: str, device: str, cells: Sequence[Cell]) -> str:
        del words
        return form.format(machine, device, *(cell.short() for cell in cells)).rstrip()

    title = f"The type under {first}, and under {second} where it differs. FQ is DMA-FQ."
    defaults = {each.default for each in settings} - {policy.DEFAULTS[0]}
    head = [
        title + "".join(f" {_DEFAULTS[each]}" for each in defaults),
        form.format("iommu.passthrough", "", *above).rstrip(),
        form.format("iommu.strict", "", *(each.strict for each in settings)).rstrip(),
    ]
    return Table(head, row)


def line(name: str, cells: Sequence[str], width: int = 13, cell: int = 6) -> str:
    """Return a line of a table: a name, and cells. width, cell: how wide these are."""
    return (f"{name:{width}}" + "".join(f" {each:{cell}}" for each in cells)).rstrip()


def head(columns: Sequence[tuple[str, ...]], width: int = 13, cell: int = 6) -> str:
    """Return a line with the last word of each column above the first of those like it."""
    found = ""
    for number, words in enumerate(columns):
        if not number or words != columns[number - 1]:
            found = found.ljust(width + 1 + (cell + 1) * number) + words[-1]
    return found


def cell_width(columns: Sequence[tuple[str, ...]]) -> int:
    """Return how wide cells must be for head() to have room, as little as that is."""
    spans = [(len(words[-1]), columns.count(words)) for words in columns]
    return max(6, *(-(-(length + 1) // span) - 1 for length, span in spans))
