"""Whether a running trial goes on at a rung, by what others had reached there."""

from __future__ import annotations

import math

from vlmsel_auto.planning.curves import goes_on, value_at
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.parts import fold_ease, parts_of
from vlmsel_auto.planning.plan import Plan, handicap
from vlmsel_auto.planning.soft_metric import weigh
from vlmsel_auto.planning.tried import History
from vlmsel_auto.records import TrialOrigin


def goes_on_at(plan: Plan, history: History, trial: NextTrial, *, rung: int, validation: float) -> bool:
    """Compare a trial with all that reached the rung; a trial of few images needs to be clearly behind to stop.

    Args:
        plan: the plan.
        history: levelled (`history.level_folds`), as it was when the trial began.
        trial: the trial. Audits always go on, and settings that were tried on another part: their value is what they
            are for.
        rung: 1 to `curves.RUNGS` - 1.
        validation: its metric at the rung, on the part that it is scored on.
    """
    again = trial.point is not None and parts_of(history, trial.candidate, trial.method, trial.point)
    if trial.origin is TrialOrigin.AUDIT or again:
        return True
    policy, ease = plan.policy, fold_ease(history)
    others = [each for each in history if each.number != trial.continues]
    peers = [
        there - plan.charge(each.candidate)
        for each in others
        if each.curve is not None and (there := value_at(each.curve, rung=rung)) is not None
    ]
    error = math.sqrt(2) * weigh(validation, None, images=plan.validation_images, policy=policy).sd
    slack = policy.slack if trial.origin is TrialOrigin.PLANNED else 0.0
    less = (ease[trial.fold].metric if ease else 0.0) + plan.charge(trial.candidate) + handicap(plan, trial.candidate)
    return goes_on(validation + slack + policy.rung_errors * error - less, peers)
