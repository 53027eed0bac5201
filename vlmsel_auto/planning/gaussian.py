"""Gaussians over the same unknowns, one for each hypothesis of a grid, given what was seen of some. Pure arrays.

A: unknowns, G: hypotheses, n: observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray

_TINY: Final = 1e-12  # variance: what was seen exactly, and twice, still has an inverse


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussians:
    """One for each hypothesis."""

    mean: FloatArray  # (G, A)
    cov: FloatArray  # (G, A, A)
    logs: FloatArray  # (G,) of the weights, up to what all have in common

    @property
    def weights(self) -> FloatArray:
        """(G,) that sum to 1."""
        shares = np.exp(self.logs - self.logs.max())
        weights: FloatArray = shares / shares.sum()
        return weights

    @property
    def variance(self) -> FloatArray:
        """(G, A)."""
        variance: FloatArray = np.maximum(np.einsum("gaa->ga", self.cov), 0.0)
        return variance

    @property
    def mixture_mean(self) -> FloatArray:
        """(A,) of all hypotheses together, each by its weight."""
        mean: FloatArray = self.weights @ self.mean
        return mean

    @property
    def mixture_variance(self) -> FloatArray:
        """(A,) likewise."""
        variance: FloatArray = self.weights @ (self.variance + (self.mean - self.mixture_mean) ** 2)
        return variance


def given(prior: Gaussians, *, seen: IntArray, values: FloatArray, noise: FloatArray) -> Gaussians:
    """Condition on observations; the logs then hold their marginal likelihood too.

    Args:
        prior: before.
        seen: (n,) which unknown each observation is of; the same one may be seen several times.
        values: (n,) what was seen.
        noise: (n,) variances of the observations, at least 0.
    """
    cross = prior.cov[:, seen]  # (G, n, A)
    factor = np.linalg.cholesky(cross[:, :, seen] + np.diag(noise + _TINY))
    white = np.linalg.solve(factor, cross)
    residual = np.linalg.solve(factor, (values - prior.mean[:, seen])[..., None])  # (G, n, 1)
    across = np.swapaxes(white, 1, 2)
    return Gaussians(
        mean=prior.mean + (across @ residual)[..., 0],
        cov=prior.cov - across @ white,
        logs=prior.logs
        - 0.5 * (residual**2).sum(axis=(1, 2))
        - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1),
    )
