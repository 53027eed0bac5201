"""Rules that integrate sum g dh along a path from values of g and h at a few points: float64 numpy, no model.

Conductance of a neuron is the integral over alpha in [0, 1] of g(alpha) h'(alpha), where h is the neuron's value and g
the derivative of the scalar with respect to it. Every rule here is a bilinear form C = sum_kj A[k, j] g[k] h[j]:

- ``spectral``: g and h are interpolated at Chebyshev-Lobatto points t of a stretched path, alpha = sinh(2 t) / sinh 2,
  and the product of both polynomials is integrated exactly: A = M D with the mass matrix M of the Lagrange basis and
  the barycentric differentiation matrix D, both in t (the substitution needs no Jacobian, since h'(t) dt is dh). Error
  falls exponentially where the path is smooth. Normalisation layers bend the path most near the baseline, where their
  input is weak; the stretching puts points there: 1.6 to 3.8 times less error at 9 points on sixteen of the seventeen
  smooth mini-zoo towers, 1.6 times more on the other (docs/results/conductance.md). Sources: Trefethen, Spectral
  Methods in MATLAB, 2000, chapter 6; Berrut and Trefethen, Barycentric Lagrange interpolation, SIAM Review 46, 2004.
- ``trapezoid``: sum over k of (g[k] + g[k+1]) / 2 (h[k+1] - h[k]), second order, robust at kinks, at points
  alpha = 3 t^2 / (1 + 2 t) of equidistant t. Where paths have no kinks (random weights without biases) the head bends
  them near the baseline only, and ever more so the nearer: there points lie as those of t^2, the grading of a mesh
  towards a singular end (Rice, On the degree of convergence of nonlinear spline approximation, 1969). Elsewhere they
  are near equidistant, which kinks like best. At 65 points the error of RN50 with random weights is 22 times less than
  with equidistant points, that of three trained ResNets 3 to 4 % less on two and 6 % more on one
  (docs/results/conductance.md).
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

Kind = Literal["spectral", "trapezoid", "left"]
_STRETCH = 2.0  # chosen on seven members of the mini zoo; docs/results/conductance.md: all of them


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """Points of the path and the bilinear form over them."""

    kind: Kind
    points: FloatArray  # (P,) alphas in [0, 1], strictly increasing
    matrix: FloatArray  # (P, P) A of C = sum_kj A[k, j] g[k] h[j]

    @property
    def intervals(self) -> int:
        """Number of intervals, one less than points."""
        return len(self.points) - 1

    @property
    def local(self) -> bool:
        """Whether the form is that of "trapezoid" or "left", which join neighbours only: a sum over intervals."""
        if self.kind == "spectral":
            return False
        form = trapezoid_matrix if self.kind == "trapezoid" else left_matrix
        return np.array_equal(self.matrix, form(len(self.points)))

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
    k = np.arange(intervals + 1)
    # sin^2 keeps full relative accuracy near 0; mirrored so that points + points[::-1] == 1
    lower = np.sin(0.5 * np.pi * k / intervals) ** 2
    points: FloatArray = np.where(2 * k <= intervals, lower, 1.0 - lower[::-1])
    return points


def differentiation_matrix(points: FloatArray) -> FloatArray:
    """Matrix D (P, P) with (D h)[k] = derivative at point k of the polynomial through all (point, h), points distinct.

    Barycentric form with rows summing to zero ("negative sum trick"), exact up to rounding for polynomials of degree
    P - 1.
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


def lagrange_mass(points: FloatArray) -> FloatArray:
    """Integrals (P, P) over [0, 1] of the products of the Lagrange polynomials of distinct ``points`` (P,).

    With it g @ mass @ f is the exact integral of the product of the polynomials through (points, g) and (points, f).
    """
    legendre = np.polynomial.legendre  # a well conditioned basis
    at, weights = legendre.leggauss(len(points))  # exact to degree 2 P - 1, products have 2 P - 2
    degree = len(points) - 1
    basis = np.linalg.solve(legendre.legvander(2.0 * points - 1.0, degree).T, legendre.legvander(at, degree).T)
    return np.asarray((basis * (weights / 2.0)) @ basis.T, dtype=np.float64)


def stretch(t: FloatArray) -> FloatArray:
    """Map t in [0, 1] to alpha = sinh(2 t) / sinh 2: slope 0.55 at the baseline's end and 2.07 at the image's."""
    alpha: FloatArray = np.sinh(_STRETCH * t) / np.sinh(_STRETCH)
    return alpha


def grade(t: FloatArray) -> FloatArray:
    """Map t in [0, 1] to alpha = 3 t^2 / (1 + 2 t): as 3 t^2 at the baseline's end, slope 4/3 at the image's."""
    alpha: FloatArray = 3.0 * t**2 / (1.0 + 2.0 * t)
    return alpha


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
    if intervals < 1:
        raise ConductanceError(f"a path needs at least one interval (two points), but got intervals={intervals}")
    match kind:
        case "spectral":
            nodes = chebyshev_points(intervals)
            points, matrix = stretch(nodes), lagrange_mass(nodes) @ differentiation_matrix(nodes)
        case "trapezoid":
            points, matrix = grade(np.linspace(0.0, 1.0, intervals + 1)), trapezoid_matrix(intervals + 1)
        case "left":
            points, matrix = np.linspace(0.0, 1.0, intervals + 1), left_matrix(intervals + 1)
        case _:
            assert_never(kind)
    points.flags.writeable = matrix.flags.writeable = False  # shared by the cache
    return Rule(kind=kind, points=points, matrix=matrix)
