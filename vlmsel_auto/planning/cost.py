"""What one more trial costs: measured speed where a trial was timed, FLOPs or parameters where none was."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.tried import Arm, History, Left
from vlmsel_auto.records import TrialState


def trial_seconds(plan: Plan, history: History) -> Mapping[Arm, float]:
    """Expected seconds of one more whole trial of each candidate and method.

    A candidate's own last trial by the method tells; for the others the trials seen so far. Methods that train a tower
    are scaled by how fast the candidate's first trial embedded the images, or, before that, by the root of its
    operations: small models wait for other things than arithmetic (on the mini zoo 7 times the operations take twice
    the time). The first trial of a candidate that nobody loaded yet takes the loading on top.
    """
    trains = {each.name: each.trains for each in (*plan.methods, *((plan.floor,) if plan.floor else ()))}
    own: dict[Arm, float] = {}
    embedding: dict[str, float] = {}  # seconds of each candidate's first trial that embedded the images
    for trial in history:
        if trial.state is not TrialState.FAILED and trial.share >= plan.policy.least_share:
            own[trial.candidate, trial.method] = trial.seconds / trial.share
            if trains.get(trial.method) in {Trains.HEAD, Trains.NOTHING}:
                embedding.setdefault(trial.candidate, trial.seconds / trial.share)
    head = float(np.median(list(embedding.values()))) if embedding else 1.0
    pace = {
        line.candidate: embedding[line.candidate] / head
        if head > 0 and line.candidate in embedding
        else line.cost**plan.policy.pace_power
        for line in plan.lines
    }
    found: dict[Arm, float] = {}
    for method in plan.methods:
        timed = [s / pace[name] for (name, of), s in own.items() if of == method.name and pace[name] > 0]
        untimed = plan.relative_costs.get(method.name, plan.policy.untimed_cost) * head
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
