"""Tables in a terminal, given by columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from vlmsel_auto.reporting.formatting import clean


@dataclass(frozen=True, slots=True)
class Column:
    """A title and one cell a row."""

    title: str
    cells: Sequence[str]
    right: bool = False  # aligned
    least: int = 0  # columns of the window from which this one is shown


def table(columns: Sequence[Column], *, width: int, styles: Sequence[str] = (), gap: int = 2) -> Table:
    """The columns that a window of ``width`` has room for; ``styles`` gives one style a row."""
    shown = [column for column in columns if width >= column.least]
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for column in shown:
        made.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for index, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
        made.add_row(*(Text(clean(cell)) for cell in row), style=styles[index] if styles else "")
    return made
