"""QUESTION: How far is validation above test where frames of one video stand on both sides of a split, and with groups?

PAGE: docs/results/reliability.md
RESULT: benchmarks/results/videos.json

    python -m benchmarks.search.videos --seeds 8 --write benchmarks/results/videos.json

A video is twelve frames of a digit that moves a little over a background: the class is the digit; colours, texture,
clutter, place, size, weight and angle are the video's. A folder has eight videos of each of six classes to learn from,
and as a test split a frame of each of forty others. It is searched without groups and with ``--groups``, by three
candidates that know digits (near) and by three that do not (far), a head each. Figures are of the best model, in
points; the error is of the mean gap over folders. The last column counts searches that warn of near copies.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vlmsel_auto
from benchmarks.common import command_line, print_head, print_row, standard_error, write_json
from vlmsel_auto.events import Event, Notice
from vlmsel_auto.records import Budget

CLASSES: Final = ("0", "2", "3", "4", "6", "7")
RULE: Final = r"(video\d+)_"
CANDIDATES: Final = {
    "near": ("ViT-Mi-8-64.all-l", "ViT-Mi-8-64.all-noisy", "RN-Mi-64.all-m"),
    "far": ("ViT-Mi-8-64.photo-m", "ConvNeXt-Mi-64.synth-m", "RN-Mi-64.photo-m"),
}
_SIDE: Final = 64
_VIDEOS, _FRAMES = 8, 12  # of a class, and of a video, to learn from
_TEST_VIDEOS, _TEST_FRAMES = 40, 1
_SMOOTH: Final = 2  # drawn so much larger


def video(name: str, *, frames: int, rng: np.random.Generator) -> list[Image.Image]:
    """Frames of one video."""
    side = _SIDE * _SMOOTH
    dark, light = rng.uniform(0, 40, 3), tuple(rng.integers(200, 256, 3).tolist())
    waves = rng.uniform(-0.25, 0.25, (4, 2)), rng.uniform(0, 2 * math.pi, 4), rng.uniform(5, 20)
    clutter = [(rng.uniform(0, 1, 2), rng.uniform(0.02, 0.06), tuple(rng.integers(0, 256, 3).tolist()))
               for _ in range(rng.integers(0, 3))]  # fmt: skip
    (px, py), (vx, vy) = rng.uniform(0.4, 0.6, 2), rng.normal(0, 0.006, 2)
    size, width, angle, spin = rng.uniform(0.5, 0.8), int(rng.integers(0, 4)), rng.normal(0, 12), rng.normal(0, 1)
    found = []
    for k in range(frames):
        y, x = np.mgrid[0:side, 0:side] / _SMOOTH + 0.4 * k
        (slopes, phases, depth), wave = waves, np.zeros((side, side))
        for (a, b), c in zip(slopes, phases, strict=True):
            wave += np.sin(a * x + b * y + c) / len(phases)
        image = Image.fromarray(np.clip(dark + depth * wave[..., None], 0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        for at, radius, shade in clutter:
            (u, v), r = side * at, side * radius
            pen.ellipse((u - r, v - r, u + r, v + r), fill=shade)
        mask = Image.new("L", image.size)
        font = ImageFont.load_default(size * side * 1.01**k)
        middle = side * (px + k * vx), side * (py + k * vy)
        ImageDraw.Draw(mask).text(middle, name, fill=255, font=font, anchor="mm", stroke_width=width)
        image.paste(light, mask=mask.rotate(angle + k * spin, center=middle))
        image = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
        noisy = np.asarray(image) + rng.normal(0, 3, (_SIDE, _SIDE, 3))
        found.append(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    return found


def write_videos(folder: Path, *, seed: int) -> Path:
    """A task folder of frames with a test split of other videos; a video's number stands in the names of its files."""
    rng, number = np.random.default_rng(seed), 0
    for part, videos, frames in (("train", _VIDEOS, _FRAMES), ("test", _TEST_VIDEOS, _TEST_FRAMES)):
        for name in CLASSES:
            place = folder / part / name
            place.mkdir(parents=True)
            for _ in range(videos):
                for k, image in enumerate(video(name, frames=frames, rng=rng)):
                    image.save(place / f"video{number:03d}_{k:02d}.png")
                number += 1
    return folder


@dataclass(frozen=True, kw_only=True)
class Found:
    """One search."""

    validation: float
    test: float
    warned: bool


def searched(folder: Path, *, groups: str | None, candidates: Sequence[str], seed: int) -> Found:
    """Search a folder."""
    told: list[Event] = []
    with tempfile.TemporaryDirectory() as scratch:
        best = vlmsel_auto.search(
            folder, groups=groups, candidates=candidates, seed=seed, method=("zero_shot", "probe"),
            budget=Budget(trials=len(candidates)), workdir=Path(scratch) / "w", learn=False, sink=told.append,
        ).best  # fmt: skip
    if best is None or best.validation is None or best.test is None:
        raise RuntimeError("a search must find a model, but got none")
    warned = any(isinstance(one, Notice) and "near copies" in one.text for one in told)
    return Found(validation=best.validation, test=best.test, warned=warned)


def row_of(found: Sequence[Found]) -> dict[str, float]:
    """Means in points, the standard error of the mean gap, and how many warned."""
    validation = 100 * np.array([one.validation for one in found])
    test = 100 * np.array([one.test for one in found])
    return {
        "validation": round(float(validation.mean()), 1), "test": round(float(test.mean()), 1),
        "gap": round(float((validation - test).mean()), 1), "error": round(standard_error(validation - test), 1),
        "warned": sum(one.warned for one in found),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="one folder")
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    found: dict[tuple[str, str], list[Found]] = {}
    for seed in range(1 if args.quick else args.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_videos(Path(scratch) / "videos", seed=seed)
            for half, candidates in CANDIDATES.items():
                for told, rule in (("none", None), ("by video", RULE)):
                    one = searched(folder, groups=rule, candidates=candidates, seed=seed)
                    found.setdefault((half, told), []).append(one)
                    print(seed, half, told, one, file=sys.stderr, flush=True)
    print_head("candidates", "groups", "validation", "test", "gap", "error", "warned")
    for names, each in found.items():
        print_row(*names, *row_of(each).values())
    write_json(args.write, {f"{half}, {told}": row_of(each) for (half, told), each in found.items()})


if __name__ == "__main__":
    main()
