"""labels.csv: its images, and its rows of cells, which are written again with all that stands in them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.file_names import inside, nfc, shown
from vlmsel_auto.tasks.scan import ListedImage, Scan, scan_of_files, split_name

LABELS: Final = "labels.csv"
_PATH_COLUMNS: Final = ("path", "file", "image", "filename")
_LABEL_COLUMNS: Final = ("label", "class")
_COLUMNS: Final = (*_PATH_COLUMNS, *_LABEL_COLUMNS, "split", "group")
_MARK: Final = b"\xef\xbb\xbf"  # a byte order mark, which Excel writes and wants


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """A table of paths and labels, cells as they are written."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    at_path: int
    at_label: int
    at_split: int | None = None
    at_group: int | None = None
    delimiter: str = ","
    mark: bytes = b""  # what the file begins with

    def path(self, row: Sequence[str]) -> str:
        """Path in a row; blanks at its end stay where it begins with "./", as names of files may have them."""
        found = _cell(row, self.at_path)
        return found if found.startswith("./") else found.strip()

    def label(self, row: Sequence[str]) -> str:
        """Label in a row."""
        return nfc(_cell(row, self.at_label).strip())

    def split(self, row: Sequence[str]) -> str:
        """Split in a row; empty: none."""
        return _cell(row, self.at_split).strip()

    def group(self, row: Sequence[str]) -> str:
        """Group in a row; empty: none."""
        return nfc(_cell(row, self.at_group).strip())

    def with_label(self, row: Sequence[str], label: str) -> tuple[str, ...]:
        """The row with another label."""
        cells = [*row, *[""] * (len(self.header) - len(row))]
        cells[self.at_label] = label
        return tuple(cells)

    def new_row(self, path: str, label: str) -> tuple[str, ...]:
        """A row of these two; other columns are empty. The path begins with "./", so that it is no formula."""
        cells = [""] * len(self.header)
        cells[self.at_path] = f"./{path}"
        return self.with_label(cells, label)

    def encoded(self) -> bytes:
        """The file's bytes. Cells with a carriage return are quoted, which Python's csv leaves out.

        Raises:
            UnicodeEncodeError: a name that is no UTF-8.
        """
        stream = io.StringIO()
        plain = csv.writer(stream, lineterminator="\n", delimiter=self.delimiter)
        quoting = csv.writer(stream, lineterminator="\n", delimiter=self.delimiter, quoting=csv.QUOTE_ALL)
        for row in (self.header, *self.rows):
            (quoting if any("\r" in cell for cell in row) else plain).writerow(row)
        return self.mark + stream.getvalue().encode("utf-8")


EMPTY: Final = LabelTable(header=("path", "label"), rows=(), at_path=0, at_label=1)


def parse_table(data: bytes, *, path: Path) -> LabelTable:
    """The table in a file's bytes: UTF-8, separated by comma, semicolon or tab; empty lines are passed over.

    Raises:
        TaskError: not UTF-8 text, no usable columns, empty cells or an unknown split.
    """
    try:
        text = data.decode("utf-8-sig")
        delimiter = _delimiter(text)
        lines = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    header = [cell.strip().lower() for cell in lines[0]] if lines else []
    twice = sorted({name for name in header if name in _COLUMNS and header.count(name) > 1})
    if twice:
        raise TaskError(f"each column of {path} must be named once, but got {shown(twice)} more than once")
    at_path, at_label = _column(header, _PATH_COLUMNS), _column(header, _LABEL_COLUMNS)
    if at_path is None or at_label is None:
        raise TaskError(
            f"{path} needs a header line with a column of {'/'.join(_PATH_COLUMNS)} and one of "
            f"{'/'.join(_LABEL_COLUMNS)} (and may have split and group), but got {shown(header) or 'an empty file'}"
        )
    table = LabelTable(
        header=lines[0],
        rows=tuple(lines[1:]),
        at_path=at_path,
        at_label=at_label,
        at_split=_column(header, ("split",)),
        at_group=_column(header, ("group",)),
        delimiter=delimiter,
        mark=_MARK if data.startswith(_MARK) else b"",
    )
    _check_cells(table, path=path)
    return table


def _unreadable(path: Path, error: Exception) -> TaskError:
    return TaskError(f"labels.csv cannot be read as CSV in UTF-8 ({error}), but got {str(path)!r}")


def _delimiter(text: str) -> str:
    """The separator that the header line uses most."""
    header = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    return max(",;\t", key=header.count)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place] if place is not None and place < len(row) else ""


def _check_cells(table: LabelTable, *, path: Path) -> None:
    rows = enumerate(table.rows, start=1)
    incomplete = [str(number) for number, row in rows if not table.path(row).strip() or not table.label(row)]
    if incomplete:
        raise TaskError(
            f"every row of {path} needs a path and a label, but got empty cells in rows {shown(incomplete)}"
        )
    splits = {table.split(row) for row in table.rows}
    unknown = sorted(split for split in splits if split_name(split) is None)
    if unknown and splits != {""}:
        raise TaskError(
            f"the column split of {path} must say train, val or test in every row, but got {shown(unknown)}"
        )


def locate(file: str, *, root: Path) -> Path | None:
    """The file that a cell names, below ``root``/images or ``root``; where it begins with "./", below ``root`` alone.

    A path out of the folder is returned without a look at what is there: whoever asked refuses it. None: no such file.
    """
    bases = (root,) if file.startswith("./") else (root / "images", root)
    tries = dict.fromkeys([file, file.strip(), file.strip().replace("\\", "/")])
    candidates = [base / name for name in tries for base in bases]
    try:
        for candidate in candidates:
            if inside(candidate, root) and candidate.exists():
                return candidate
    except (OSError, ValueError):  # too long, or a null character
        return None
    return next((candidate for candidate in candidates if not inside(candidate, root)), None)


def below(path: Path, root: Path) -> str:
    """Path below ``root`` with "/", its "." and ".." taken out but links kept."""
    plain = Path(os.path.normpath(path))
    return (plain if plain.is_relative_to(root) else path.resolve()).relative_to(root).as_posix()


def scan_csv(root: Path, *, named: Sequence[str] | None = None) -> Scan:
    """List the rows of ``root``/labels.csv: image paths, relative to ``root``/images or ``root``, and labels.

    Labels must be among the classes ``named``, where there are any. Images that have no row are not listed.

    Raises:
        TaskError: as `read_rows`, or labels that are none of the classes.
    """
    entries, refused = read_rows(root)
    return scan_of_files(root, labels=(entry.label for entry in entries), entries=entries, stray=refused, named=named)


def read_rows(root: Path) -> tuple[list[ListedImage], list[BadFile]]:
    """The rows of ``root``/labels.csv, and those that are refused since they lead out of ``root`` (resolved).

    Raises:
        TaskError: it cannot be read, as `parse_table`, or files that are missing.
    """
    path = root / LABELS
    try:
        table = parse_table(path.read_bytes(), path=path)
    except OSError as error:
        raise _unreadable(path, error) from error
    entries: dict[ListedImage, None] = {}
    refused: list[BadFile] = []
    missing: list[str] = []
    for row in table.rows:
        file = table.path(row)
        found = locate(file, root=root)
        if found is None:
            missing.append(file)
        elif not inside(found, root):
            refused.append(BadFile(path=file, reason="refused: the path leads out of the task folder"))
        else:
            entry = ListedImage(
                path=below(found, root), label=table.label(row), split=split_name(table.split(row)),
                group=table.group(row),
            )  # fmt: skip
            if entry in entries:
                refused.append(BadFile(path=entry.path, reason=f"named more than once in {LABELS}", used=True))
            entries[entry] = None
    if missing:
        raise TaskError(
            f"{path} names files that are neither in {root / 'images'} nor in {root} (paths that begin with "
            f"./ must be there), but got {shown(missing)}"
        )
    return list(entries), refused
