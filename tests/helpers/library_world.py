"""Small libraries: two members of the mini zoo, cells of few images."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlmsel_auto.measuring import build as library_build
from vlmsel_auto.measuring.build import Workplace
from vlmsel_auto.measuring.cells import CellSettings
from vlmsel_auto.models import candidates

MEMBERS = ("ConvNeXt-Mi-64.all-m", "EffNet-Mi-64.all-m")
SETTINGS = CellSettings(images=4, signal_images=6, points=5, shots=(1, 2), draws=2)


def build(root: Path, *, tasks, members=MEMBERS, out="lib.safetensors", jobs=1, **kwargs):
    """Build ROOT/``out`` on some tasks, cells in ROOT/cache."""
    return library_build.build(
        tasks=tasks,
        candidates=candidates.resolve(members),
        out=root / out,
        settings=SETTINGS,
        place=Workplace(cache=root / "cache", jobs=jobs),
        **kwargs,
    )


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}


def draw(folder: Path, *, shapes: tuple[str, ...], seed: int, n: int = 6) -> Path:
    """A task: coloured shapes, one class a shape, given splits."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", n), ("val", 2), ("test", 4)):
        for name in shapes:
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (40, 40), "white")
                x, y, r = *(int(v) for v in rng.integers(4, 16, 2)), int(rng.integers(12, 20))
                colour = tuple(COLOURS.values())[int(rng.integers(3))]
                getattr(ImageDraw.Draw(image), "ellipse" if name == "circle" else "rectangle")(
                    (x, y, x + r, y + (r if name != "bar" else 4)), fill=colour
                )
                image.save(place / f"{i}.png")
    return folder


def make_world(root: Path):
    """Two drawn tasks and the library built on them, with its cache."""
    tasks = (
        draw(root / "tasks" / "one", shapes=("circle", "square"), seed=1),
        draw(root / "tasks" / "two", shapes=("bar", "circle", "square"), seed=2),
    )
    seen = []
    made = build(root, tasks=tasks, sink=seen.append)
    return root, tasks, made, seen
