"""Decoded images on disk: entries of the pixel store, and the files of rows in them.

An entry is a folder named by a digest of what its images are. It holds ``index.json`` (an identity for each source
image) and a sparse file of rows for each view that was asked for. The folder gets its name when the index is whole, so
that a kill leaves either an entry or scraps that the next run sweeps away; rows are added one by one. A damaged index
is made anew from the sources.

A file of rows begins with a byte a row: 1 where the row is there, else 0. It is set once the row has reached the disk,
so that a kill or a power cut leaves whole rows and missing ones. Rows that were never written take no space.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import digest, write_atomically
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.process import locked
from vlmsel_auto.records import ImageView, IntArray
from vlmsel_auto.tasks.copies import Identity, by_bytes, by_pixels

_VERSION: Final = 6  # of the entry's layout and of the decoding rules: a change makes old entries unused
_INDEX: Final = "index.json"
_PAGE: Final = 4096
_EAGER_BYTES: Final = 512 * 2**20  # of views that are made while images are decoded for their identity

Identify: TypeAlias = Literal["pixels", "bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreEntry:
    """An entry of the pixel store."""

    path: Path
    identities: tuple[Identity, ...]
    reused: bool  # True: an earlier run had made it

    def discard(self) -> None:
        """Remove an entry that this call made: a refused task leaves no images."""
        if not self.reused:
            shutil.rmtree(self.path, ignore_errors=True)


def open_entry(
    *,
    root: Path,
    key: str,
    count: int,
    sources: Callable[[], Iterable[Path | bytes]],
    identify: Identify,
    views: Sequence[ImageView],
    progress: Callable[[int], None],
    sink: Sink = discard,
) -> StoreEntry:
    """Return the entry of ``key``; where there is none, or its index is damaged, find out what each source is.

    Args:
        root: Folder of the store; made if missing.
        key: Digest of everything that determines the sources' content and order.
        count: Number of sources.
        sources: Gives them in order; called only when there is no sound entry yet.
        identify: By "pixels", which decodes every source, or by "bytes".
        views: Made in the same pass where sources are decoded, as far as they take 512 MiB; others when they are read.
        progress: Told the number of finished sources, in this thread.
        sink: Told that an index was damaged.

    Raises:
        WorkdirError: The store cannot be written.
    """
    entry = root / digest(_VERSION, key, identify)[:32]
    with _written_below(root), locked(root / ".lock", wait=math.inf):
        for scrap in root.glob(".part-*"):
            shutil.rmtree(scrap, ignore_errors=True)
        there = entry.is_dir()
        known = _read_index(entry, count, sink=sink) if there else None
        if known is not None:
            progress(count)
            return StoreEntry(path=entry, identities=known, reused=True)
        part = root / f".part-{secrets.token_hex(4)}"
        try:
            part.mkdir()
            if identify == "bytes":
                found = by_bytes(sources(), progress=progress)
            else:
                found = _decode_all(sources(), part=part, count=count, views=() if there else views, progress=progress)
            index = [[one.digest, one.note] for one in found]
            write_atomically((entry if there else part) / _INDEX, json.dumps(index).encode())
            if not there:
                part.rename(entry)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return StoreEntry(path=entry, identities=found, reused=False)


def _decode_all(
    sources: Iterable[Path | bytes],
    *,
    part: Path,
    count: int,
    views: Sequence[ImageView],
    progress: Callable[[int], None],
) -> tuple[Identity, ...]:
    """Identities by pixels, and the first of the views as far as there is room."""
    found: list[Identity] = []
    with ExitStack() as stack:
        writers: list[tuple[ImageView, RowWriter]] = []
        room = _EAGER_BYTES
        for view in dict.fromkeys(views):
            file = ViewFile(path=part / view_name(view), count=count, size=view.size)
            room -= count * file.row_bytes
            if room >= 0:
                writers.append((view, stack.enter_context(file.writer())))
        puts = [(view, writer.put) for view, writer in writers]
        for identity in stack.enter_context(closing(by_pixels(sources, writers=puts))):
            found.append(identity)
            progress(len(found))
        good = [row for row, identity in enumerate(found) if identity.digest]
        for _, writer in writers:
            writer.commit(good)
    return tuple(found)


def _read_index(entry: Path, count: int, *, sink: Sink) -> tuple[Identity, ...] | None:
    """The entry's index; None, and a notice, when it is lost or damaged."""
    path = entry / _INDEX
    try:
        found = tuple(Identity(digest=one, note=two) for one, two in json.loads(path.read_bytes()))
        if len(found) != count:
            raise ValueError(f"not {count} images")  # noqa: TRY301 - as what the others find
    except (OSError, ValueError, TypeError) as error:
        sink(Notice(text=f"{path} was damaged and is made again from the images ({error})", level="warning"))
        return None
    return found


@contextmanager
def _written_below(root: Path) -> Iterator[None]:
    """Tell an error of the file system in one line.

    Raises:
        WorkdirError: it is raised within.
    """
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"cannot write decoded images below {root}: free space, give rights or name another folder (--cache-dir, "
            f"of a search --workdir), but got {error}"
        ) from error


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
