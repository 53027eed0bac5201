"""Rules that integrate sum g dh along a path from values of g and h at a few points: float64 numpy, no model.

Conductance of a neuron is the integral over alpha in [0, 1] of g(alpha) h'(alpha), where h is the neuron's value and g
the derivative of the scalar with respect to it. Every rule here is a bilinear form C = sum_kj A[k, j] g[k] h[j]:

- ``spectral``: Chebyshev-Lobatto points, h' by the barycentric differentiation matrix D, Clenshaw-Curtis weights w;
  A = diag(w) D. Error falls exponentially where the path is smooth. (Applying these rules to conductance is our own
  choice; the rules are textbook: Trefethen, Spectral Methods in MATLAB, 2000, chapters 6 and 12; Berrut and
  Trefethen, Barycentric Lagrange interpolation, SIAM Review 46, 2004.)
- ``trapezoid``: equidistant points, sum over k of (g[k] + g[k+1]) / 2 (h[k+1] - h[k]); second order, robust at kinks.
- ``left``: equidistant points, sum over k of g[k] (h[k+1] - h[k]); what Captum's LayerConductance computes.

Points with an even number of intervals hold those of half as many intervals (every other one): see ``Rule.coarser``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, assert_never

import numpy as np

from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.records import FloatArray

__all__ = [
    "Kind",
    "Rule",
    "chebyshev_points",
    "clenshaw_curtis_weights",
    "differentiation_matrix",
    "left_matrix",
    "make_rule",
    "trapezoid_matrix",
]

Kind = Literal["spectral", "trapezoid", "left"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """Points of the path and the bilinear form over them.

    Attributes:
        kind: name of the rule.
        points: (P,) alphas in [0, 1], strictly increasing.
        matrix: (P, P) A of C = sum_kj A[k, j] g[k] h[j].
    """

    kind: Kind
    points: FloatArray
    matrix: FloatArray

    @property
    def intervals(self) -> int:
        """Number of intervals, one less than points."""
        return len(self.points) - 1

    def coarser(self) -> Rule | None:
        """The same rule on every other point, or None (odd number of intervals, own points)."""
        half, odd = divmod(self.intervals, 2)
        if odd or half < 1 or not np.array_equal(self.points, make_rule(self.kind, self.intervals).points):
            return None
        return make_rule(self.kind, half)


def chebyshev_points(intervals: int) -> FloatArray:
    """Chebyshev-Lobatto points (1 - cos(k pi / N)) / 2 of [0, 1], k = 0..N, both ends included.

    Returns:
        (N + 1,) increasing; symmetric about 1/2 to the last bit, so that points of N lie among those of 2 N.
    """
    _check_intervals(intervals)
    k = np.arange(intervals + 1)
    # sin^2 keeps full relative accuracy near 0; mirrored so that points + points[::-1] == 1
    lower = np.sin(0.5 * np.pi * k / intervals) ** 2
    points: FloatArray = np.where(2 * k <= intervals, lower, 1.0 - lower[::-1])
    return points


def differentiation_matrix(points: FloatArray) -> FloatArray:
    """Matrix D with (D h)[k] = derivative at point k of the polynomial through all (point, h).

    Barycentric form with rows summing to zero ("negative sum trick"), exact up to rounding for polynomials of degree
    P - 1.

    Args:
        points: (P,) distinct.

    Returns:
        (P, P).
    """
    difference = points[:, None] - points[None, :]
    np.fill_diagonal(difference, 1.0)
    # products of P - 1 distances stay far from under- and overflow once scaled by the interval's capacity 1/4
    log_weight = -np.log(4.0 * np.abs(difference)).sum(axis=1)
    sign = np.prod(np.sign(difference), axis=1)
    weight = sign * np.exp(log_weight - log_weight.max())
    matrix: FloatArray = (weight[None, :] / weight[:, None]) / difference
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def clenshaw_curtis_weights(intervals: int) -> FloatArray:
    """Weights of the integral over [0, 1] at ``chebyshev_points``; exact for polynomials of degree N.

    Returns:
        (N + 1,) positive, sum 1.
    """
    _check_intervals(intervals)
    n = intervals
    theta = np.pi * np.arange(n + 1) / n
    j = np.arange(1, n // 2 + 1)
    factor = np.where(2 * j == n, 1.0, 2.0) / (4.0 * j**2 - 1.0)
    weights: FloatArray = (1.0 - np.cos(2.0 * np.outer(theta, j)) @ factor) / n
    weights[[0, -1]] *= 0.5
    return weights


def trapezoid_matrix(count: int) -> FloatArray:
    """(P, P) form of sum over k of (g[k] + g[k+1]) / 2 (h[k+1] - h[k]); holds for any increasing points."""
    matrix = 0.5 * (np.eye(count, k=1) - np.eye(count, k=-1))
    matrix[0, 0], matrix[-1, -1] = -0.5, 0.5
    return matrix


def left_matrix(count: int) -> FloatArray:
    """(P, P) form of sum over k of g[k] (h[k+1] - h[k]); holds for any increasing points."""
    matrix = np.eye(count, k=1) - np.eye(count)
    matrix[-1, -1] = 0.0
    return matrix


@cache
def make_rule(kind: Kind, intervals: int) -> Rule:
    """The rule ``kind`` on [0, 1] with ``intervals`` intervals (``intervals + 1`` points)."""
    _check_intervals(intervals)
    match kind:
        case "spectral":
            points = chebyshev_points(intervals)
            matrix = clenshaw_curtis_weights(intervals)[:, None] * differentiation_matrix(points)
        case "trapezoid":
            points, matrix = np.linspace(0.0, 1.0, intervals + 1), trapezoid_matrix(intervals + 1)
        case "left":
            points, matrix = np.linspace(0.0, 1.0, intervals + 1), left_matrix(intervals + 1)
        case _:
            assert_never(kind)
    points.flags.writeable = matrix.flags.writeable = False  # shared by the cache
    return Rule(kind=kind, points=points, matrix=matrix)


def _check_intervals(intervals: int) -> None:
    if intervals < 1:
        raise ConductanceError(f"a path needs at least one interval (two points), but got intervals={intervals}")
