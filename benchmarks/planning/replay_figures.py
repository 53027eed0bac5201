"""Regret of replayed searches against trials and against cost, with intervals over data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.planning.replay_strategies import TRIALS
from benchmarks.planning.replay_table import Table
from vlmsel_auto.records import FloatArray

COSTS = np.linspace(0.25, 30.0, 120)  # in mean trials
_DRAWS = 2_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """Regret in points: data sets x seeds x trials, and x costs; no trial finished: that of the mean arm."""

    by_trial: FloatArray  # (S, K, TRIALS)
    by_cost: FloatArray  # (S, K, len(COSTS))


def regret_curve(values: FloatArray, arms: Sequence[int]) -> FloatArray:
    """(TRIALS,) the best of the A ``values`` minus the best found so far, in points."""
    found = np.maximum.accumulate(values[list(arms)])
    curve: FloatArray = 100 * (values.max() - found)
    return np.concatenate([curve, np.full(max(TRIALS - len(curve), 0), curve[-1])])[:TRIALS]


def cost_curve(values: FloatArray, costs: FloatArray, arms: Sequence[int]) -> FloatArray:
    """(len(COSTS),) regret of the trials that are finished when that much is spent."""
    spent = np.cumsum(costs[list(arms)])
    done = np.searchsorted(spent, COSTS, side="right")
    start = 100 * (values.max() - values.mean())
    steps = np.concatenate([[start], 100 * (values.max() - np.maximum.accumulate(values[list(arms)]))])
    curve: FloatArray = steps[done]
    return curve


def replay_of(table: Table, paths: Sequence[Sequence[Sequence[int]]]) -> Replay:
    """Curves of all runs of one strategy."""
    values, costs = table.flat, table.costs.reshape(len(table.datasets), -1)
    return Replay(
        by_trial=np.array([[regret_curve(values[s], arms) for arms in runs] for s, runs in enumerate(paths)]),
        by_cost=np.array([[cost_curve(values[s], costs[s], arms) for arms in runs] for s, runs in enumerate(paths)]),
    )


def first_within(curves: FloatArray, *, points: float) -> FloatArray:
    """(S, K) steps until within ``points`` of the best; one more than there are when never."""
    near = curves <= points + 1e-9
    steps: FloatArray = np.where(near.any(axis=2), near.argmax(axis=2) + 1.0, curves.shape[2] + 1.0)
    return steps


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One line of the table; trials that never came within count as TRIALS + 1."""

    median_trials_1pt: float
    median_trials_1pt_interval: tuple[float, float]
    mean_trials_1pt: float
    mean_trials_1pt_interval: tuple[float, float]
    median_trials_03pt: float
    median_trials_03pt_interval: tuple[float, float]
    mean_trials_03pt: float
    mean_trials_03pt_interval: tuple[float, float]
    cost_1pt: float  # in mean trials; the largest of COSTS when never
    regret_1: float
    regret_5: float
    regret_5_interval: tuple[float, float]
    regret_10: float
    regret_40: float
    regret_40_interval: tuple[float, float]
    regret_cost_5: float  # when the cost of five mean trials is spent
    runs: int

    def rounded(self) -> dict[str, object]:
        """For JSON."""
        return {
            key: [round(each, 3) for each in value] if isinstance(value, tuple) else round(value, 3)
            for key, value in asdict(self).items()
        }


def _interval(rows: FloatArray, *, median: bool) -> tuple[float, float]:
    """95 % bootstrap interval over the S data sets of the mean or median of ``rows`` (S, K)."""
    picks = np.random.default_rng(0).integers(0, len(rows), size=(_DRAWS, len(rows)))
    drawn = rows[picks].reshape(_DRAWS, -1)
    low, high = np.quantile(np.median(drawn, axis=1) if median else drawn.mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def figures_of(replay: Replay) -> Figures:
    """Summary of one strategy over data sets and seeds."""
    curves = replay.by_trial
    near, nearer = first_within(curves, points=1.0), first_within(curves, points=0.3)
    spent = np.minimum(first_within(replay.by_cost, points=1.0), len(COSTS)).astype(np.int64) - 1
    return Figures(
        median_trials_1pt=float(np.median(near)),
        median_trials_1pt_interval=_interval(near, median=True),
        mean_trials_1pt=float(near.mean()),
        mean_trials_1pt_interval=_interval(near, median=False),
        median_trials_03pt=float(np.median(nearer)),
        median_trials_03pt_interval=_interval(nearer, median=True),
        mean_trials_03pt=float(nearer.mean()),
        mean_trials_03pt_interval=_interval(nearer, median=False),
        cost_1pt=float(COSTS[spent].mean()),
        regret_1=float(curves[:, :, 0].mean()),
        regret_5=float(curves[:, :, 4].mean()),
        regret_5_interval=_interval(curves[:, :, 4], median=False),
        regret_10=float(curves[:, :, 9].mean()),
        regret_40=float(curves[:, :, TRIALS - 1].mean()),
        regret_40_interval=_interval(curves[:, :, TRIALS - 1], median=False),
        regret_cost_5=float(replay.by_cost[:, :, np.searchsorted(COSTS, 5.0)].mean()),
        runs=curves.shape[1],
    )


def saved_by(first: Replay, second: Replay, *, points: float) -> tuple[float, float, float]:
    """Trials that ``first`` needs less than ``second`` to come within ``points``: mean and 95 % interval, paired."""
    means = [first_within(each.by_trial, points=points).mean(axis=1, keepdims=True) for each in (first, second)]
    low, high = _interval(means[1] - means[0], median=False)
    return float((means[1] - means[0]).mean()), low, high
