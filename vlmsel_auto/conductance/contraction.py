"""Contraction of h and dF/dh with a rule's matrix, and the error that coarser rules on the same points tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vlmsel_auto.conductance.quadrature import Kind, Rule, make_rule
from vlmsel_auto.records import FloatArray

_LEVELS = 3  # a rule and those on every other and every fourth point
_SECOND_ORDER = 0.29  # ratio whose r (1 + r / 2) is the 1/3 of a second-order rule


@dataclass(frozen=True, kw_only=True)
class Part:
    """h and dF/dh of one block at some points: each (m, P, F)."""

    h: Tensor
    g: Tensor

    def pick(self, keep: Tensor) -> Part:
        """The images ``keep`` (indices or mask)."""
        return Part(h=self.h[keep], g=self.g[keep])


def estimate_error(kind: Kind, d1: FloatArray, d0: FloatArray) -> FloatArray:
    """Estimated relative error of a rule with N intervals from differences to its coarser ones.

    With r = d1 / d0 the error at N is about r times that at N/2, and d1 is the difference of both. One error is a known
    share of d1 where both have one sign: r / (1 - r), the tail of a geometric series ("left"; 1/3 for the trapezoid on
    smooth paths, r = 1/4). Where paths have kinks both are near independent: r / sqrt(1 + r^2). r (1 + r / 2) lies
    between and a little above what tests measure; for the spectral rule on smooth paths, whose error at N is r^2 d1, it
    is cautious.

    Args:
        kind: rule.
        d1: (...) relative difference between N and N/2 intervals.
        d0: (...) between N/2 and N/4; NaN where there is none.

    Returns:
        Like d1; NaN where d1 is NaN.
    """
    guess = np.sqrt(d1) if kind == "spectral" else np.full_like(d1, 0.5)
    ratio = np.minimum(np.where(np.isnan(d0), guess, d1 / np.where(d0 > 0, d0, 1.0)), 0.9)
    if kind == "trapezoid":
        ratio = np.maximum(ratio, _SECOND_ORDER)
    share = ratio / (1.0 - ratio) if kind == "left" else ratio * (1.0 + 0.5 * ratio)
    return np.asarray(d1 * share, dtype=np.float64)


def contract(rule: Rule, h: Tensor, g: Tensor) -> Tensor:
    """C (m, F) = sum_kj A[k, j] g[:, k] h[:, j] for h and g (m, P, F)."""
    matrix = torch.from_numpy(rule.matrix.copy()).to(h)
    return torch.matmul(matrix, h).mul_(g).sum(dim=1)


def levels(rule: Rule) -> list[Rule]:
    """``rule`` and the coarser rules on every other and every fourth of its points, as far as there are any."""
    found = [rule]
    while len(found) < _LEVELS and (coarse := found[-1].coarser()) is not None:
        found.append(coarse)
    return found


def contract_levels(rule: Rule, part: Part) -> list[Tensor]:
    """C (m, F) of ``levels(rule)``."""
    return [contract(level, part.h[:, :: 2**index], part.g[:, :: 2**index]) for index, level in enumerate(levels(rule))]


class RunningSum:
    """C of ``levels(rule)`` from pieces of points that come from the path's end and need not be held together.

    For rules that join neighbouring points only: their sum over a piece is that of the same rule on the piece, plus the
    interval to the piece after it.
    """

    def __init__(self, rule: Rule) -> None:
        self._kind: Kind = rule.kind
        self._sums: list[Tensor | None] = [None for _ in levels(rule)]
        self._after: list[tuple[Tensor, Tensor] | None] = [None for _ in self._sums]

    def add(self, part: Part, first: int) -> None:
        """Add the piece whose points are number ``first``, ``first`` + 1, ... of the rule's."""
        for index in range(len(self._sums)):
            step = 2**index
            h, g = part.h[:, -first % step :: step], part.g[:, -first % step :: step]
            if not h.shape[1]:
                continue
            piece = contract(make_rule(self._kind, h.shape[1] - 1), h, g) if h.shape[1] > 1 else None
            after, held = self._after[index], self._sums[index]
            if after is not None:
                slope = (g[:, -1] + after[1]).mul_(0.5) if self._kind == "trapezoid" else g[:, -1]
                joint = (after[0] - h[:, -1]).mul_(slope)
                piece = joint if piece is None else piece.add_(joint)
            if piece is not None:
                self._sums[index] = piece if held is None else held.add_(piece)
            self._after[index] = (h[:, 0].clone(), g[:, 0].clone())

    def sums(self) -> list[Tensor]:
        """C (m, F) of each level once the piece with point 0 was added."""
        return [held for held in self._sums if held is not None]


def differences(sums: Sequence[Tensor]) -> Iterator[Tensor]:
    """Relative differences (m,) of each level's C (m, F) to that of the next coarser one."""
    if len(sums) > 1:
        size = sums[0].abs().sum(dim=1, dtype=torch.float64).clamp_min(torch.finfo(torch.float64).tiny)
    for fine, rough in pairwise(sums):
        yield (fine - rough).abs_().sum(dim=1, dtype=torch.float64) / size


def interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Values at all points (m, 2 P - 1, F) from those at even (m, P, F) and at odd ones (m, P - 1, F)."""
    merged = even.new_empty(even.shape[0], even.shape[1] + odd.shape[1], even.shape[2])
    merged[:, ::2], merged[:, 1::2] = even, odd
    return merged
