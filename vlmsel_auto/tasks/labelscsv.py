"""Read labels.csv: which image belongs to which class, and to which split if it says so."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.scan import Entry, inside, nfc, shown, split_part

__all__ = ["LabelTable", "read_labels"]

_PATH_COLUMNS = ("path", "file", "image", "filename")
_LABEL_COLUMNS = ("label", "class")
_SPLIT_COLUMN = "split"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """The usable rows of labels.csv."""

    entries: tuple[Entry, ...]
    refused: tuple[BadFile, ...]


def read_labels(path: Path, *, root: Path) -> LabelTable:
    """Read a CSV of image paths, relative to ``root``/images or ``root``, and labels.

    Args:
        path: The CSV, UTF-8, separated by comma, semicolon or tab.
        root: The resolved task folder; rows that lead out of it are refused.

    Raises:
        TaskError: Not UTF-8 text, no usable columns, empty cells, an unknown split, or files that are missing.
    """
    try:
        text = path.read_text("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    at_path, at_label = _column(header, _PATH_COLUMNS), _column(header, _LABEL_COLUMNS)
    if at_path is None or at_label is None:
        raise TaskError(
            f"{path} needs a header line with a column of {'/'.join(_PATH_COLUMNS)} and one of "
            f"{'/'.join(_LABEL_COLUMNS)} (and may have {_SPLIT_COLUMN}), but got {shown(header) or 'an empty file'}"
        )
    at_split = header.index(_SPLIT_COLUMN) if _SPLIT_COLUMN in header else None
    cells = [(_cell(row, at_path), _cell(row, at_label), _cell(row, at_split)) for row in rows[1:]]
    _check_cells(cells, path=path)
    has_split = any(split for _, _, split in cells)
    return _entries(cells, root=root, has_split=has_split, path=path)


def _delimiter(text: str) -> str:
    """The separator that the header line uses most."""
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(",;\t", key=header.count)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place].strip() if place is not None and place < len(row) else ""


def _check_cells(cells: Sequence[tuple[str, str, str]], *, path: Path) -> None:
    incomplete = [str(number) for number, (file, label, _) in enumerate(cells, start=1) if not file or not label]
    if incomplete:
        raise TaskError(
            f"every row of {path} needs a path and a label, but got empty cells in rows {shown(incomplete)}"
        )
    splits = [split for _, _, split in cells]
    if any(splits):
        unknown = sorted({split for split in splits if split_part(split) is None})
        if unknown:
            raise TaskError(
                f"the column split of {path} must say train, val or test in every row, but got {shown(unknown)}"
            )


def _entries(cells: Sequence[tuple[str, str, str]], *, root: Path, has_split: bool, path: Path) -> LabelTable:
    entries: dict[Entry, None] = {}
    refused: list[BadFile] = []
    missing: list[str] = []
    for file, label, split in cells:
        found = _locate(file, root=root)
        if found is None:
            missing.append(file)
        elif not inside(found, root):
            refused.append(BadFile(path=file, reason="refused: the path leads out of the task folder"))
        else:
            part = split_part(split) if has_split else None
            entry = Entry(path=_relative(found, root), label=nfc(label), part=part)
            if entry in entries:
                refused.append(BadFile(path=entry.path, reason=f"named more than once in {path.name}", used=True))
            entries[entry] = None
    if missing:
        raise TaskError(
            f"{path} names files that are neither in {root / 'images'} nor in {root}, but got {shown(missing)}"
        )
    return LabelTable(entries=tuple(entries), refused=tuple(refused))


def _locate(file: str, *, root: Path) -> Path | None:
    """The named file, or a path out of the folder (which is refused without a look at what is there)."""
    tries = [file] if "\\" not in file else [file, file.replace("\\", "/")]
    candidates = [base / name for name in tries for base in (root / "images", root)]
    try:
        for candidate in candidates:
            if inside(candidate, root) and candidate.exists():
                return candidate
    except (OSError, ValueError):  # too long, or a null character
        return None
    outside = [candidate for candidate in candidates if not inside(candidate, root)]
    return outside[0] if outside else None


def _relative(path: Path, root: Path) -> str:
    """Path below ``root`` with "/", its "." and ".." taken out but links kept."""
    plain = Path(os.path.normpath(path))
    return (plain if plain.is_relative_to(root) else path.resolve()).relative_to(root).as_posix()
