"""Rows of one view on disk: uint8 (count, size, size, 3) in a sparse file, which says of each row whether it is there.

The file begins with a byte a row: 1 where the row is there, else 0. It is set once the row has reached the disk, so
that a kill or a power cut leaves whole rows and missing ones. Rows that were never written take no space.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.records import ImageView, IntArray

_PAGE: Final = 4096


def view_name(view: ImageView) -> str:
    """File name of a view: equal for equal geometries only."""
    fill = f"-{view.fill_color}" if view.resize_mode == "longest" else ""
    return f"{view.size}-{view.resize_mode}-{view.interpolation}{fill}.u8"


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewFile:
    """The file of one view; it need not exist. Holds no open file."""

    path: Path
    count: int  # rows
    size: int  # side of the view, pixels

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.size * self.size * 3

    @property
    def start(self) -> int:
        """Offset of the rows: behind a byte for each, at a page."""
        return -(-self.count // _PAGE) * _PAGE

    @property
    def _length(self) -> int:
        return self.start + self.count * self.row_bytes

    def has(self, rows: IntArray) -> NDArray[np.bool_]:
        """(n,) which of the rows are there; none of a file that is missing or of another length."""
        try:
            with self.path.open("rb", buffering=0) as stream:
                if os.fstat(stream.fileno()).st_size == self._length:
                    there = np.frombuffer(os.pread(stream.fileno(), self.count, 0), dtype=np.uint8)
                    return np.asarray(there[rows] != 0)
        except FileNotFoundError:
            pass
        return np.zeros(len(rows), dtype=bool)

    def read(self, rows: IntArray) -> NDArray[np.uint8]:
        """Rows that are there: (n, size, size, 3), in the order wanted."""
        shape = (self.count, self.size, self.size, 3)
        if not len(rows):
            return np.empty((0, *shape[1:]), dtype=np.uint8)
        pixels = np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.start, shape=shape)
        return np.array(pixels[rows])

    @contextmanager
    def writer(self) -> Iterator[RowWriter]:
        """Open for writing; a file of another length begins anew. One process at a time: the caller holds a lock."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)  # less the umask: a group may share it
        try:
            if os.fstat(handle).st_size != self._length:
                os.ftruncate(handle, 0)
                os.ftruncate(handle, self._length)
            yield RowWriter(handle=handle, file=self)
        finally:
            os.close(handle)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWriter:
    """Writes rows of an open `ViewFile`."""

    handle: int
    file: ViewFile

    def put(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Write one row, from any thread; it is there for readers after `commit`."""
        left, offset = np.ascontiguousarray(pixels).data.cast("B"), self.file.start + row * self.file.row_bytes
        while left:  # pwrite may write less than asked
            written = os.pwrite(self.handle, left, offset)
            left, offset = left[written:], offset + written

    def commit(self, rows: Iterable[int]) -> None:
        """Declare rows that were put as being there, once they have reached the disk."""
        os.fsync(self.handle)
        for row in rows:
            os.pwrite(self.handle, b"\1", row)
