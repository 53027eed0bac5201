"""What one more trial costs: measured speed where a trial was timed, FLOPs or parameters where none was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.space import EPOCHS, EPOCHS_FACTOR, Point, shorter
from vlmsel_auto.planning.trials import Arm, History, Left
from vlmsel_auto.records import TrialState

_LEAST_SHARE: Final = 0.05  # of a trial's epochs: shorter ones say little of its speed


def length(point: Point) -> float:
    """Epochs of a trial at a point, against those of its method's default."""
    return float(EPOCHS_FACTOR ** (2 * point.get(EPOCHS, 0.5) - 1))


def trial_seconds(plan: Plan, history: History) -> Mapping[Arm, float]:
    """Expected seconds of one more whole trial of each candidate and method, at the default number of epochs.

    A candidate's own last trial by the method tells; for the others the trials seen so far. Methods that train a tower
    are scaled by how fast the candidate's first trial embedded the images, or, before that, by the root of its
    operations: small models wait for other things than arithmetic (on the mini zoo 7 times the operations take twice
    the time). The first trial of a candidate that nobody loaded yet takes the loading on top.
    """
    trains = {each.name: each.trains for each in (*plan.methods, *((plan.zero_shot,) if plan.zero_shot else ()))}
    own: dict[Arm, float] = {}
    embedding: dict[str, float] = {}  # seconds of each candidate's first trial that embedded the images
    for trial in history:
        if trial.state is not TrialState.FAILED and trial.share >= _LEAST_SHARE:
            is_tower = trains.get(trial.method) is Trains.TOWER
            own[trial.candidate, trial.method] = trial.seconds / trial.share / (length(trial.point) if is_tower else 1)
            if not is_tower:
                embedding.setdefault(trial.candidate, trial.seconds / trial.share)
    head = float(np.median(list(embedding.values()))) if embedding else 1.0
    pace = {
        name: embedding[name] / head if head > 0 and name in embedding else cost**plan.policy.pace_power
        for name, cost in plan.costs.items()
    }
    found: dict[Arm, float] = {}
    for method in plan.methods:
        timed = [s / pace[name] for (name, of), s in own.items() if of == method.name and pace[name] > 0]
        untimed = plan.relative_costs.get(method.name, 1.0) * head
        level = float(np.median(timed)) if timed else untimed
        for name, rate in pace.items():
            expected = level * rate if method.trains is Trains.TOWER else head
            found[name, method.name] = own.get((name, method.name), expected)
    tried = {trial.candidate for trial in history}
    return {(name, of): s + (0.0 if name in tried else plan.loading.get(name, 0.0)) for (name, of), s in found.items()}


def budget_share(seconds: float, *, left: Left) -> float:
    """One trial of so many seconds as a share of what is left of the budget; seconds where there is no budget."""
    total = 0.0
    if left.work is not None:
        total += seconds / max(left.work, 1e-9)
    if left.trials is not None:
        total += 1.0 / max(left.trials, 1)
    return total or seconds


def in_time(point: Point, seconds: float, *, left: Left) -> tuple[Point, float]:
    """The point with as many epochs as there is time for, and the share of its epochs that these are.

    A short schedule that ends beats half of a long one. No schedule is shorter than the space allows.

    Args:
        point: settings.
        seconds: of a whole trial at the point.
        left: of the budget.
    """
    share = 1.0 if left.seconds is None else min(1.0, max(0.0, left.seconds) / max(seconds, 1e-9))
    if share == 1.0 or length(point) * share < 1 / EPOCHS_FACTOR:
        return point, share
    return shorter(point, share), share
