"""Decode one image file safely into 8-bit RGB.

The whole file is decoded (``load()``; ``verify()`` would pass a half file). Colours follow fixed rules: transparency is
laid on white, 16-bit values are divided by 257, EXIF orientation is applied, the first frame stands for an animation.
What cannot or must not be decoded raises `ImageError` with a reason fit for a report.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

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
_REASON_LENGTH = 160  # characters of Pillow's own message that a report shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A decoded image."""

    image: Image.Image  # mode RGB, upright
    note: str = ""  # what had to be converted and is worth telling; empty for everyday files


def quiet_pillow() -> AbstractContextManager[object]:
    """Silence Pillow's warnings about odd files while many are decoded; every one is judged by its pixels.

    Set once around a pool of threads: `warnings.catch_warnings` is not thread-safe.
    """
    return warnings.catch_warnings(action="ignore")


def decode_image(source: Path | bytes) -> Decoded:
    """Decode a file, or the bytes of one, whatever its name ends in, to upright 8-bit RGB.

    Raises:
        ImageError: Not a regular file, unreadable, empty, truncated, of no known format, a decompression bomb, or a
            strip of an aspect beyond `MAX_ASPECT`.
    """
    try:
        with Image.open(_open(source), formats=_formats()) as opened:
            _check_size(opened.size)
            width, height = opened.size
            with _LARGE_LOCK if width * height >= _LARGE_PIXELS else nullcontext():
                return _convert(opened)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image file of a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"refused as a decompression bomb: {error}") from error
    except PermissionError as error:
        raise ImageError("cannot be read: permission denied") from error
    except MemoryError as error:
        raise ImageError("does not fit into memory when decoded") from error
    except Exception as error:  # Pillow's plugins raise almost anything on a damaged file
        raise ImageError(f"damaged image: {_one_line(error)}") from error


def _open(source: Path | bytes) -> io.BytesIO:
    """All encoded bytes at once: no file handle outlives the call, and a pipe or device is never opened."""
    if isinstance(source, bytes):
        data = source
    else:
        status = os.stat(source)  # noqa: PTH116 - one call for type and size
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size > 4 * MAX_PIXELS:  # no image that may be decoded needs more
            raise ImageError(f"too large for an image file, got {status.st_size:,} bytes")
        data = source.read_bytes()
    if not data:
        raise ImageError("empty file")
    return io.BytesIO(data)


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


def _convert(opened: Image.Image) -> Decoded:
    opened.load()
    mode = opened.mode
    image = _upright(_to_rgb(opened), opened)
    notes = ["animated or multi-page image, first frame used"] if _is_animated(opened) else []
    if mode in _WHITE:
        notes.append(f"{'16-bit' if mode.startswith('I;16') else 'deep'} image, scaled to 8 bits")
    elif mode == "CMYK":
        notes.append("CMYK image, converted to RGB")
    return Decoded(image=image, note="; ".join(notes))


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
