"""Write scikit-learn's handwritten digits as an image folder: the demo's task, without a download.

The 1,797 scans of 8 x 8 pixels (Optical Recognition of Handwritten Digits, as scikit-learn ships them) are drawn dark
on white, every pixel as a crisp square block.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from vlmsel_auto.errors import TaskError

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_BLOCK = 4  # pixels a side of each pixel that was scanned
_INK = 16.0  # darkest value of the scans
_TASK_TOML = """\
name = "handwritten digits"
domain = "8x8 scans of handwritten digits, black on white"
metric = "accuracy"
templates = [
    "a scan of the handwritten digit {}.",
    "a handwritten number {}, black on white.",
    'a photo of the digit "{}".',
]

[prompts]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsFolder:
    """What `write_digits` wrote."""

    task: Path  # folder with train/<digit>/*.png, test/<digit>/*.png and task.toml
    unseen: tuple[Path, ...]  # one more image of each digit, in no split: for a prediction after the search
    unseen_labels: tuple[str, ...]  # their classes


def write_digits(directory: Path, *, train_per_class: int = 100, test_per_class: int = 40) -> DigitsFolder:
    """Write the digits, 32 x 32 pixels, to ``directory``/digits and one unseen image of each to ``directory``/unseen.

    Of each digit fewer than 174 images can be taken. Writing again with the same arguments changes no file.

    Raises:
        TaskError: the folder holds other images.
    """
    scans, labels = load_digits(return_X_y=True)
    task = directory / "digits"
    pictures: dict[Path, NDArray[np.float64]] = {}
    for digit, name in enumerate(DIGIT_NAMES):
        places = np.random.default_rng([0, digit]).permutation(np.flatnonzero(labels == digit))
        for rank, place in enumerate(places[: train_per_class + test_per_class]):
            split = "train" if rank < train_per_class else "test"
            pictures[task / split / name / f"{place:04d}.png"] = scans[place]
        pictures[directory / "unseen" / f"{name}.png"] = scans[places[-1]]
    others = sorted(str(path) for path in task.rglob("*.png") if path not in pictures)
    if others:
        raise TaskError(f"{task} holds other images; choose another directory, but got {others[0]!r}")
    for path, scan in pictures.items():
        _write(_png(scan), path)
    prompts = "".join(f'{name} = "{name}"\n' for name in DIGIT_NAMES)
    _write((_TASK_TOML + prompts).encode(), task / "task.toml")
    return DigitsFolder(
        task=task,
        unseen=tuple(directory / "unseen" / f"{name}.png" for name in DIGIT_NAMES),
        unseen_labels=DIGIT_NAMES,
    )


def _png(scan: NDArray[np.float64]) -> bytes:
    """One scan of 64 values from 0 (paper) to 16 (ink), as PNG: grey, square blocks, dark on white."""
    grey = np.rint(255.0 * (1.0 - scan.reshape(8, 8) / _INK)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.kron(grey, np.ones((_BLOCK, _BLOCK), dtype=np.uint8))).save(stream, format="PNG")
    return stream.getvalue()


def _write(data: bytes, path: Path) -> None:
    """Write unless it stands there already: a second demo then finds its decoded images again.

    A file that a kill cut short is written again by the next demo; to sync two thousand of them would take seconds.
    """
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
