"""Whether a running trial goes on at a rung, by what others had reached there."""

from __future__ import annotations

import math

from vlmsel_auto.planning.curves import goes_on, value_at
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.soft_metric import weigh
from vlmsel_auto.planning.tried import History
from vlmsel_auto.records import TrialOrigin


def goes_on_at(plan: Plan, history: History, trial: NextTrial, *, rung: int, validation: float) -> bool:
    """Compare a trial with all that reached the rung; a trial of few images needs to be clearly behind to stop.

    Args:
        plan: the plan. Where fits leave out folds in turn, every one is kept and goes on: it is part of a model.
        history: as it was when the trial began.
        trial: the trial.
        rung: 1 to `curves.RUNGS` - 1.
        validation: its metric at the rung.
    """
    if plan.folds > 1:
        return True
    policy = plan.policy
    others = [each for each in history if each.number != trial.continues]
    peers = [
        there - plan.charge(each.candidate)
        for each in others
        if each.curve is not None and (there := value_at(each.curve, rung=rung)) is not None
    ]
    error = math.sqrt(2) * weigh(validation, None, images=plan.validation_images, policy=policy).sd
    slack = policy.slack if trial.origin is TrialOrigin.PLANNED else 0.0
    return goes_on(validation + slack + error - plan.charge(trial.candidate), peers)
