"""Pictures of noise, different for each seed, and files of them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(width: int = 20, height: int = 12, *, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def broken_later(data: bytes) -> bytes:
    """A file whose header is sound and whose pixels end too soon."""
    return data[: len(data) - len(data) // 4]


def write_pictures(root: Path, *folders: str, count: int, first: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """``count`` different JPEGs in each folder; no two folders share one."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            data = encoded(picture(*size, seed=first + 1_000 * number + k), "JPEG")
            (root / folder / f"{k:03d}.jpg").write_bytes(data)
    return root
