"""Decode one image file safely into 8-bit RGB.

The whole file is decoded (``load()``; ``verify()`` would pass a half file), a large JPEG at a part of its size where a
small view is all that is wanted. Colours follow fixed rules: transparency is laid on white, 16-bit values are divided
by 257, EXIF orientation is applied, the first frame stands for an animation. What cannot or must not be decoded raises
`ImageError` with a reason fit for a report.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from vlmsel_auto.errors import ImageError

MAX_PIXELS = 89_478_485  # Pillow's own limit of a decompression bomb: 256 MiB of RGB
MAX_ASPECT = 200  # a longer strip would grow without bound when its short side is scaled to the view
_LARGE_PIXELS = 24_000_000  # from here on one image at a time, so that memory stays bounded
_LARGE_LOCK = threading.Lock()
# Raster formats of photographs and drawings. Left out on purpose: EPS (runs Ghostscript), formats without a signature.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_JPEG = frozenset({"JPEG", "MPO"})  # formats that decode at a part of their size
_STILL_SEQUENCES = frozenset({"MPO"})  # cameras keep previews and gain maps as further "frames"
_WHITE = {"I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I;16N": 65535.0, "I": 65535.0, "F": 1.0}  # deep modes
_ORIENTATIONS = {  # EXIF 2.32, tag 0x0112: what brings the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PARTS = (8, 4, 2)  # a JPEG can be decoded at one of these parts of its size
_FOREIGN = {  # what people take for images and Pillow does not read: how such files begin
    "HEIC photo": (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"),
    "SVG drawing": (b"<svg", b"<?xml"),
}
_HEAD = 512  # bytes in which a file says what it is
_WORKERS = 16
_AHEAD = 8  # files a worker that may wait for the one whose turn it is
_REASON_LENGTH = 160  # characters of Pillow's own message that a report shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A decoded image."""

    image: Image.Image  # mode RGB, upright
    note: str = ""  # what had to be converted and is worth telling; empty for everyday files
    scalable: bool = False  # True: a JPEG, which can be decoded at 1/2, 1/4 or 1/8 of its size

    def same_at(self, least: int) -> bool:
        """Whether `decode_image` with this ``least`` gives the same as this, which was decoded at full size."""
        return not self.scalable or _part(self.image.size, least) == 1


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files while many are decoded; every one is judged by its pixels.

    Set once around a pool of threads: `warnings.catch_warnings` is not thread-safe.
    """
    with warnings.catch_warnings(action="ignore"):
        yield


T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """Results of ``work`` in the order of ``items``: in threads (Pillow frees the interpreter lock), few ahead.

    Of items and results at most 8 a thread are held. Close it if not all results are taken: that ends the threads.
    """
    workers = min(_WORKERS, os.cpu_count() or 1)
    with quiet_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        started = (pool.submit(work, item) for item in items)
        try:
            waiting = deque(islice(started, _AHEAD * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(islice(started, 1))
        except BaseException:  # also Ctrl+C: do not decode the rest first
            pool.shutdown(cancel_futures=True)
            raise


def decode_image(source: Path | bytes, *, least: int | None = None) -> Decoded:
    """Decode a file, or the bytes of one, whatever its name ends in, to upright 8-bit RGB.

    With ``least`` a JPEG is decoded at 1/8, 1/4 or 1/2 of its size (libjpeg scales in the frequency domain, Pillow's
    draft mode): the first of these that leaves the shorter side ``least`` pixels or more and both sides whole, so that
    nothing is shifted; the sizes of cameras are multiples of 4 or 8. Where none does, it is decoded at full size.

    Raises:
        ImageError: Not a regular file, unreadable, empty, truncated, of no known format, a decompression bomb, or a
            strip of an aspect beyond `MAX_ASPECT`.
    """
    with _image_errors(), _opened(read_encoded(source)) as opened:
        scalable = opened.format in _JPEG
        if scalable and least is not None:
            part = _part(opened.size, least)
            opened.draft(None, (opened.width // part, opened.height // part))
        width, height = opened.size
        with _LARGE_LOCK if width * height >= _LARGE_PIXELS else nullcontext():
            return _convert(opened, scalable=scalable)


def _part(size: tuple[int, int], least: int) -> int:
    """One over the part of its size at which a JPEG is decoded."""
    fitting = (part for part in _PARTS if min(size) >= part * least and not any(side % part for side in size))
    return next(fitting, 1)


def check_header(source: Path | bytes) -> None:
    """Refuse what `decode_image` would refuse by the first bytes of a file, without decoding it.

    Raises:
        ImageError: As there, but for files that are damaged further on.
    """
    with _image_errors(), _opened(source):
        pass


@contextmanager
def _image_errors() -> Iterator[None]:
    """Every error becomes an `ImageError` with a reason."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"refused as a decompression bomb: {error}") from error
    except PermissionError as error:
        raise ImageError("cannot be read: permission denied") from error
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except MemoryError as error:
        raise ImageError("does not fit into memory when decoded") from error
    except Exception as error:  # Pillow's plugins raise almost anything on a damaged file
        raise ImageError(f"damaged image: {_one_line(error)}") from error


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """The image, its header read and its size checked; a pipe or device is never opened."""
    check_file(source)
    with (
        nullcontext(io.BytesIO(source)) if isinstance(source, bytes) else source.open("rb") as stream,
        _identified(stream) as opened,
    ):
        _check_size(opened.size)
        yield opened


def _identified(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream, formats=_formats())
    except UnidentifiedImageError as error:
        stream.seek(0)
        head = stream.read(_HEAD)
        kind = next((kind for kind, signs in _FOREIGN.items() if any(sign in head for sign in signs)), None)
        reason = "not an image file of a known format"
        raise ImageError(f"{kind}, not read: convert it to JPEG or PNG" if kind else reason) from error


def read_encoded(source: Path | bytes) -> bytes:
    """All bytes of a file at once: no file handle outlives a decoder.

    Raises:
        ImageError: Unreadable, or as `check_file`.
    """
    with _image_errors():
        check_file(source)
        return source if isinstance(source, bytes) else source.read_bytes()


def check_file(source: Path | bytes) -> int:
    """Size in bytes of a file, or of the bytes of one, that may hold an image.

    Raises:
        ImageError: Not a regular file, empty, or larger than any image that may be decoded.
    """
    if isinstance(source, bytes):
        size = len(source)
    else:
        try:
            status = os.stat(source)  # noqa: PTH116 - one call for type and size
        except OSError as error:
            if isinstance(error, (FileNotFoundError, PermissionError)):
                raise
            raise ImageError(f"cannot be reached: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder that could not be listed")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        size = status.st_size
        if size > 4 * MAX_PIXELS:  # no image that may be decoded needs more
            raise ImageError(f"too large for an image file, got {size:,} bytes")
    if not size:
        raise ImageError("empty file")
    return size


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as those of images do; what it is, its bytes tell."""
    suffix = Path(name).suffix.lower()
    return Image.registered_extensions().get(suffix) in _FORMATS


def _formats() -> tuple[str, ...]:
    """The wanted formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels, got {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"refused as a decompression bomb: more than {MAX_PIXELS / 1e6:.0f} million pixels, got {width} x {height}"
        )
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"side ratio beyond {MAX_ASPECT} to 1, got {width} x {height}")


def _convert(opened: Image.Image, *, scalable: bool) -> Decoded:
    opened.load()
    mode = opened.mode
    image = upright_rgb(opened)
    notes = ["animated or multi-page image, first frame used"] if _is_animated(opened) else []
    if mode in _WHITE:
        notes.append(f"{'16-bit' if mode.startswith('I;16') else 'deep'} image, scaled to 8 bits")
    elif mode == "CMYK":
        notes.append("CMYK image, converted to RGB")
    return Decoded(image=image, note="; ".join(notes), scalable=scalable)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, upright: what a file of it gives, and an image in memory too."""
    return _upright(_to_rgb(image), image)


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of ``opened``; a damaged EXIF block counts as none."""
    try:
        method = _ORIENTATIONS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - EXIF of real cameras is broken in every way, the pixels are not
        method = None
    return image if method is None else image.transpose(method)


def _is_animated(opened: Image.Image) -> bool:
    if opened.format in _STILL_SEQUENCES:
        return False
    try:
        return bool(getattr(opened, "is_animated", False))
    except Exception:  # noqa: BLE001 - a damaged second frame does not spoil the first
        return True


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in _WHITE:
        return Image.fromarray(_scale(np.asarray(image, dtype=np.float32), full=_WHITE[mode])).convert("RGB")
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        upper = image.convert("RGBA")
        lower = Image.new("RGBA", upper.size, (255, 255, 255, 255))
        return Image.alpha_composite(lower, upper).convert("RGB")
    return image.copy() if mode == "RGB" else image.convert("RGB")


def _scale(values: NDArray[np.float32], *, full: float) -> NDArray[np.uint8]:
    """Map 0..full to 0..255; values outside that range are stretched from their own minimum and maximum."""
    finite = np.nan_to_num(values, nan=0.0, posinf=full, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low < 0 or high > full:
        finite, full = finite - low, (high - low) or 1.0
    scaled: NDArray[np.uint8] = np.rint(finite * (255.0 / full)).clip(0, 255).astype(np.uint8)
    return scaled


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + "..."
