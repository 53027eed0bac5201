"""What could come next: new trials, paused ones, and settings on another part, with what they promise and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlmsel_auto.planning.cost import budget_share, trial_seconds
from vlmsel_auto.planning.curves import Forecast
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
    fits: float = 1.0  # share of the trial, or of what is left of a paused one, that there is time for
    paused: Tried | None = None  # the trial that would go on
    again: Tried | None = None  # the trial whose settings would be scored on another part

    def is_enough(self, policy: Policy) -> bool:
        """Whether the gain is worth the seconds.

        A new trial must promise the least gain too: choosing among more trials on the same images is choosing worse.
        """
        least = policy.bar(self.seconds) - (policy.least_gain if self.again is not None else 0.0)
        return self.gain >= least


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """What the trials so far say, asked for once."""

    now: Posterior
    expected: Mapping[int, float]  # of complete trials, by number
    ends: Mapping[Arm, Forecast]
    seconds: Mapping[Arm, float]  # of one more whole trial
    left: Left

    @property
    def best(self) -> float:
        """What the leader is expected to reach, less what the objective takes off."""
        return max(self.expected.values(), default=-1.0)


def prospects(plan: Plan, history: History, *, names: Sequence[str], now: Posterior, left: Left) -> list[Prospect]:
    """New trials of every candidate and method, the paused trials, and leading towers on further parts.

    Args:
        plan: the plan.
        history: finished trials, levelled (`parts.level_folds`).
        names: candidates to consider.
        now: the belief after these trials.
        left: of the budget.
    """
    known = _Known(
        now=now, expected=expectations(plan, history, now=now), ends=known_ends(plan, history),
        seconds=trial_seconds(plan, history), left=left,
    )  # fmt: skip
    new = _new(plan, history, known, names=names)
    return [*new.values(), *_continued(plan, history, known, new), *_again(plan, history, known, new)]


def _new(plan: Plan, history: History, known: _Known, *, names: Sequence[str]) -> dict[Arm, Prospect]:
    policy, now, left, seconds = plan.policy, known.now, known.left, known.seconds
    index = {name: m for m, name in enumerate(plan.belief.candidates)}
    settings = by_settings(history)
    found: dict[Arm, Prospect] = {}
    for name in names:
        for j, method in enumerate(plan.methods):
            key = name, method.name
            tries = sum((trial.candidate, trial.method) == key for trial in settings)
            if tries and not method.settings:
                continue  # it would be the same trial again
            mean, sd = float(now.mean[index[name], j]), float(now.sd[index[name], j])
            reached = mean if key in known.ends else None
            gain = acquisition(
                mean, sd, best=known.best + plan.charge(name), reached=reached, tries=tries, policy=policy
            )
            fits = _fits(seconds[key], left=left)
            if fits < policy.too_short:
                gain *= policy.hopeless
            cost = budget_share(seconds[key], left=left)
            found[key] = Prospect(
                candidate=name, method=method, tries=tries, gain=gain, cost=cost, seconds=fits * seconds[key], fits=fits
            )
    return found


def _continued(plan: Plan, history: History, known: _Known, new: Mapping[Arm, Prospect]) -> list[Prospect]:
    policy, others, now, seconds = plan.policy, whole_curves(history), known.now, known.seconds
    found = []
    for trial in paused(history):
        key = trial.candidate, trial.method
        end = expected_end(trial, whole=others, policy=policy)
        if key in new and trial.curve is not None and end is not None:
            rest = 1 - len(trial.curve.values) / trial.curve.epochs
            # as much above or below what was measured as the arm is
            believed = float(now.mean[plan.belief.candidates.index(trial.candidate), plan.column(trial.method)])
            mean, bar = end.mean + believed - known.ends[key].mean, known.best + plan.charge(trial.candidate)
            gain = acquisition(mean, end.sd, best=bar, reached=None, tries=0, policy=policy)
            needed = rest * seconds[key]
            fits = _fits(needed, left=known.left)
            if fits < policy.too_short:
                gain *= policy.hopeless
            cost = budget_share(needed, left=known.left)
            found.append(replace(new[key], gain=gain, cost=cost, seconds=fits * needed, fits=fits, paused=trial))
    return found


def _fits(seconds: float, *, left: Left) -> float:
    """The share of so many seconds that there is time for."""
    return 1.0 if left.seconds is None else min(1.0, left.seconds / max(seconds, 1e-9))


def _again(plan: Plan, history: History, known: _Known, new: Mapping[Arm, Prospect]) -> list[Prospect]:
    """Each arm's best settings on further parts, where there is time for as many epochs.

    One part of few images changes no mind, several may: gain and cost are those of as many parts as tell most for
    their time (the KG(*) of Frazier and Powell 2010), though each is decided anew.
    """
    expected, now = known.expected, known.now
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
