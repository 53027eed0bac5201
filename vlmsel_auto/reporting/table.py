"""Tables in a terminal or in HTML, given by columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vlmsel_auto.records import Ranking
from vlmsel_auto.reporting.formatting import clean, number
from vlmsel_auto.units import percent

_MIDDLE, _WIDE = 56, 100  # columns of the window from which a ranking shows more
_FOLDED = 24  # columns that a folding text gets before dispensable columns: a name of the mini zoo fits


@dataclass(frozen=True, slots=True)
class Column:
    """A title and one cell a row."""

    title: str
    cells: Sequence[str]
    right: bool = False  # aligned
    least: int = 0  # columns of the window from which this one is shown, unless it would cost others their letters
    folds: bool = False  # goes on on further lines where room is short: names and sentences, never figures


def table(columns: Sequence[Column], *, width: int, styles: Sequence[str] = (), gap: int = 2) -> Table:
    """The columns that a window of ``width`` has room for; ``styles`` gives one style a row."""
    shown = _fitting(columns, width=width, gap=gap)
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for column in shown:
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.folds,  # rich takes room from those that wrap first
            overflow="fold" if column.folds else "ellipsis",
        )
    for index, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
        made.add_row(*(Text(clean(cell)) for cell in row), style=styles[index] if styles else "")
    return made


def _fitting(columns: Sequence[Column], *, width: int, gap: int) -> list[Column]:
    """Leave out dispensable columns, those of the widest windows first, until the others stand in full."""
    shown = [column for column in columns if width >= column.least]
    while sum(_wide(column) for column in shown) + gap * (len(shown) - 1) > width:
        most = max(column.least for column in shown)
        if not most:
            break
        shown.remove([column for column in shown if column.least == most][-1])
    return shown


def _wide(column: Column) -> int:
    widest = max((cell_len(clean(text)) for text in (column.title, *column.cells)), default=0)
    return min(widest, _FOLDED) if column.folds else widest


def html_table(columns: Sequence[Column]) -> str:
    """The columns as an HTML table; every cell is escaped."""
    aligned = ["right" if column.right else "left" for column in columns]
    heads = zip((column.title for column in columns), aligned, strict=True)
    head = "".join(f'<th style="text-align:{side}">{escape(clean(title))}</th>' for title, side in heads)
    rows = [
        "".join(
            f'<td style="text-align:{side}">{escape(clean(cell))}</td>' for cell, side in zip(row, aligned, strict=True)
        )
        for row in zip(*(column.cells for column in columns), strict=True)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def ranking_columns(ranking: Ranking, *, top: int) -> list[Column]:
    """The best ``top`` candidates of a ranking, as people read them."""
    lines = ranking.ranked[:top]
    ends = [[number(end, digits=0) for end in (line.rank_interval.low, line.rank_interval.high)] for line in lines]
    return [
        Column("", [str(place) for place in range(1, len(lines) + 1)], right=True),
        Column("candidate", [line.candidate for line in lines], folds=True),
        Column("score", [number(line.score) for line in lines], right=True),
        Column("± sd", [number(line.sd) for line in lines], right=True, least=_MIDDLE),
        Column("P(best)", [percent(line.p_best, digits=0) for line in lines], right=True),
        Column("P(top 5)", [percent(line.p_top5, digits=0) for line in lines], right=True),
        Column("rank 95 %", [f"{low} to {high}" for low, high in ends], right=True, least=_MIDDLE),
        Column("basis", [line.basis for line in lines], least=_WIDE),
    ]
