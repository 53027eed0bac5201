"""Tables: columns that a window has room for, aligned, in styles of their rows."""

import io
import re

import pytest
from rich.console import Console

from helpers.report_world import NAMES, make_ranking
from vlmsel_auto.reporting.table import Column, ranking_columns, table

COLUMNS = [
    Column("name", ["a", "b\x1b[2J"]),
    Column("n", ["1", "20"], right=True),
    Column("wide", ["x", "y"], least=50),
]


def drawn(width, columns=COLUMNS, **changes):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(table(columns, width=width, **changes))
    return console.file.getvalue().splitlines()


def test_a_narrow_window_has_fewer_columns():
    assert "wide" in drawn(50)[0]
    assert "wide" not in drawn(49)[0]


def test_cells_are_aligned_cleaned_and_styled():
    head, first, second = drawn(40, styles=["", "red"])
    assert head.index("n", head.index("name") + 4) > 0
    assert first.rstrip().endswith(" 1")
    assert second.startswith("\x1b[31m")
    assert "[2J" in second
    assert "\x1b[2J" not in second


def test_a_dispensable_column_goes_before_a_letter_does():
    columns = [*COLUMNS, Column("long", ["x" * 45, "y"])]
    narrow = drawn(61, columns=columns)
    assert "wide" not in narrow[0]
    assert "x" * 45 in narrow[1]
    assert "wide" in drawn(62, columns=columns)[0]


@pytest.mark.parametrize("width", [40, 80, 100, 120])
def test_a_ranking_shows_names_and_figures_in_full(width):
    console = Console(width=width, file=io.StringIO())
    ranking = make_ranking(NAMES)
    console.print(table(ranking_columns(ranking, top=9), width=width))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert ("± sd" in shown, "basis" in shown) == (width >= 80, width >= 100)
    assert width < 80 or [name for name in ranking.order if name not in shown] == []


def test_a_text_that_folds_leaves_figures_whole():
    columns = [Column("text", ["one two three four five six seven eight"], folds=True), Column("n", ["95.1 %"])]
    _, *lines = (re.sub(r"\x1b\[[\d;]*m", "", line) for line in drawn(30, columns=columns))
    assert "95.1 %" in lines[0]
    assert " ".join(line.replace("95.1 %", "").strip() for line in lines) == columns[0].cells[0]
