"""Where candidates may really stand, given what is believed of them: the one simulation of ranks.

Rankings before the first trial and after the last use the same model, so that P(best) means the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlmsel_auto.records import FloatArray

# Own choice: of the error variance, what is a candidate's own, its architecture's, its family's, its pretraining tag's.
_SHARES = (0.40, 0.30, 0.15, 0.15)
_DRAWS = 4_096
_TOP = 5


class Pretrained(Protocol):
    """What tells how alike two candidates are."""

    @property
    def arch(self) -> str:
        """Architecture."""
        ...

    @property
    def family(self) -> str:
        """Kind of tower."""
        ...

    @property
    def tag(self) -> str:
        """Pretraining."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RankChances:
    """Probabilities and quantiles of the true ranks of M candidates; 1 is the best."""

    p_best: FloatArray  # (M,)
    p_top5: FloatArray  # (M,)
    low: FloatArray  # (M,) 2.5 % quantile of the rank
    high: FloatArray  # (M,) 97.5 % quantile


def error_correlation(candidates: Sequence[Pretrained]) -> FloatArray:
    """Correlation (M, M) of a ranking's errors: models that share architecture, family or pretraining err alike.

    A sum of block matrices and of a diagonal, hence positive definite. The shares are our own choice.
    """

    def same(values: Sequence[str]) -> FloatArray:
        return np.array([[float(first == second) for second in values] for first in values], dtype=np.float64)

    own, arch, family, tag = _SHARES
    total: FloatArray = (
        own * np.eye(len(candidates), dtype=np.float64)
        + arch * same([each.arch for each in candidates])
        + family * same([each.family for each in candidates])
        + tag * same([each.tag for each in candidates])
    )
    return total


def simulate_ranks(mean: FloatArray, cov: FloatArray, *, seed: int = 0, draws: int = _DRAWS) -> RankChances:
    """Draw true values from N(mean, cov) and rank them.

    Args:
        mean: (M,), higher is better.
        cov: (M, M), positive semi-definite.
        seed: of the draws.
        draws: a probability p is good to sqrt(p (1 - p) / draws).
    """
    size = len(mean)
    jitter = 1e-10 * max(1.0, float(np.trace(cov)) / size) * np.eye(size)
    factor = np.linalg.cholesky(cov + jitter)
    sample = mean + np.random.default_rng(seed).standard_normal((draws, size)) @ factor.T
    ranks = (-sample).argsort(axis=1).argsort(axis=1) + 1
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="nearest")
    return RankChances(
        p_best=(ranks == 1).mean(axis=0),
        p_top5=(ranks <= _TOP).mean(axis=0),
        low=np.asarray(low, dtype=np.float64),
        high=np.asarray(high, dtype=np.float64),
    )
