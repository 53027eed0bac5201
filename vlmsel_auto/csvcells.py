"""Cells of CSV files that a spreadsheet shows and does not compute, whatever a file or a class is called."""

from __future__ import annotations

from typing import Final

_START: Final = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the start of a formula


def text_cell(text: str) -> str:
    """The text; an apostrophe in front keeps a formula text."""
    return f"'{text}" if _is_formula(text) else text


def path_cell(path: str) -> str:
    """A path that is no formula, and still the path."""
    return f"./{path}" if _is_formula(path) else path


def _is_formula(cell: str) -> bool:
    if not cell.startswith(_START):
        return False
    try:
        float(cell)  # a negative number is one
    except ValueError:
        return True
    return False
