"""What a table of published accuracies says of M candidates on a task that is not in it. Pure arrays.

Every data set of the table is a scenario of what the new task may be like: how far each candidate stood above or below
the average candidate there. Levels are kept apart, since a task's difficulty says nothing about who is best on it;
scales are kept, since a data set that sets candidates far apart is one where a wrong choice costs much.

    y[m, j] = level[j] + z[m, j],    z[:, j] ~ N(mean, cov)

Covariances of M candidates from few data sets are shrunk towards their diagonal (Ledoit & Wolf 2004; Schaefer &
Strimmer 2005, target D). Missing cells are filled with their conditional means by the EM algorithm with that shrunken
covariance (Dempster, Laird & Rubin 1977; Schneider 2001, "RegEM").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.records import FloatArray

# our own choices, by hand
_SHRINK: Final = 0.5  # of the covariance towards its diagonal
_POOL: Final = 0.5  # of each candidate's variance towards the mean variance
_LEAST_SD: Final = 0.005  # accuracy: no table says that a candidate never deviates
_LEAST_LEVEL_SD: Final = 0.1  # accuracy: a few data sets may have much the same level
_UNKNOWN_SD: Final = 0.08  # accuracy: of candidates of which nothing was published
_UNKNOWN_LEVEL: Final = 0.5
_UNKNOWN_LEVEL_SD: Final = 0.3
_ROUNDS: Final = 50  # of EM, which stops earlier when nothing moves
_STILL: Final = 1e-6  # accuracy


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreeningPrior:
    """Scores of M candidates on J published data sets, in units of accuracy, 0 being the average candidate."""

    scores: FloatArray  # (M, J)
    mean: FloatArray  # (M,) over data sets
    cov: FloatArray  # (M, M) over data sets, shrunk, positive definite
    level: float  # accuracy of the average candidate, mean over data sets
    level_sd: float  # of it, between data sets


def _shrunk(cov: FloatArray) -> FloatArray:
    variance = np.diag(cov)
    pooled = np.maximum((1 - _POOL) * variance + _POOL * variance.mean(), _LEAST_SD**2)
    shrunk: FloatArray = (1 - _SHRINK) * cov + _SHRINK * np.diag(pooled)
    return shrunk


def _moments(scores: FloatArray, unsure: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (M,) and shrunken covariance (M, M); ``unsure`` is the summed covariance of what was filled in."""
    mean = scores.mean(axis=1)
    away = scores - mean[:, None]
    return mean, _shrunk((away @ away.T + unsure) / (scores.shape[1] - 1))


def _expected(
    column: FloatArray, known: NDArray[np.bool_], mean: FloatArray, cov: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """One data set's scores, unknown ones by their conditional mean, and the conditional covariance (M, M)."""
    away = ~known
    weights = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, away)])  # (known, unknown)
    filled = column.copy()
    filled[away] = mean[away] + weights.T @ (column[known] - mean[known])
    unsure = np.zeros_like(cov)
    unsure[np.ix_(away, away)] = cov[np.ix_(away, away)] - weights.T @ cov[np.ix_(known, away)]
    return filled, unsure


def learn_prior(table: FloatArray) -> ScreeningPrior:
    """Learn from published accuracies.

    Args:
        table: (M, J) accuracies in [0, 1] of M candidates on J data sets, NaN where none was published. A candidate
            without any figure is taken for an average one of which little is known. Data sets with fewer than two
            figures tell nothing and are left out.

    Raises:
        ValueError: not a matrix, a value outside [0, 1], no candidate, or fewer than two data sets with two figures.
    """
    if table.ndim != 2 or not len(table):  # noqa: PLR2004 - candidates x data sets
        raise ValueError(f"the table must be (M, J) with M > 0, but got {table.shape}")
    if np.nanmin(table, initial=0.0) < 0 or np.nanmax(table, initial=1.0) > 1:
        raise ValueError(f"accuracies must lie in [0, 1], but got {np.nanmin(table)} to {np.nanmax(table)}")
    known = ~np.isnan(table)
    kept = known.sum(axis=0) > 1
    if kept.sum() < 2:  # noqa: PLR2004 - a covariance needs two
        raise ValueError(f"two data sets need two published figures each, but got {known.sum(axis=0).tolist()}")
    table, known = table[:, kept], known[:, kept]
    level = np.nanmean(table, axis=0)
    above = np.where(known, table - level, 0.0)
    start = above.sum(axis=1) / (known.sum(axis=1) + 1.0)  # one pseudo-figure at the average candidate
    scores = np.where(known, above, start[:, None])
    mean, cov = _moments(scores, np.zeros((len(table), len(table))))
    for _ in range(0 if known.all() else _ROUNDS):
        filled, unsure = np.empty_like(scores), np.zeros_like(cov)
        for j in range(table.shape[1]):
            filled[:, j], more = _expected(table[:, j] - level[j], known[:, j], mean, cov)
            unsure += more
        level = level + filled.mean(axis=0)
        filled -= filled.mean(axis=0)
        moved = float(np.abs(filled - scores).max())
        scores = filled
        mean, cov = _moments(scores, unsure)
        if moved < _STILL:
            break
    level_sd = max(float(level.std(ddof=1)), _LEAST_LEVEL_SD)
    return ScreeningPrior(scores=scores, mean=mean, cov=cov, level=float(level.mean()), level_sd=level_sd)


def nothing_published(size: int) -> ScreeningPrior:
    """Of M candidates of which no table says anything: all alike, deviating by `_UNKNOWN_SD`."""
    zeros = np.zeros(size)
    return ScreeningPrior(
        scores=zeros[:, None],
        mean=zeros,
        cov=_UNKNOWN_SD**2 * np.eye(size),
        level=_UNKNOWN_LEVEL,
        level_sd=_UNKNOWN_LEVEL_SD,
    )
