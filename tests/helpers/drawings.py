"""Small drawn tasks: real image files of coloured shapes, different in every image."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")


def draw_shape(shape, rng, *, size=48):
    """One flat shape of random colour, place and size on a random pale ground."""
    ground = tuple(int(v) for v in rng.integers(180, 256, size=3))
    colour = tuple(int(v) for v in rng.integers(0, 140, size=3))
    image = Image.new("RGB", (size, size), ground)
    pen = ImageDraw.Draw(image)
    half = int(rng.integers(size // 6, size // 3))
    x, y = (int(v) for v in rng.integers(half, size - half, size=2))
    if shape == "circle":
        pen.ellipse((x - half, y - half, x + half, y + half), fill=colour)
    elif shape == "square":
        pen.rectangle((x - half, y - half, x + half, y + half), fill=colour)
    else:
        pen.polygon(((x, y - half), (x - half, y + half), (x + half, y + half)), fill=colour)
    return image


def draw_task(root: Path, *, train=10, test=6, shapes=SHAPES, seed=0):
    """Write ROOT/{train,test}/SHAPE/*.png and return ROOT."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for shape in shapes:
            folder = root / part / shape
            folder.mkdir(parents=True)
            for number in range(count):
                draw_shape(shape, rng).save(folder / f"{number:03d}.png")
    return root
