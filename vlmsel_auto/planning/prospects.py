"""What could come next: new trials, paused ones, and settings on another part, with what they promise and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlmsel_auto.planning.cost import budget_share, trial_seconds
from vlmsel_auto.planning.history import (
    error_of,
    expectations,
    expected_end,
    known_ends,
    paused,
    whole_curves,
)
from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.parts import by_settings, parts_of
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.policy import Policy
from vlmsel_auto.planning.posterior import Posterior, acquisition, worth_of_measuring
from vlmsel_auto.planning.tried import Arm, History, Left, Tried


@dataclass(frozen=True, kw_only=True, slots=True)
class Prospect:
    """A trial that could be next."""

    candidate: str
    method: Method
    tries: int  # settings of the arm that were tried
    gain: float  # expected improvement
    cost: float  # share of what is left
    seconds: float
    fits: float = 1.0  # share of a whole trial that there is time for
    paused: Tried | None = None  # the trial that would go on
    again: Tried | None = None  # the trial whose settings would be scored on another part

    def is_enough(self, policy: Policy) -> bool:
        """Whether the gain is worth the seconds.

        A new trial must promise the least gain too: choosing among more trials on the same images is choosing worse.
        """
        least = policy.bar(self.seconds) - (policy.least_gain if self.again is not None else 0.0)
        return self.gain >= least


def prospects(plan: Plan, history: History, *, names: Sequence[str], now: Posterior, left: Left) -> list[Prospect]:
    """New trials of every candidate and method, the paused trials, and leading towers on further parts.

    Args:
        plan: the plan.
        history: finished trials, levelled (`parts.level_folds`).
        names: candidates to consider.
        now: the belief after these trials.
        left: of the budget.
    """
    new = _new(plan, history, names=names, now=now, left=left)
    return [*new.values(), *_continued(plan, history, new, now=now, left=left), *_again(plan, history, new, now=now)]


def _new(plan: Plan, history: History, *, names: Sequence[str], now: Posterior, left: Left) -> dict[Arm, Prospect]:
    policy = plan.policy
    index = {name: m for m, name in enumerate(plan.belief.candidates)}
    best = _best(plan, history, now=now)
    ends, settings, seconds = known_ends(plan, history), by_settings(history), trial_seconds(plan, history)
    found: dict[Arm, Prospect] = {}
    for name in names:
        for j, method in enumerate(plan.methods):
            key = name, method.name
            tries = sum((trial.candidate, trial.method) == key for trial in settings)
            if tries and not method.settings:
                continue  # it would be the same trial again
            mean, sd = float(now.mean[index[name], j]), float(now.sd[index[name], j])
            reached = mean if key in ends else None
            gain = acquisition(mean, sd, best=best + plan.charge(name), reached=reached, tries=tries, policy=policy)
            fits = 1.0 if left.seconds is None else min(1.0, left.seconds / max(seconds[key], 1e-9))
            if fits < policy.too_short:
                gain *= policy.hopeless
            cost = budget_share(seconds[key], left=left)
            found[key] = Prospect(
                candidate=name, method=method, tries=tries, gain=gain, cost=cost, seconds=fits * seconds[key], fits=fits
            )
    return found


def _best(plan: Plan, history: History, *, now: Posterior) -> float:
    """What the leader is expected to reach, less what the objective takes off."""
    return max(expectations(plan, history, now=now).values(), default=-1.0)


def _continued(
    plan: Plan, history: History, new: Mapping[Arm, Prospect], *, now: Posterior, left: Left
) -> list[Prospect]:
    policy, others, ends = plan.policy, whole_curves(history), known_ends(plan, history)
    best, seconds = _best(plan, history, now=now), trial_seconds(plan, history)
    found = []
    for trial in paused(history):
        key = trial.candidate, trial.method
        end = expected_end(trial, whole=others, policy=policy)
        if key in new and trial.curve is not None and end is not None:
            rest = 1 - len(trial.curve.values) / trial.curve.epochs
            # as much above or below what was measured as the arm is
            believed = float(now.mean[plan.belief.candidates.index(trial.candidate), plan.column(trial.method)])
            mean, bar = end.mean + believed - ends[key].mean, best + plan.charge(trial.candidate)
            gain = acquisition(mean, end.sd, best=bar, reached=None, tries=0, policy=policy)
            cost = budget_share(rest * seconds[key], left=left)
            found.append(replace(new[key], gain=gain, cost=cost, seconds=rest * seconds[key], fits=1.0, paused=trial))
    return found


def _again(plan: Plan, history: History, new: Mapping[Arm, Prospect], *, now: Posterior) -> list[Prospect]:
    """Each arm's best settings on further parts, where there is time for as many epochs.

    One part of few images changes no mind, several may: gain and cost are those of as many parts as tell most for
    their time (the KG(*) of Frazier and Powell 2010), though each is decided anew.
    """
    expected = expectations(plan, history, now=now)
    top: dict[Arm, Tried] = {}
    for trial in sorted((each for each in history if each.number in expected), key=lambda one: -expected[one.number]):
        top.setdefault((trial.candidate, trial.method), trial)
    found = []
    for (name, method), trial in top.items():
        prospect = new.get((name, method))
        rivals = [expected[other.number] for arm, other in top.items() if arm != (name, method)]
        if prospect is None or prospect.method.trains is not Trains.TOWER or prospect.fits < 1 or not rivals:
            continue
        scored = parts_of(history, name, method, trial.point)  # none where the user's own validation images decide
        open_ = plan.folds - len(scored) if scored else 0
        mean, sd = expected[trial.number], float(now.sd[plan.belief.candidates.index(name), plan.column(method)])
        noise = error_of(plan, history, trial, images=trial.images or plan.validation_images or 1)
        worth = [
            (parts, worth_of_measuring(mean, sd, other=max(rivals), noise=noise / math.sqrt(parts)))
            for parts in range(1, open_ + 1)
        ]
        if worth:
            parts, gain = max(worth, key=lambda each: each[1] / each[0])
            gain, cost, seconds = plan.policy.measuring * gain, parts * prospect.cost, parts * prospect.seconds
            found.append(replace(prospect, gain=gain, cost=cost, seconds=seconds, again=trial))
    return found
