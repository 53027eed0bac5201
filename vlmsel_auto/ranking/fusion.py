"""Many signals to one score, learned on source tasks: a trend in the signals plus what source tasks say beyond it.

    score[m] = sum_p weight_p signal_p[m]  +  mean over sources s of residual[m, s], weighted by similarity and shrunk

The first part is the trend: how the signals of a task predict its truth, on average over tasks and candidates. The
second is the candidate's own effect: how much better it did on the source tasks than its signals predicted. Sources
like the target count more (DCD gives the similarities), and the mean is shrunk towards 0 by n / (n + k) with n the
effective number of sources. Without any signal the residual is the truth itself and the score is the DCD prior. This is
kriging with the DCD weights in the covariance's place (docs/choices.md has the comparison).

Everything is standardised within a task, over candidates: a task's difficulty says nothing about which model is best
on it. Weights are ridge-regularised and not negative, since every signal is oriented so that higher is better: with
some twenty source tasks, weights of free sign would fit noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from vlmsel_auto.ranking.agreement import ndcg_of_each
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.records import FloatArray, IntArray

_MIN_SD = 0.05  # standard units: a fit without any residual must not claim certainty
_SHRINKS: Final = (2.0, 5.0, 10.0, 20.0, 50.0)  # k of n / (n + k), chosen on tasks left out
_PENALTIES: Final = (0.05, 0.1, 0.2, 0.5, 1.5)  # of the ridge, likewise
_PENALTY: Final = 0.5  # where tasks are too few to choose
_ENOUGH_TASKS: Final = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """What was learned from the source tasks, or weights chosen beforehand."""

    weights: Mapping[str, float]  # signal -> weight >= 0, standard units of the truth per standard unit of the signal
    sd: float  # of truth minus score on source tasks that the fit had not seen, in standard units
    trend_sd: float  # the same without candidate effects: for candidates that the sources do not know
    sources: int  # tasks that it was learned from; 0: fixed weights
    residual: FloatArray = field(default_factory=lambda: np.full((0, 0), np.nan))  # (M, S) truth minus trend
    shrink: float = np.inf  # k of n / (n + k); infinite: no candidate effects


def _solve(gram: FloatArray, moment: FloatArray) -> FloatArray:
    """Minimise w' G w / 2 - m' w over w >= 0, from the Cholesky factor of G."""
    factor = np.linalg.cholesky(gram)
    weights, _ = optimize.nnls(factor.T, np.linalg.solve(factor, moment))
    return np.asarray(weights, dtype=np.float64)


def candidate_effect(residual: FloatArray, similarity: FloatArray, *, shrink: float) -> FloatArray:
    """Shrunken weighted mean (M,) of each candidate's residuals, in standard units; 0 without sources.

    Args:
        residual: (M, S) truth minus trend, NaN where unknown.
        similarity: (M, S) weights >= 0 of the sources, any scale.
        shrink: k of n / (n + k), n = (sum w)^2 / sum w^2 over the known sources; 0 leaves the mean as it is.
    """
    known = np.isfinite(residual)
    mass = np.where(known, similarity, 0.0)
    total = mass.sum(axis=1)
    some = total > 0.0
    safe = np.where(some, total, 1.0)
    mean = (mass * np.where(known, residual, 0.0)).sum(axis=1) / safe
    effective = safe**2 / np.where(some, (mass**2).sum(axis=1), 1.0)
    return np.where(some, mean * (effective / (effective + shrink)), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Standardised:
    """Standardised training data."""

    x: FloatArray  # (M, S, W, P)
    y: FloatArray  # (M, S), 0 where unknown
    known: NDArray[np.bool_]  # (M, S)
    reliability: FloatArray  # (S,)


def _rows(
    signals: Mapping[str, FloatArray], truth: FloatArray, reliability: FloatArray, names: list[str], tasks: IntArray
) -> _Standardised:
    known = np.isfinite(truth)
    draws = max([values.shape[2] for values in signals.values() if values.ndim > truth.ndim], default=1)
    x = np.zeros((len(truth), len(tasks), draws, len(names)))
    for p, name in enumerate(names):
        values = _all_draws(signals[name]) if signals[name].ndim > truth.ndim else signals[name][:, :, None]
        x[..., p] = standardise(np.where(known[:, :, None], values, np.nan))[:, tasks]
    return _Standardised(x=x, y=standardise(truth)[:, tasks], known=known[:, tasks], reliability=reliability[tasks])


def _all_draws(values: FloatArray) -> FloatArray:
    """(M, S, W) with the first known draw of a task in the place of those that it lacks.

    A user's own search has one draw, tasks of the shipped library two: a draw of averages would halve what labels say.
    """
    drawn = np.isfinite(values).any(axis=0)
    first = np.take_along_axis(values, drawn.argmax(axis=1)[None, :, None], axis=2)
    return np.where(drawn, values, first)


def _residual(rows: _Standardised, weights: FloatArray) -> FloatArray:
    """Truth minus trend (M, S), mean over draws."""
    return np.where(rows.known, rows.y - (rows.x @ weights).mean(axis=2), np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class _LeftOut:
    """Scores on tasks that the fit had not seen, with one shrinkage of candidate effects."""

    error: float  # mean squared, over candidates and tasks
    gains: FloatArray  # (S,) NDCG@5, NaN where nearly all candidates are equal


def _left_out(rows: _Standardised, fits: list[FloatArray], similarity: FloatArray, shrink: float) -> _LeftOut:
    """Score each task by the fit without it."""
    n_tasks, draws = rows.x.shape[1:3]
    squares, gains = 0.0, []
    for s in range(n_tasks):
        rest = np.arange(n_tasks) != s
        offset = candidate_effect(_residual(rows, fits[s])[:, rest], similarity[:, s][:, rest], shrink=shrink)
        score = (rows.x[:, s] @ fits[s] + offset[:, None])[rows.known[:, s]]
        truth = rows.y[rows.known[:, s], s]
        squares += float(np.sum((truth[:, None] - score) ** 2)) / draws
        gains.append(float(ndcg_of_each(score.T, truth).mean()))
    return _LeftOut(error=squares / float(rows.known.sum()), gains=np.array(gains))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ridge:
    """Normal equations of the trend, task by task."""

    grams: FloatArray  # (S, P, P)
    moments: FloatArray  # (S, P)
    counts: FloatArray  # (S,) rows

    @staticmethod
    def of(rows: _Standardised) -> _Ridge:
        draws = rows.x.shape[2]
        return _Ridge(
            grams=np.einsum("mswp,mswq,s->spq", rows.x, rows.x, rows.reliability) / draws,
            moments=np.einsum("mswp,ms,s->sp", rows.x, rows.y, rows.reliability) / draws,
            counts=rows.known.sum(axis=0) * rows.reliability,
        )

    def weights(self, penalty: float, *, without: int | None = None) -> FloatArray:
        """Weights (P,) >= 0 of all tasks, or of all but one."""
        gram, moment, rows = (each.sum(axis=0) for each in (self.grams, self.moments, self.counts))
        if without is not None:
            gram, moment, rows = (
                whole - each[without]
                for whole, each in ((gram, self.grams), (moment, self.moments), (rows, self.counts))
            )
        names = len(moment)
        return _solve(gram + penalty * float(rows) * np.eye(names), moment) if names else np.zeros(0)

    def left_out(self, penalty: float) -> list[FloatArray]:
        """Weights without each task in turn."""
        return [self.weights(penalty, without=s) for s in range(len(self.counts))]


def _chosen_penalty(rows: _Standardised, ridge: _Ridge) -> float:
    """The `_strongest` penalty by the trend's errors on tasks left out."""
    tasks = len(ridge.counts)
    if tasks < _ENOUGH_TASKS or not ridge.moments.size:
        return _PENALTY
    errors = {one: _trend_errors(rows, ridge.left_out(one)) for one in _PENALTIES}
    return _strongest(errors, np.full(tasks, 1.0 / tasks))


def _trend_errors(rows: _Standardised, fits: list[FloatArray]) -> FloatArray:
    """Mean squared errors (S,) of the trend on tasks that the fit had not seen, over candidates and draws."""
    found = []
    for s, weights in enumerate(fits):
        missed = rows.y[:, s, None] - rows.x[:, s] @ weights
        found.append(float(np.mean(missed[rows.known[:, s]] ** 2)))
    return np.array(found)


def _strongest(losses: Mapping[float, FloatArray], share: FloatArray) -> float:
    """The largest key whose losses (S,) on tasks left out are within one standard error of the least.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3) on differences to the best, paired by task and
    weighted by ``share``, which sums to 1: few tasks tell settings apart badly, and a strong one has less to go wrong.
    """
    best = min(losses.values(), key=lambda loss: float(share @ loss))
    within = []
    for key, loss in losses.items():
        mean = float(share @ (loss - best))
        if mean <= float(np.sqrt(share**2 @ (loss - best - mean) ** 2)):
            within.append(key)
    return max(within)


def _chosen(tried: Mapping[float, _LeftOut], reliability: FloatArray, *, by_order: bool) -> float:
    """The `_strongest` shrinkage by NDCG@5, tasks weighted by reliability; else that of the least error.

    What a plan lives from is the top, not the mean error. Where effects are all there is, shrinking them leaves the
    order alone.
    """
    ordered = np.all([np.isfinite(each.gains) for each in tried.values()], axis=0)
    if not (by_order and ordered.any()):
        return min(tried, key=lambda k: tried[k].error)
    share = reliability[ordered] / reliability[ordered].sum()
    return _strongest({k: -each.gains[ordered] for k, each in tried.items()}, share)


def fit_fusion(
    signals: Mapping[str, FloatArray],
    truth: FloatArray,
    *,
    similarity: FloatArray | None = None,
    reliability: FloatArray | None = None,
    penalty: float | None = None,
) -> Fusion:
    """Learn weights and candidate effects from tasks whose truth is known; errors come from leaving out one at a time.

    Args:
        signals: name -> (M, S) values on the source tasks, or (M, S, W) for W draws of the labelled images, oriented
            so that higher is better; NaN where unknown. Draws stay apart: their mean would look less noisy than the
            one draw that a target has.
        truth: (M, S) accuracies; NaN where unknown.
        similarity: (M, S, S), [m, t, s] = weight of source s for target t; None: no candidate effects.
        reliability: (S,) weights > 0 of the source tasks, at most 1: how much of what sets candidates apart on them is
            no sampling noise; None: all 1.
        penalty: ridge penalty per row of the fit; None: of .05 to 1.5 the strongest whose trend errs on tasks left out
            by no more than one standard error beyond the least; .5 with fewer than five tasks.

    Returns:
        The fit; with nothing to learn from, no weights and sd 1.
    """
    names = sorted(signals)
    tasks = np.flatnonzero(np.isfinite(truth).sum(axis=0) > 1)
    effects = similarity is not None
    if len(tasks) == 0 or not (names or effects):
        return Fusion(weights={}, sd=1.0, trend_sd=1.0, sources=0)
    trusted = np.ones(truth.shape[1]) if reliability is None else reliability
    rows = _rows(signals, truth, trusted, names, tasks)
    ridge = _Ridge.of(rows)
    if penalty is None:
        penalty = _chosen_penalty(rows, ridge)
    weights = ridge.weights(penalty)
    shrink, sd, trend_sd = np.inf, 1.0, 1.0
    if len(tasks) > 1:
        fits = ridge.left_out(penalty)
        near = np.ones((len(truth), len(tasks), len(tasks)))
        if similarity is not None:
            near = similarity[:, tasks][:, :, tasks]
        tried = {k: _left_out(rows, fits, near, k) for k in ((*_SHRINKS, np.inf) if effects else (np.inf,))}
        if effects:
            shrink = _chosen({k: tried[k] for k in _SHRINKS}, rows.reliability, by_order=bool(names))
        sd, trend_sd = (float(np.sqrt(tried[k].error)) for k in (shrink, np.inf))
    residual = np.full(truth.shape, np.nan)
    residual[:, tasks] = _residual(rows, weights)
    return Fusion(
        weights=dict(zip(names, weights.tolist(), strict=True)),
        sd=max(sd, _MIN_SD),
        trend_sd=max(trend_sd, _MIN_SD),
        sources=len(tasks),
        residual=residual,
        shrink=float(shrink),
    )


def trend(fusion: Fusion, signals: Mapping[str, FloatArray], *, n: int) -> FloatArray:
    """What the signals (n,) of a target's candidates predict, by name; unknown signals count as average."""
    score = np.zeros(n)
    for name, weight in fusion.weights.items():
        if name in signals:
            score += weight * standardise(signals[name])
    return score


def fuse(
    fusion: Fusion, signals: Mapping[str, FloatArray], *, n: int, similarity: FloatArray | None = None
) -> FloatArray:
    """Scores (n,): the trend, and candidate effects when the similarity (n, S) of target to sources is given."""
    score = trend(fusion, signals, n=n)
    if similarity is not None and fusion.residual.size:
        score = score + candidate_effect(fusion.residual, similarity, shrink=fusion.shrink)
    return score
