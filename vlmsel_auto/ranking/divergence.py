"""Divergences between tasks as one candidate sees them, and the weights of source tasks that follow from them.

A divergence is any callable of the form of `Divergence`: another one is tried by passing it to the bench's ``Case``.
The one that rankings use is in `dcd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.scaling import known_mean
from vlmsel_auto.records import FloatArray

_TINY = 1e-12


class Divergence(Protocol):
    """How different target tasks are from source tasks in the eyes of one candidate."""

    def __call__(self, targets: FloatArray, sources: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
        """Divergences (T, S) >= 0, larger for less similar tasks; the scale does not matter.

        Args:
            targets: (T, B) activities of every block, means over a task's images of sum |conductance|, all known.
            sources: (S, B) likewise.
            used: (T, S) which sources each target may know of. Other sources must not change a target's row; what
                stands in their own places is ignored.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighting:
    """How divergences become weights of source tasks; see `source_weights`."""

    alone: float = 0.1  # temperature where source accuracies alone make the ranking
    effects: float = 0.3  # temperature of candidate effects: what is left beyond a trend wants more sources


def divergences(
    divergence: Divergence, targets: FloatArray, sources: FloatArray, *, leave_out_own: bool = False
) -> FloatArray:
    """Divergences (T, S) of T targets (T, B) from S sources (S, B) of one candidate, NaN where a profile is missing.

    With ``leave_out_own`` targets and sources are the same tasks, each compared with the others only; the diagonal is
    NaN.

    Raises:
        InputError: targets and sources have different blocks.
    """
    if targets.shape[1] != sources.shape[1]:
        raise InputError(
            f"target and sources must have the same blocks, but got {targets.shape[1]} and {sources.shape[1]}"
        )
    used = np.outer(_known(targets), _known(sources))
    if leave_out_own:
        np.fill_diagonal(used, val=False)
    rows, columns = np.asarray(used.any(axis=1)), np.asarray(used.any(axis=0))
    result = np.full(used.shape, np.nan)
    if rows.any():
        part = np.ix_(rows, columns)
        values = divergence(targets[rows], sources[columns], used[part])
        result[part] = np.where(used[part], values, np.nan)
    return result


def _known(profiles: FloatArray) -> NDArray[np.bool_]:
    """Which (n,) tasks have a profile (n, B)."""
    return np.asarray(np.isfinite(profiles).all(axis=1) & (profiles.shape[1] > 0))


def with_mean_of_others(divergence: FloatArray) -> FloatArray:
    """Divergences (M, ..., S) in units of each row's mean; candidates without any profile get the mean of the others.

    NaN where nobody knows.
    """
    known = np.isfinite(divergence)
    mean = known_mean(divergence, axis=-1)
    scaled = divergence / np.where(mean > 0.0, mean, 1.0)
    common = np.where(known.any(axis=0), known_mean(scaled, axis=0), np.nan)
    return np.where(known, scaled, common)


def source_weights(divergence: FloatArray, *, temperature: float) -> FloatArray:
    """Weights softmax(-(d - min) / (t * spread)), spread = standard deviation of d over the sources.

    Args:
        divergence: (..., S); NaN gives weight 0.
        temperature: t > 0.

    Returns:
        (..., S) weights that sum to 1; equal weights, which give the average rank, where the divergences do not differ
        or none is known.
    """
    known = np.isfinite(divergence)
    mean = known_mean(divergence, axis=-1)
    spread = np.sqrt(known_mean((divergence - mean) ** 2, axis=-1))
    differ = spread > _TINY * np.maximum(1.0, np.abs(mean))
    logits = np.where(differ, (mean - divergence) / np.where(differ, temperature * spread, 1.0), 0.0)
    return softmax_of_known(np.where(known, logits, np.nan))


def softmax_of_known(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis; NaN gives 0, equal weights where all are NaN."""
    known = np.isfinite(logits)
    some = known.any(axis=-1, keepdims=True)
    return np.asarray(special.softmax(np.where(known, logits, np.where(some, -np.inf, 0.0)), axis=-1), dtype=np.float64)
