"""Differences between two rows of a table, paired over tasks or targets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vlmsel_auto.ranking.agreement import mean_interval
from vlmsel_auto.records import FloatArray


def change(gaps: FloatArray, *, digits: int) -> list[float]:
    """Mean of the differences (tasks,) and its 95 % interval: [mean, low, high], rounded."""
    over = mean_interval(gaps, seed=0)
    return [round(float(each), digits) for each in (gaps.mean(), over.low, over.high)]


def adjusted_p(gaps: FloatArray, *, draws: int = 10_000) -> FloatArray:
    """For each row of differences (rows, tasks) the p-value that its mean is above 0, adjusted for all the rows.

    The largest t of all rows among random signs of the tasks (Westfall & Young 1993, "Resampling-based multiple
    testing", single step): the rows are of the same tasks, so a task has one sign in all. A row without spread has 1.
    """
    tasks = gaps.shape[1]
    signs = np.concatenate([np.ones((1, tasks)), np.random.default_rng(0).choice([-1.0, 1.0], (draws, tasks))])
    means = signs @ gaps.T / tasks  # (1 + draws, rows)
    spread = np.sqrt(np.maximum((gaps**2).mean(axis=1) - means**2, 0.0))
    t = np.divide(means, spread, out=np.zeros_like(means), where=spread > 1e-12)
    return np.asarray((t.max(axis=1)[:, None] >= t[0] - 1e-12).mean(axis=0), dtype=np.float64)


def by_target(gaps: Iterable[tuple[str, float]]) -> FloatArray:
    """Mean difference (targets,) of each target over its cases."""
    found: dict[str, list[float]] = {}
    for target, gap in gaps:
        found.setdefault(target, []).append(gap)
    return np.array([np.mean(each) for each in found.values()])


def standard_error(gaps: FloatArray) -> float:
    """Of the mean of differences (targets,); NaN where there is one."""
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
