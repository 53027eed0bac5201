"""Whether probabilities come true: what rankings said of places, against the places that came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from vlmsel_auto.records import FloatArray

__all__ = ["Bin", "Calibration", "Claims", "calibration", "claims"]

_EDGES: Final = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Claims:
    """What one ranking said of M candidates, and what came out."""

    p_best: FloatArray  # (M,)
    p_top5: FloatArray  # (M,)
    best: FloatArray  # (M,) 1 or 0; tied candidates share the place
    top5: FloatArray  # (M,) likewise
    covered: FloatArray  # (M,) 1 where the true rank lies in the 95 % interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Claims of about the same probability."""

    said: float  # mean probability
    seen: float  # how often it came true
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Reliability diagram in numbers, over targets and candidates."""

    best: tuple[Bin, ...]
    top5: tuple[Bin, ...]
    coverage: float  # share of true ranks in their 95 % intervals
    n: int


def _among(truth: FloatArray, k: int) -> FloatArray:
    """Share (M,) of the orders of tied candidates in which each is among the best k."""
    first, last = stats.rankdata(-truth, method="min"), stats.rankdata(-truth, method="max")
    return np.asarray(np.clip((k - first + 1) / (last - first + 1), 0.0, 1.0), dtype=np.float64)


def claims(*, p_best: FloatArray, p_top5: FloatArray, low: FloatArray, high: FloatArray, truth: FloatArray) -> Claims:
    """Hold what was said of places against a truth.

    Args:
        p_best: (M,) probability of being the best.
        p_top5: (M,) of being among the best five.
        low: (M,) lower end of the 95 % interval of the rank, 1 = best.
        high: (M,) upper end.
        truth: (M,) accuracies.

    Returns:
        The claims with their outcomes.
    """
    rank = stats.rankdata(-truth)
    return Claims(
        p_best=p_best,
        p_top5=p_top5,
        best=_among(truth, 1),
        top5=_among(truth, 5),
        covered=np.asarray((low <= rank) & (rank <= high), dtype=np.float64),
    )


def calibration(found: list[Claims]) -> Calibration | None:
    """All claims in bins of probability; None without any."""
    if not found:
        return None
    said = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("p_best", "p_top5")}
    seen = {name: np.concatenate([getattr(one, name) for one in found]) for name in ("best", "top5", "covered")}
    return Calibration(
        best=_bins(said["p_best"], seen["best"]),
        top5=_bins(said["p_top5"], seen["top5"]),
        coverage=float(seen["covered"].mean()),
        n=len(seen["covered"]),
    )


def _bins(said: FloatArray, seen: FloatArray) -> tuple[Bin, ...]:
    place = np.clip(np.digitize(said, _EDGES) - 1, 0, len(_EDGES) - 2)
    return tuple(
        Bin(said=float(said[place == b].mean()), seen=float(seen[place == b].mean()), n=int((place == b).sum()))
        for b in range(len(_EDGES) - 1)
        if (place == b).any()
    )
