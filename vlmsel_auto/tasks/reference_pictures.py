"""Pictures of anything: drawn shapes, patterns, scikit-learn's digits. Texts near to these are near to all images."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PICTURES: Final = 32
_KINDS: Final = 4  # two of shapes, one of patterns, one of digits
_INK: Final = 16.0  # darkest value of the digits' scans


def reference_pictures(size: int) -> NDArray[np.uint8]:
    """The pictures (32, size, size, 3), RGB; the same for one size on every machine."""
    from sklearn.datasets import load_digits  # takes half a second

    rng, scans = np.random.default_rng(0), load_digits().images
    made = []
    for number in range(PICTURES):
        ground = _colour(rng)
        match number % _KINDS:
            case 2:
                picture = _pattern(size, rng)
            case 3:
                picture = _digit(scans[rng.integers(len(scans))], size, dark=bool(rng.integers(2)))
            case _:
                picture = _shapes(size, ground, rng)
        made.append(np.asarray(picture.convert("RGB"), dtype=np.uint8))
    return np.stack(made)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(256, size=3).tolist()
    return red, green, blue


def _shapes(size: int, ground: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """One to four flat ellipses, rectangles and triangles."""
    picture = Image.new("RGB", (size, size), ground)
    pen = ImageDraw.Draw(picture)
    for _ in range(1 + int(rng.integers(4))):
        x, y = (0.7 * size * rng.random(2)).tolist()
        width, height = (size * (0.15 + 0.45 * rng.random(2))).tolist()
        box, colour = (x, y, x + width, y + height), _colour(rng)
        match int(rng.integers(3)):
            case 0:
                pen.ellipse(box, fill=colour)
            case 1:
                pen.rectangle(box, fill=colour)
            case _:
                pen.polygon([(x, y + height), (x + width / 2, y), (x + width, y + height)], fill=colour)
    return picture


def _pattern(size: int, rng: np.random.Generator) -> Image.Image:
    """Random colours on a grid of 2 to 32 cells a side, as blocks or blurred."""
    cells = int(2 ** rng.integers(1, 6))
    how = Image.Resampling.NEAREST if rng.integers(2) else Image.Resampling.BICUBIC
    return Image.fromarray(rng.integers(256, size=(cells, cells, 3), dtype=np.uint8)).resize((size, size), how)


def _digit(scan: NDArray[np.float64], size: int, *, dark: bool) -> Image.Image:
    grey = np.rint(255.0 * (1.0 - scan / _INK if dark else scan / _INK)).astype(np.uint8)
    return Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
