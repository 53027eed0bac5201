"""Images of a task as arrays in memory, for workers that see no folder of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.records import ImageView, IntArray, PixelSource, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedPixels(PixelSource):
    """All images of a task in some views."""

    views: Mapping[ImageView, NDArray[np.uint8]]  # (N, size, size, 3)

    def read(self, view: ImageView, indices: IntArray) -> NDArray[np.uint8]:
        """Images ``indices`` in ``view``: uint8 (n, size, size, 3).

        Raises:
            KeyError: a view that was not packed.
        """
        return self.views[view][np.asarray(indices, dtype=np.int64)]

    def prepare(self, view: ImageView, indices: IntArray, *, check: Callable[[], None] = lambda: None) -> None:
        """Nothing is left to be done."""


def pack(task: Task, views: Sequence[ImageView]) -> PackedPixels:
    """Decode all images of a task in ``views``; N * size * size * 3 bytes each."""
    everyone = np.arange(len(task.paths), dtype=np.int64)
    return PackedPixels(views={view: task.pixels.read(view, everyone) for view in dict.fromkeys(views)})
