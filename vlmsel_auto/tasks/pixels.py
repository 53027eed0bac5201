"""Views of decoded images: the geometry of open_clip's preprocessing on Pillow images, and uint8 arrays on disk.

A store entry is a folder named by a digest of what it was decoded from. It holds ``index.json`` (one line per source
image: digest of the full-size pixels, or why there are none) and one file of raw uint8 rows per view. Files get their
final name when they are whole, so that a kill leaves either a usable entry or scraps that the next run sweeps away.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms import functional as geometry

from vlmsel_auto.cache import digest, write_atomically
from vlmsel_auto.errors import ImageError, WorkdirError
from vlmsel_auto.process import locked
from vlmsel_auto.records import ImageView, IntArray
from vlmsel_auto.tasks.decode import decode_image, quiet_pillow

_VERSION = 1  # of the entry's layout and of the decoding rules: a change makes old entries unused
_WORKERS = 16


def render(image: Image.Image, view: ImageView) -> NDArray[np.uint8]:
    """Bring an RGB image into a view, exactly as open_clip's evaluation transform does before ``ToTensor``.

    The image is of mode RGB, as `decode.decode_image` returns it; the result is uint8 (size, size, 3), RGB.
    """
    mode = InterpolationMode.BILINEAR if view.interpolation == "bilinear" else InterpolationMode.BICUBIC
    match view.resize_mode:
        case "shortest":
            shaped = CenterCrop(view.size)(Resize(view.size, interpolation=mode)(image))
        case "squash":
            shaped = Resize((view.size, view.size), interpolation=mode)(image)
        case "longest":
            shaped = _longest(image, view=view, mode=mode)
        case _:
            assert_never(view.resize_mode)
    return np.asarray(shaped)


def _longest(image: Image.Image, *, view: ImageView, mode: InterpolationMode) -> Image.Image:
    """Longer side to the view's size, then padding on both sides, the odd pixel at the right or bottom."""
    ratio = max(image.height / view.size, image.width / view.size)
    height, width = max(1, round(image.height / ratio)), max(1, round(image.width / ratio))
    small = geometry.resize(image, [height, width], interpolation=mode)
    left, top = (view.size - width) // 2, (view.size - height) // 2
    padding = [left, top, view.size - width - left, view.size - height - top]
    padded: Image.Image = geometry.pad(small, padding, fill=view.fill_color)
    return padded


def pixel_digest(image: Image.Image) -> str:
    """Hex SHA-256 of size and pixels of an RGB image: equal for two files that show exactly the same."""
    state = sha256(f"{image.width}x{image.height}:".encode())
    state.update(image.tobytes())
    return state.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRow:
    """What became of one source image."""

    digest: str  # of the full-size pixels; empty when the file was left out
    note: str  # why it was left out, or what had to be converted; empty for everyday files


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelStore:
    """Implements `records.PixelSource` on a store entry. Holds no open file: cheap to pickle and to share."""

    entry: Path  # folder of the store entry
    n_rows: int  # of each view's file
    rows: IntArray  # (N,) row of each image of the task

    def read(self, view: ImageView, indices: IntArray) -> NDArray[np.uint8]:
        """Return the images ``indices`` (positions in ``Task.paths``) in ``view``: uint8 (n, size, size, 3), RGB.

        Raises:
            KeyError: The task was not loaded with this view.
        """
        path = self.entry / _view_name(view)
        if not path.is_file():
            raise KeyError(f"this task was loaded without the view {view}; pass it to load_task(views=...)")
        pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(self.n_rows, view.size, view.size, 3))
        return np.array(pixels[self.rows[np.asarray(indices, dtype=np.int64)]])


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreEntry:
    """A filled entry of the pixel store."""

    path: Path
    decoded: tuple[DecodedRow, ...]
    reused: bool  # True: nothing had to be decoded
    created: tuple[Path, ...]  # files and folders that this call made, deepest first

    def discard(self) -> None:
        """Remove what this call wrote, so that a refused task leaves no trace."""
        for path in self.created:
            if path == self.path:
                shutil.rmtree(path, ignore_errors=True)
            elif not path.is_dir():
                path.unlink(missing_ok=True)
            elif not any(path.iterdir()):
                path.rmdir()


def open_entry(
    *,
    root: Path,
    key: str,
    count: int,
    sources: Callable[[], Iterable[Path | bytes]],
    views: Sequence[ImageView],
    progress: Callable[[int], None],
) -> StoreEntry:
    """Return the entry of ``key`` with every wanted view, decoding each source once if anything is missing.

    Args:
        root: Folder of the store; made if missing.
        key: Digest of everything that determines the sources' content and order.
        count: Number of sources.
        sources: Gives them in order; called only when something must be decoded.
        views: Wanted views.
        progress: Told the number of finished images now and then, in this thread.

    Raises:
        WorkdirError: The store cannot be written.
    """
    entry = root / digest(_VERSION, key)[:32]
    lock = root / ".lock"
    new_lock = [] if lock.exists() else [lock]
    with _no_trace_of_failure(root, lock=lock) as made, locked(lock, wait=math.inf):
        for scrap in root.glob(".part-*"):
            shutil.rmtree(scrap, ignore_errors=True)
        known = _read_index(entry, count)
        wanted = [view for view in dict.fromkeys(views) if known is None or not _is_whole(entry, view, count)]
        if known is not None and not wanted:
            progress(count)
            return StoreEntry(path=entry, decoded=known, reused=True, created=())
        fresh = not entry.exists()
        decoded = _fill(root=root, entry=entry, count=count, sources=sources(), views=wanted, progress=progress)
    created = [entry] if fresh else [entry / _view_name(view) for view in wanted]
    return StoreEntry(path=entry, decoded=decoded, reused=False, created=(*created, *new_lock, *made))


def _fill(
    *,
    root: Path,
    entry: Path,
    count: int,
    sources: Iterable[Path | bytes],
    views: Sequence[ImageView],
    progress: Callable[[int], None],
) -> tuple[DecodedRow, ...]:
    """Decode into a folder of parts, then move the whole files to their names, the index last."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=root))
    files: list[int] = []
    try:
        for view in views:
            handle = os.open(part / _view_name(view), os.O_RDWR | os.O_CREAT, 0o644)
            files.append(handle)
            os.ftruncate(handle, count * view.size * view.size * 3)
        decoded = tuple(_decode_all(sources, views=views, files=files, progress=progress))
        for handle in files:
            os.fsync(handle)
        entry.mkdir(exist_ok=True)
        for view in views:
            (part / _view_name(view)).replace(entry / _view_name(view))
        write_atomically(entry / "index.json", json.dumps([[row.digest, row.note] for row in decoded]).encode())
        return decoded
    finally:
        for handle in files:
            os.close(handle)
        shutil.rmtree(part, ignore_errors=True)


def _decode_all(
    sources: Iterable[Path | bytes],
    *,
    views: Sequence[ImageView],
    files: Sequence[int],
    progress: Callable[[int], None],
) -> Iterator[DecodedRow]:
    """Decode in threads (Pillow frees the interpreter lock), a bounded number ahead of the one being waited for."""
    workers = min(_WORKERS, os.cpu_count() or 1)
    done = 0
    with quiet_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        started = (
            pool.submit(_decode_one, source, row=row, views=views, files=files) for row, source in enumerate(sources)
        )
        try:
            waiting = deque(islice(started, 8 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(islice(started, 1))
                done += 1
                progress(done)
        except BaseException:  # also Ctrl+C: do not decode the rest first
            pool.shutdown(cancel_futures=True)
            raise


def _decode_one(source: Path | bytes, *, row: int, views: Sequence[ImageView], files: Sequence[int]) -> DecodedRow:
    try:
        decoded = decode_image(source)
    except ImageError as error:
        return DecodedRow(digest="", note=str(error))
    for view, handle in zip(views, files, strict=True):
        pixels = np.ascontiguousarray(render(decoded.image, view)).tobytes()
        offset = row * len(pixels)
        while pixels:  # pwrite may write less than asked
            written = os.pwrite(handle, pixels, offset)
            pixels, offset = pixels[written:], offset + written
    return DecodedRow(digest=pixel_digest(decoded.image), note=decoded.note)


def _view_name(view: ImageView) -> str:
    fill = f"-{view.fill_color}" if view.resize_mode == "longest" else ""
    return f"{view.size}-{view.resize_mode}-{view.interpolation}{fill}.u8"


def _is_whole(entry: Path, view: ImageView, count: int) -> bool:
    try:
        return (entry / _view_name(view)).stat().st_size == count * view.size * view.size * 3
    except OSError:
        return False


def _read_index(entry: Path, count: int) -> tuple[DecodedRow, ...] | None:
    """The entry's index, or None when it is absent, damaged or of another length."""
    try:
        lines = json.loads((entry / "index.json").read_text("utf-8"))
        rows = tuple(DecodedRow(digest=str(one), note=str(two)) for one, two in lines)
    except (OSError, ValueError, TypeError):
        return None
    return rows if len(rows) == count else None


@contextmanager
def _no_trace_of_failure(root: Path, *, lock: Path) -> Iterator[tuple[Path, ...]]:
    """Yield ``root`` and its parents that do not exist yet, deepest first; after an error they are removed again.

    Raises:
        WorkdirError: for an error of the file system.
    """
    made = tuple(folder for folder in (root, *root.parents) if not folder.exists())
    try:
        yield made
    except BaseException as error:  # also on Ctrl+C
        with suppress(OSError):  # what cannot be removed must not hide the error that led here
            if root in made:
                lock.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise WorkdirError(
            f"cannot write decoded images below {root}: free space and permissions? got {error}"
        ) from error
