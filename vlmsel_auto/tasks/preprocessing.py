"""An image in a view: the geometry of open_clip's preprocessing on Pillow images, and from a file to its pixels.

`read_view` is the one way from an encoded image to what a model sees, in a search and in `predict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.decode import Decoded, decode_image

_DRAFT_SIDES: Final = 2  # of the view, that a JPEG decoded at a part of its size keeps: the resize still filters


def read_view(source: Path | bytes, view: ImageView) -> tuple[NDArray[np.uint8], str]:
    """The pixels of an encoded image in a view, and what had to be converted.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where twice the view's size is left of the shorter side.

    Returns:
        uint8 (size, size, 3), RGB; and a note, empty for everyday files.

    Raises:
        ImageError: as `decode.decode_image`.
    """
    decoded = decode_image(source, least=_least(view))
    return render(decoded.image, view), decoded.note


def render_all(data: bytes, decoded: Decoded, views: Sequence[ImageView]) -> Iterator[NDArray[np.uint8]]:
    """What `read_view` gives of ``data`` in each view, where it was ``decoded`` at full size already."""
    for view in views:
        yield render(decoded.image, view) if decoded.same_at(_least(view)) else read_view(data, view)[0]


def _least(view: ImageView) -> int:
    return _DRAFT_SIDES * view.size


def render(image: Image.Image, view: ImageView) -> NDArray[np.uint8]:
    """Bring an RGB image into a view, exactly as open_clip's evaluation transform does before ``ToTensor``.

    The image is of mode RGB, as `decode.decode_image` returns it; the result is uint8 (size, size, 3), RGB.
    """
    resample = Image.Resampling.BILINEAR if view.interpolation == "bilinear" else Image.Resampling.BICUBIC
    match view.resize_mode:
        case "shortest":
            shaped = _shortest(image, size=view.size, resample=resample)
        case "squash":
            shaped = image.resize((view.size, view.size), resample)
        case "longest":
            shaped = _longest(image, view=view, resample=resample)
        case _:
            assert_never(view.resize_mode)
    return np.asarray(shaped)


def _shortest(image: Image.Image, *, size: int, resample: Image.Resampling) -> Image.Image:
    """Shorter side to ``size``, the longer rounded down, then the middle of it."""
    short = min(image.size)
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), resample).crop((left, top, left + size, top + size))


def _longest(image: Image.Image, *, view: ImageView, resample: Image.Resampling) -> Image.Image:
    """Longer side to the view's size, then padding on both sides, the odd pixel at the right or bottom."""
    ratio = max(image.size) / view.size
    width, height = (max(1, round(side / ratio)) for side in image.size)
    padded = Image.new("RGB", (view.size, view.size), (view.fill_color,) * 3)
    padded.paste(image.resize((width, height), resample), ((view.size - width) // 2, (view.size - height) // 2))
    return padded
