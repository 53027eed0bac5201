"""How well a predicted order of candidates agrees with the accuracies that tuning really gave.

NDCG@5 uses relevance max(0, 6 - true rank) and linear gain: with accuracies as relevance a random order already gets
about .75 and the figure says nothing. Ties, on either side, are averaged over all their orders, so no result depends
on the order in which candidates are listed. Every figure has its definition in SciPy or scikit-learn:
``scipy.stats.kendalltau``, ``scipy.stats.weightedtau`` and ``sklearn.metrics.ndcg_score`` are the oracles of the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from vlmsel_auto.errors import InputError
from vlmsel_auto.records import Agreement, FloatArray, Interval

TOO_FEW_FOR_TAU = 3  # below this any order agrees or disagrees completely
TOO_FEW_FOR_NDCG = 4  # below this every order gets a high NDCG
TOO_FEW_FOR_INTERVAL = 8  # a bootstrap over fewer candidates says nothing
TOP = 5  # places that NDCG looks at
RESAMPLES = 1000
LEVEL = 0.95


def relevance(actual: FloatArray) -> FloatArray:
    """Relevance max(0, 6 - rank) (..., n) of accuracies (..., n), rank 1 = highest, tied ranks averaged."""
    ranks = stats.rankdata(-np.asarray(actual, dtype=np.float64), axis=-1)
    return np.asarray(np.maximum(0.0, TOP + 1.0 - ranks), dtype=np.float64)


def ndcg(predicted: FloatArray, actual: FloatArray) -> float:
    """Normalised discounted cumulative gain at 5, linear gain, discount 1 / log2(1 + place), tied scores averaged.

    In [0, 1]; NaN when nothing is relevant, as where more than ten candidates are all equal.
    """
    return float(ndcg_of_each(np.asarray(predicted), np.asarray(actual)))


def ndcg_of_each(predicted: FloatArray, actual: FloatArray) -> FloatArray:
    """`ndcg` (...) of scores (..., n) and accuracies that broadcast against them."""
    rel = relevance(actual)
    n = rel.shape[-1]
    discount = np.zeros(n)
    top = min(TOP, n)
    discount[:top] = 1.0 / np.log2(np.arange(2, top + 2))
    ideal = np.sort(rel, axis=-1)[..., ::-1] @ discount
    descending = -np.asarray(predicted, dtype=np.float64)
    before = stats.rankdata(descending, method="min", axis=-1).astype(np.intp) - 1
    up_to = stats.rankdata(descending, method="max", axis=-1).astype(np.intp)
    total = np.concatenate([[0.0], np.cumsum(discount)])
    gain = np.sum(rel * (total[up_to] - total[before]) / (up_to - before), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(ideal > 0.0, gain / ideal, math.nan), dtype=np.float64)


def tau_b(predicted: FloatArray, actual: FloatArray) -> float:
    """Kendall's tau-b between scores and accuracies; 0 when either side is constant (nothing was ordered)."""
    return float(_tau_b_of_each(np.asarray(predicted), np.asarray(actual)))


def _tau_b_of_each(predicted: FloatArray, actual: FloatArray) -> FloatArray:
    """`tau_b` (...) of scores and accuracies (..., n)."""
    orders = [
        (each[..., :, None] > each[..., None, :]).astype(np.int8) - (each[..., :, None] < each[..., None, :])
        for each in (predicted, actual)
    ]
    both, one, other = (
        np.sum(left * right, axis=(-2, -1), dtype=np.int64)
        for left, right in ((orders[0], orders[1]), (orders[0], orders[0]), (orders[1], orders[1]))
    )
    ordered = np.sqrt(one.astype(np.float64)) * np.sqrt(other.astype(np.float64))
    return np.asarray(both / np.where(ordered > 0.0, ordered, 1.0), dtype=np.float64)


def weighted_tau(predicted: FloatArray, actual: FloatArray) -> float:
    """Weighted Kendall tau (hyperbolic, SciPy's defaults); 0 when either side is constant."""
    if np.ptp(predicted) == 0.0 or np.ptp(actual) == 0.0:
        return 0.0
    value = float(stats.weightedtau(predicted, actual).statistic)
    return value if math.isfinite(value) else 0.0


def top_k_loss(predicted: FloatArray, actual: FloatArray, *, k: int = 1) -> float:
    """Accuracy >= 0 lost by trying only the k predicted best: best of all minus best of those.

    Predicted ties count as a random order: this is then the expected loss.
    """
    k = min(k, len(actual))
    bound = np.sort(predicted)[::-1][k - 1]
    above = actual[predicted > bound]
    tied = np.sort(actual[predicted == bound])[::-1]
    slots = k - len(above)
    floor = float(above.max()) if len(above) else -math.inf
    # of `slots` drawn from the tied, the best is the j-th best with probability C(g-1-j, slots-1) / C(g, slots)
    ways = np.array([math.comb(len(tied) - 1 - j, slots - 1) for j in range(len(tied))], dtype=np.float64)
    best = float(np.maximum(tied, floor) @ ways) / math.comb(len(tied), slots)
    return max(0.0, float(np.max(actual)) - best)


def _interval(
    statistic: Callable[[FloatArray, FloatArray], FloatArray], predicted: FloatArray, actual: FloatArray, *, seed: int
) -> Interval | None:
    """Percentile bootstrap over candidates; None when they are too few or most resamples leave nothing to compare."""
    n = len(actual)
    if n < TOO_FEW_FOR_INTERVAL:
        return None
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    values = statistic(predicted[draws], actual[draws])
    values = values[np.isfinite(values)]
    if len(values) < RESAMPLES // 2:
        return None
    return _middle(values)


def mean_interval(values: FloatArray, *, seed: int) -> Interval:
    """95 % interval of the mean of values (n,) by a percentile bootstrap."""
    draws = np.random.default_rng(seed).integers(len(values), size=(2 * RESAMPLES, len(values)))
    return _middle(values[draws].mean(axis=1))


def _middle(values: FloatArray) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL)


def agreement(predicted: FloatArray, actual: FloatArray, *, seed: int = 0) -> Agreement:
    """Compare predicted scores (n,), higher is better, with the accuracies (n,) that the candidates had when tuned.

    Returns:
        The figures; None and a note where n is too small to say anything, or where one side is all equal: of that the
        taus are undefined, and NDCG is where nothing came out better than anything else.

    Raises:
        InputError: lengths differ or a value is not finite.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    actual = np.asarray(actual, dtype=np.float64)
    if predicted.shape != actual.shape or predicted.ndim != 1:
        raise InputError(
            f"predicted and actual must be vectors of one length, but got {predicted.shape} and {actual.shape}"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(actual).all()):
        raise InputError(
            f"predicted and actual must be finite; leave out candidates that failed, but got {predicted} and {actual}"
        )
    n = len(actual)
    alike, undecided = (n > 1 and float(np.ptp(each)) == 0.0 for each in (actual, predicted))
    enough_tau, enough_ndcg = n >= TOO_FEW_FOR_TAU, n >= TOO_FEW_FOR_NDCG and not alike
    ordered = enough_tau and not alike and not undecided
    note = ""
    if n < TOO_FEW_FOR_NDCG:
        note = f"{n} tuned candidate{'' if n == 1 else 's'}: too few to say how well the prediction did"
    elif n < TOO_FEW_FOR_INTERVAL:
        note = f"{n} tuned candidates: too few for intervals"
    if enough_tau and alike:
        note = f"all {n} came out equal, so there is no order to predict"
    elif enough_tau and undecided:
        note = f"it takes all {n} for equal, so it predicts no order"
    return Agreement(
        n=n,
        tau_b=tau_b(predicted, actual) if ordered else None,
        weighted_tau=weighted_tau(predicted, actual) if ordered else None,
        ndcg5=ndcg(predicted, actual) if enough_ndcg else None,
        top1_loss=top_k_loss(predicted, actual, k=1) if n else None,
        top5_loss=top_k_loss(predicted, actual, k=5) if n else None,
        tau_b_interval=_interval(_tau_b_of_each, predicted, actual, seed=seed) if ordered else None,
        ndcg5_interval=_interval(ndcg_of_each, predicted, actual, seed=seed) if enough_ndcg else None,
        note=note,
    )
