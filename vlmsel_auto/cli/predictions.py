"""Predictions as CSV or Parquet, row by row: memory holds a few rows, however many images there are."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from vlmsel_auto.cache import atomic_stream
from vlmsel_auto.cli.support import reserved_stdout
from vlmsel_auto.csvcells import path_cell, text_cell
from vlmsel_auto.errors import InputError, MissingDependency

if TYPE_CHECKING:
    from vlmsel_auto.models.prediction import Prediction  # imports torch

STDOUT: Final = Path("-")
_CSV, _PARQUET = ".csv", ".parquet"
_GROUP: Final = 4096  # rows of a group in a Parquet file

Cell = str | float | None


def check_output(output: Path) -> None:
    """Refuse a file of another kind before any model is loaded.

    Raises:
        InputError: neither ``-`` nor FILE.csv nor FILE.parquet.
        MissingDependency: Parquet without pyarrow.
    """
    if output != STDOUT and output.suffix not in {_CSV, _PARQUET}:
        raise InputError(f"predictions are written to FILE.csv, FILE.parquet or -, but got {str(output)!r}")
    if output.suffix == _PARQUET:
        _pyarrow()


def columns(classes: Sequence[str], *, top: int | None) -> list[str]:
    """Names of the columns: with ``top`` those of the most probable classes, else one for each class."""
    if top is None:
        more = [f"p_{name}" for name in classes]
    else:
        more = [f"{kind}_{k}" for k in range(2, min(top, len(classes)) + 1) for kind in ("predicted", "probability")]
    return ["path", "predicted", "probability", "note", *more]


def row(found: Prediction, *, top: int | None) -> list[Cell]:
    """The cells of a prediction; None where there is no usable image, and for a class that is not named."""
    path = str(found.path).encode(errors="replace").decode()  # file names need not be UTF-8
    if found.probabilities is None:
        return [path, None, None, found.note, *[None] * (len(columns(found.classes, top=top)) - 4)]
    note = "; ".join(filter(None, (found.note, found.doubt)))
    if found.label is None and top is not None:
        return [path, None, None, note, *[None] * (len(columns(found.classes, top=top)) - 4)]
    order = (-found.probabilities).argsort(kind="stable")
    best: list[Cell] = [
        cell for k in order[:top].tolist() for cell in (found.classes[k], float(found.probabilities[k]))
    ]
    more = found.probabilities.tolist() if top is None else best[2:]
    return [path, found.label, best[1], note, *more]


def written(found: Iterable[Prediction], output: Path, *, top: int | None) -> Generator[Prediction]:
    """Write predictions while they are made, and pass them on. A file is whole or not there.

    Args:
        found: predictions, at least one.
        output: ``-`` for CSV on standard output, FILE.csv or FILE.parquet.
        top: write the most probable classes only; None: the probability of every class.

    Raises:
        InputError: the file cannot be written.
    """
    with _opened(output) as stream:
        table: _Table | None = None
        for each in found:
            if table is None:
                kind = _Parquet if output.suffix == _PARQUET else _Csv
                table = kind(stream, columns(each.classes, top=top))
            table.add(row(each, top=top))
            yield each
        if table is not None:
            table.end()


@contextmanager
def _opened(output: Path) -> Iterator[BinaryIO]:
    if output == STDOUT:
        with reserved_stdout() as stream:
            yield stream
        return
    try:
        with atomic_stream(output) as stream:
            yield stream
    except OSError as error:
        raise InputError(
            f"the predictions cannot be written here ({error.strerror}), but got {str(output)!r}"
        ) from error


class _Table(Protocol):
    def add(self, cells: Sequence[Cell]) -> None:
        """Append a row."""

    def end(self) -> None:
        """Write what is still held."""


class _Csv(_Table):
    def __init__(self, stream: BinaryIO, names: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow([text_cell(name) for name in names])

    def add(self, cells: Sequence[Cell]) -> None:
        self._writer.writerow([path_cell(str(cells[0])), *(_cell(each) for each in cells[1:])])

    def end(self) -> None:
        self._text.detach()  # the stream is somebody else's to close


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else text_cell(value)


class _Parquet(_Table):
    def __init__(self, stream: BinaryIO, names: Sequence[str]) -> None:
        self._arrow, parquet = _pyarrow()
        texts = ("path", "note", "predicted")
        kinds = [self._arrow.string() if name.startswith(texts) else self._arrow.float64() for name in names]
        self._schema = self._arrow.schema(list(zip(names, kinds, strict=True)))
        self._writer = parquet.ParquetWriter(stream, self._schema)
        self._rows: list[Sequence[Cell]] = []

    def add(self, cells: Sequence[Cell]) -> None:
        self._rows.append(cells)
        if len(self._rows) == _GROUP:
            self._write()

    def end(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._rows:
            arrays = [list(column) for column in zip(*self._rows, strict=True)]
            self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
            self._rows.clear()


def _pyarrow() -> tuple[Any, Any]:
    """Arrow and its Parquet; they ship no types."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("Parquet needs pyarrow; install it with: pip install 'vlmsel-auto[parquet]'") from error
    return pa, parquet
