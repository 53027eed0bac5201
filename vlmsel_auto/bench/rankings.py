"""The rankings that the bench compares: each takes one target of a library and returns scores of its candidates.

A ranking returns a list: one score vector a draw of the labelled images, or one in all; empty when the library lacks
what it needs. `benchmarks/ranking/compared_rankings.py` has many more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from scipy import stats

from vlmsel_auto.bench.case import Case
from vlmsel_auto.ranking.evidence.knn import KNN
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.scores import score_candidates
from vlmsel_auto.ranking.sources import images_behind
from vlmsel_auto.records import FloatArray

Ranker: TypeAlias = Callable[[Case], list[FloatArray]]

BASE: Final = "average_rank"  # the ranking that gains are over
_REPLICATES: Final = 20  # simulated pairs of test splits
_DECIMALS: Final = 12
_SHARPNESS: Final = 10.0  # of the ceiling's softmax over rank correlations


def weighted_rank(truth: FloatArray, weights: FloatArray) -> FloatArray:
    """Minus the weighted mean rank over source tasks, rank 1 = best, tied ranks averaged.

    Args:
        truth: (M, S) accuracies on the sources; a missing figure counts as the middle rank of its task.
        weights: (M, S) or (S,) of the sources.

    Returns:
        (M,) scores, higher is better.
    """
    known = np.isfinite(truth)
    order = stats.rankdata(np.where(known, -truth, np.nan), axis=0, nan_policy="omit")
    # the place within those known, so that a task which few were tried on counts no less
    ranks = np.where(known, (order - 0.5) / np.maximum(known.sum(axis=0), 1) - 0.5, 0.0)
    # rounded: equal mean ranks must not differ by the order of the sum
    return np.asarray(-(ranks * weights).sum(axis=1).round(_DECIMALS), dtype=np.float64)


def average_rank(truth: FloatArray) -> FloatArray:
    """`weighted_rank` (M,) with all sources of truth (M, S) alike."""
    return weighted_rank(truth, np.full(truth.shape[1], 1.0 / max(truth.shape[1], 1)))


def source_ceiling(target: FloatArray, sources: FloatArray) -> FloatArray:
    """Source ranks weighted by their true rank correlation with the target: no real ranking, a ceiling for weighting.

    Args:
        target: (M,) true accuracies on the target.
        sources: (M, S) on the sources, no missing values in the columns that count.

    Returns:
        (M,) weighted mean of standardised accuracies, weights softmax(10 x Spearman correlation).
    """
    complete = np.isfinite(sources).all(axis=0) & (np.nanstd(sources, axis=0) > 0.0)
    kept = sources[:, complete]
    if kept.shape[1] == 0 or np.ptp(target) == 0.0:
        return np.zeros(len(target))
    own = stats.rankdata(target)
    correlation = np.array([np.corrcoef(own, stats.rankdata(column))[0, 1] for column in kept.T])
    weights = np.exp(_SHARPNESS * (correlation - correlation.max()))
    return np.asarray(standardise(kept) @ weights / weights.sum(), dtype=np.float64)


def _dcd(case: Case) -> list[FloatArray]:
    sources = case.gathered(shots=0)
    return [score_candidates(measured={}, sources=sources, n=len(case.rows)).dcd] if sources.profiled else []


RANKINGS: Final[Mapping[str, Ranker]] = {
    "random": lambda case: [np.zeros(len(case.rows))],  # ties are averaged over all orders: the exact expectation
    BASE: lambda case: [average_rank(case.source_truth)],
    "dcd": _dcd,
    KNN: lambda case: case.evidence(KNN),
    "fused_unlabelled": lambda case: [one.score for one in case.fused_unlabelled],
    "fused": lambda case: [one.score for one in case.fused],
    "source_ceiling": lambda case: [source_ceiling(case.accuracy[case.rows], case.source_truth)],
}


def replicate_scores(case: Case, truths: Sequence[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
    """Pairs of a replicate and the truth that it predicts.

    With several tuning runs: the mean of the others against each. With one figure of zero-shot accuracy: two test
    splits of the same size against each other, by `drawn_pair`. Else nothing.
    """
    if len(truths) > 1:
        stack = np.stack(truths)
        # never as sum less own: rounding would break ties of equal accuracies
        return [(np.delete(stack, r, axis=0).mean(axis=0), stack[r]) for r in range(len(stack))]
    n = int(images_behind(case.library, truth=case.truth)[case.column])
    if case.truth == "tuned" or n <= 0:
        return []
    rng = np.random.default_rng([case.seed, case.column])
    accuracy = np.clip(truths[0], 0.0, 1.0)
    return [drawn_pair(accuracy, n, rng) for _ in range(_REPLICATES)]


def drawn_pair(accuracy: FloatArray, images: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Accuracies on two test splits of so many images around ``accuracy`` (M,), by independent binomial draws.

    Both are drawn: a draw against the accuracies themselves would take their own sampling noise for knowledge
    (docs/results/ranking.md).
    """
    return rng.binomial(images, accuracy) / images, rng.binomial(images, accuracy) / images
