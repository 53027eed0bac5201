"""Trials that run: whether they go on at a rung, and what they count for while the next one is chosen.

Each counts as if it had ended where the posterior expects it to.

Expected improvement then asks what one more trial adds to what they may still bring, and no arm is begun twice for the
same hope (the kriging believer of Ginsbourger, Le Riche, Carraro 2010). What is imagined hardly moves a mean; it
makes the posterior surer, as far as a trial of so many validation images would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.curves import Curve, forecast, goes_on, value_at
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.soft_metric import weigh
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import History, Tried
from vlmsel_auto.records import TrialOrigin, TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A trial that was begun."""

    number: int
    trial: NextTrial
    curve: Curve | None = None  # so far, on the level of all images (`folds.level_folds`); None: no epoch ended yet


def imagine(plan: Plan, history: History, running: Sequence[Running]) -> list[Tried]:
    """The history with what running trials are expected to come to; without any, the history as it is.

    Args:
        plan: the plan.
        history: finished trials, levelled.
        running: in the order in which they were begun.
    """
    if not running:
        return list(history)
    mean, seconds = TrialEvidence(plan, history).posterior.mean, trial_seconds(plan, history)
    rows = {name: m for m, name in enumerate(plan.belief.candidates)}
    methods = {each.name for each in plan.methods}
    interrupted = {each.trial.continues for each in running}
    imagined = []
    for each in running:
        trial, value = each.trial, None
        if each.curve is not None:
            value = forecast(each.curve, policy=plan.policy).mean
        elif trial.method in methods:  # the zero-shot baseline is none of them
            value = float(mean[rows[trial.candidate], plan.column(trial.method)])
        imagined.append(
            Tried(
                candidate=trial.candidate,
                method=trial.method,
                origin=trial.origin,
                state=TrialState.COMPLETE,
                validation=value,
                seconds=seconds.get((trial.candidate, trial.method), 0.0),
                point=trial.point or DEFAULT,
                number=each.number,
                share=0.0,  # its seconds were not measured
                fold=trial.fold,
            )
        )
    return [*(each for each in history if each.number not in interrupted), *imagined]


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
