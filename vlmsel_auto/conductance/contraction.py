"""Contraction of h and dF/dh with a rule's matrix, and the error that coarser rules on the same points tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from vlmsel_auto.conductance.quadrature import Kind, Rule
from vlmsel_auto.records import FloatArray

__all__ = ["Part", "contract", "differences", "estimate_error", "interleave"]

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

    Our own choice. With r = d1 / d0 the error at N is about r times that at N/2, and d1 is the difference of both. One
    error is a known share of d1 where both have one sign: r / (1 - r), the tail of a geometric series ("left"; 1/3 for
    the trapezoid on smooth paths, r = 1/4). Where paths have kinks both are near independent: r / sqrt(1 + r^2).
    r (1 + r / 2) lies between and a little above what tests/test_conductance.py measures; for the spectral rule on
    smooth paths, whose error at N is r^2 d1, it is cautious.

    Args:
        kind: rule.
        d1: (...) relative difference between N and N/2 intervals.
        d0: (...) between N/2 and N/4; NaN where there is none.

    Returns:
        Like d1; NaN where d1 is NaN.
    """
    guess = np.sqrt(d1) if kind == "spectral" else np.full_like(d1, 0.5)
    ratio = np.minimum(np.where(np.isnan(d0), guess, d1 / np.where(d0 > 0, d0, 1.0)), 0.9)
    match kind:
        case "left":
            share = ratio / (1.0 - ratio)
        case "trapezoid":
            ratio = np.maximum(ratio, _SECOND_ORDER)
            share = ratio * (1.0 + 0.5 * ratio)
        case "spectral":
            share = ratio * (1.0 + 0.5 * ratio)
        case _:
            assert_never(kind)
    estimate: FloatArray = d1 * share
    return estimate


def contract(rule: Rule, h: Tensor, g: Tensor) -> Tensor:
    """C (m, F) = sum_kj A[k, j] g[:, k] h[:, j] for h and g (m, P, F)."""
    matrix = torch.from_numpy(rule.matrix.copy()).to(h)
    return torch.matmul(matrix, h).mul_(g).sum(dim=1)


def differences(rule: Rule, part: Part, fine: Tensor) -> Iterator[Tensor]:
    """Relative differences (m,) of ``rule``'s C (m, F) to that of the coarser rule, and of that to the next coarser."""
    size = fine.abs().sum(dim=1, dtype=torch.float64).clamp_min(torch.finfo(torch.float64).tiny)
    step, coarse = 1, rule.coarser()
    while coarse is not None and step < 4:  # noqa: PLR2004 - every other and every fourth point
        step *= 2
        rough = contract(coarse, part.h[:, ::step], part.g[:, ::step])
        yield (fine - rough).abs_().sum(dim=1, dtype=torch.float64) / size
        fine, coarse = rough, coarse.coarser()


def interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Values at all points (m, 2 P - 1, F) from those at even (m, P, F) and at odd ones (m, P - 1, F)."""
    merged = even.new_empty(even.shape[0], even.shape[1] + odd.shape[1], even.shape[2])
    merged[:, ::2], merged[:, 1::2] = even, odd
    return merged
