"""Trials that run while the next one is chosen: each counts as if it had ended where the posterior expects it to.

Expected improvement then asks what one more trial adds to what they may still bring, and no arm is begun twice for the
same hope (the kriging believer of Ginsbourger, Le Riche, Carraro 2010). What is imagined hardly moves a mean; it
makes the posterior surer, as far as a trial of so many validation images would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.curves import Curve, forecast
from vlmsel_auto.planning.history import observe
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.planning.tried import History, Tried
from vlmsel_auto.records import TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A trial that was begun."""

    number: int
    trial: NextTrial
    curve: Curve | None = None  # so far, on the level of all images (`history.level_folds`); None: no epoch ended yet


def imagine(plan: Plan, history: History, running: Sequence[Running]) -> list[Tried]:
    """The history with what running trials are expected to come to; without any, the history as it is.

    Args:
        plan: the plan.
        history: finished trials, levelled.
        running: in the order in which they were begun.
    """
    if not running:
        return list(history)
    mean, seconds = observe(plan, history).mean, trial_seconds(plan, history)
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
