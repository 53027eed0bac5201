"""What one more trial costs: measured speed where a trial was timed, FLOPs or parameters where none was. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmsel_auto.planning.history import History, Left
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.records import Method

__all__ = ["price", "seconds_of", "tune_cost"]

_POWER = 0.5  # seconds of candidates by their operations
_BACKWARD = 3.0  # a step of fine-tuning against a pass without gradients
_LEAST_SHARE = 0.05  # of a trial's epochs: shorter ones say little of its speed

Seconds = Mapping[tuple[str, Method], float]


def seconds_of(plan: Plan, history: History) -> Seconds:
    """Expected seconds of one more whole trial of each candidate and method.

    A candidate's own last trial tells; for the others the trials seen so far. Fine-tuning is scaled by how fast the
    candidate's first probe embedded the images, or, before that, by the root of its operations: small models wait for
    other things than arithmetic (on the mini zoo 7 times the operations take twice the time).
    """
    line = {each.candidate: each for each in plan.lines}
    own: dict[tuple[str, Method], float] = {}
    probes: dict[str, float] = {}  # seconds of each candidate's first
    for trial in history:
        if trial.state != "failed" and trial.share >= _LEAST_SHARE:
            own[trial.candidate, trial.method] = trial.seconds / trial.share
            if trial.method == "probe":
                probes.setdefault(trial.candidate, trial.seconds / trial.share)
    probe = float(np.median(list(probes.values()))) if probes else 1.0
    pace = {
        name: probes[name] / probe if probe > 0 and name in probes else each.cost**_POWER for name, each in line.items()
    }
    tuned = [seconds / pace[name] for (name, method), seconds in own.items() if method == "finetune" and pace[name] > 0]
    tune = float(np.median(tuned)) if tuned else plan.tune_cost * probe
    return {
        (name, method): own.get((name, method), tune * pace[name] if method == "finetune" else probe)
        for name in line
        for method in plan.methods
    }


def tune_cost(*, train: int, val: int, test: int, epochs: int) -> float:
    """What fine-tuning takes against a probe, in passes of an image through the tower; a probe's own training is free.

    Args:
        train: images that a probe embeds, and that an epoch of fine-tuning shows.
        val: images after every epoch.
        test: images once.
        epochs: of fine-tuning.
    """
    return (epochs * (_BACKWARD * train + val) + test) / max(1, train + val + test)


def price(seconds: float, *, left: Left) -> float:
    """One trial of so many seconds as a share of what is left of the budget; seconds where there is no budget."""
    total = 0.0
    if left.seconds is not None:
        total += seconds / max(left.seconds, 1e-9)
    if left.trials is not None:
        total += 1.0 / max(left.trials, 1)
    return total or seconds
