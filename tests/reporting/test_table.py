"""Tables: columns that a window has room for, aligned, in styles of their rows."""

import io

from rich.console import Console

from vlmsel_auto.reporting.table import Column, table

COLUMNS = [
    Column("name", ["a", "b\x1b[2J"]),
    Column("n", ["1", "20"], right=True),
    Column("wide", ["x", "y"], least=50),
]


def drawn(width, **changes):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(table(COLUMNS, width=width, **changes))
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
