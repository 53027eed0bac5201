"""What the engine fills: conductance reduced over neurons, image by image and block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vlmsel_auto.conductance.contraction import differences
from vlmsel_auto.conductance.footprint import Footprint
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(kw_only=True)
class Arrays:
    """The engine's scratch, filled while it runs; shapes as in ``layer.Conductance``."""

    activity: FloatArray  # (n, B)
    signed: FloatArray  # (n, B) sum of C
    signature: list[FloatArray]  # B x (n, C_b)
    absolute: list[FloatArray]
    neurons: list[FloatArray]  # B x (n, ...) or empty
    ends: FloatArray  # (n, 2) F at x0 and x
    target: IntArray  # (n,)
    points: IntArray  # (n,)
    error: FloatArray  # (n,)
    differences: FloatArray  # (n, B, 2) between a rule and its coarser ones

    @classmethod
    def empty(cls, foot: Footprint, *, images: int, neurons: bool) -> Self:
        """Arrays for ``images`` images of a tower with ``foot``; ``neurons``: keep C of every neuron too."""
        n, count = images, len(foot.shapes)
        outputs = list(zip(foot.shapes, foot.layouts, strict=True))
        channels = [shape[layout.channels - 1] for shape, layout in outputs]
        own = [(shape[-1], *shape[:-1]) if layout.turned else shape for shape, layout in outputs]
        return cls(
            activity=np.zeros((n, count)),
            signed=np.zeros((n, count)),
            signature=[np.zeros((n, c)) for c in channels],
            absolute=[np.zeros((n, c)) for c in channels],
            neurons=[np.zeros((n, *shape)) for shape in own] if neurons else [],
            ends=np.zeros((n, 2)),
            target=np.zeros(n, dtype=np.int64),
            points=np.zeros(n, dtype=np.int64),
            error=np.full(n, np.nan),
            differences=np.full((n, count, 2), np.nan),
        )

    def gap(self, chosen: IntArray) -> FloatArray:
        """|sum C - (F(x) - F(x0))| / sum |C| (m, B) of the ``chosen`` images: no true error is smaller."""
        total = np.diff(self.ends[chosen])  # (m, 1)
        activity = self.activity[chosen]
        gap: FloatArray = np.abs(self.signed[chosen] - total) / np.where(activity > 0, activity, 1.0)
        return gap

    def note(self, foot: Footprint, *, chosen: IntArray, block: int, sums: Sequence[Tensor]) -> None:
        """Note what C (m, F) of a rule and of its coarser ones says of ``block`` in the ``chosen`` images."""
        fine = sums[0]
        magnitude = fine.abs()
        shape, axis = foot.shapes[block], foot.layouts[block].channels
        others = [d for d in range(1, len(shape) + 1) if d != axis]
        maps = fine.reshape(len(chosen), *shape)
        signature = maps.sum(dim=others) if others else maps
        absolute = magnitude.reshape(len(chosen), *shape).sum(dim=others) if others else magnitude
        self.activity[chosen, block] = magnitude.sum(dim=1, dtype=torch.float64).cpu().numpy()
        self.signed[chosen, block] = signature.double().sum(dim=1).cpu().numpy()
        self.signature[block][chosen] = signature.double().cpu().numpy()
        self.absolute[block][chosen] = absolute.double().cpu().numpy()
        if self.neurons:
            own = maps.movedim(-1, 1) if foot.layouts[block].turned else maps
            self.neurons[block][chosen] = own.double().cpu().numpy()
        for level, difference in enumerate(differences(sums)):
            self.differences[chosen, block, level] = difference.cpu().numpy()
