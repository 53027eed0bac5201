"""What one more trial costs: measured speed where a trial was timed, FLOPs or parameters where none was. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmsel_auto.records import Method
from vlmsel_auto.trials.history import History, Left
from vlmsel_auto.trials.prior import Plan

__all__ = ["price", "seconds_of"]

_TUNE_COST = 20.0  # of a fine-tuning trial against a probe, before either was timed
_LEAST_SHARE = 0.05  # of a trial's epochs: shorter ones say little of its speed

Seconds = Mapping[tuple[str, Method], float]


def seconds_of(plan: Plan, history: History) -> Seconds:
    """Expected seconds of one more whole trial of each candidate and method.

    A candidate's own last trial tells; for the others the trials seen so far, scaled by the cost of a pass (for a
    probe, whose training costs the same for all, unscaled).
    """
    line = {each.candidate: each for each in plan.lines}
    speeds: dict[Method, list[float]] = {"probe": [], "finetune": []}
    own: dict[tuple[str, Method], float] = {}
    for trial in history:
        if trial.state != "failed" and trial.share >= _LEAST_SHARE:
            seconds = trial.seconds / trial.share
            relative = line[trial.candidate].cost if trial.method == "finetune" else 1.0
            speeds[trial.method].append(seconds / relative)
            own[trial.candidate, trial.method] = seconds
    probe = float(np.median(speeds["probe"])) if speeds["probe"] else 1.0
    tune = float(np.median(speeds["finetune"])) if speeds["finetune"] else _TUNE_COST * probe
    return {
        (name, method): own.get((name, method), tune * each.cost if method == "finetune" else probe)
        for name, each in line.items()
        for method in plan.methods
    }


def price(seconds: float, *, left: Left) -> float:
    """One trial of so many seconds as a share of what is left of the budget; seconds where there is no budget."""
    total = 0.0
    if left.seconds is not None:
        total += seconds / max(left.seconds, 1e-9)
    if left.trials is not None:
        total += 1.0 / max(left.trials, 1)
    return total or seconds
