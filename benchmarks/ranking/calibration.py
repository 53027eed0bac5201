"""Whether probabilities come true: predicted ranks of candidates against their true ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from vlmsel_auto.ranks import RankChances
from vlmsel_auto.records import FloatArray

_EDGES: Final = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Claims:
    """Rank chances of M candidates and what came true; tied candidates share a rank."""

    chances: RankChances
    best: FloatArray  # (M,) 1 for the best candidate, else 0
    top5: FloatArray  # (M,) likewise for the best five
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


def claims(chances: RankChances, truth: FloatArray) -> Claims:
    """Compare rank chances with the accuracies (M,) that came true."""
    rank = stats.rankdata(-truth)
    return Claims(
        chances=chances,
        best=_among(truth, 1),
        top5=_among(truth, 5),
        covered=np.asarray((chances.low <= rank) & (rank <= chances.high), dtype=np.float64),
    )


def calibration(found: Sequence[Claims]) -> Calibration | None:
    """All claims in bins of probability; None without any."""
    if not found:
        return None
    covered = np.concatenate([one.covered for one in found])
    return Calibration(
        best=_bins([one.chances.p_best for one in found], [one.best for one in found]),
        top5=_bins([one.chances.p_top5 for one in found], [one.top5 for one in found]),
        coverage=float(covered.mean()),
        n=len(covered),
    )


def _bins(predicted: Sequence[FloatArray], outcome: Sequence[FloatArray]) -> tuple[Bin, ...]:
    said, seen = np.concatenate(predicted), np.concatenate(outcome)
    place = np.clip(np.digitize(said, _EDGES) - 1, 0, len(_EDGES) - 2)
    return tuple(
        Bin(said=float(said[place == b].mean()), seen=float(seen[place == b].mean()), n=int((place == b).sum()))
        for b in range(len(_EDGES) - 1)
        if (place == b).any()
    )
