"""What could come next, and the one rule that says what each is worth.

    gain = choice + mean

*Choice* is by how much the model that is chosen is expected to become better: the knowledge gradient of a candidate or
of other settings against the leader, given the number of images that tell them apart; of other settings what is above
the least gain, for choosing among more trials on the same images is choosing worse. *Mean* is what the mean of
several fits is better than its parts: G (1/k - 1/(k + 1)) for the (k + 1)-th, G being that of candidates or that of
fits of one candidate, less what a new member is worse by. Heads count as one member. The form is our own choice:
variances of means fall by 1/k. With few labels images tell little apart, so the mean is worth more; with thousands it
is the other way round. Whatever has the largest gain for its share of the budget comes next, and nothing comes whose
gain is below its price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.planning.cost import budget_share, in_time, length, trial_seconds
from vlmsel_auto.planning.folds import folds_of
from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.space import DEFAULT, EPOCHS_FACTOR, Point, moved
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trial_posterior import acquisition, worth_of_measuring
from vlmsel_auto.planning.trials import History, Left, Tried
from vlmsel_auto.records import TrialOrigin, TrialState

_STARTUP = 10  # trials of a method before every second setting is the sampler's


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A trial that could be next."""

    candidate: str
    method: Method
    point: Point | None  # None: the study's sampler chooses
    origin: TrialOrigin
    why: str
    gain: float  # of the metric
    seconds: float  # that it would take
    cost: float  # share of what is left of the budget
    fold: int | None = None  # that it must leave out; None: whose turn it is


class Actions:
    """All that could come next after some trials, for some candidates."""

    def __init__(self, plan: Plan, history: History, *, left: Left) -> None:
        self._plan, self._history, self._left = plan, history, left
        self._evidence = TrialEvidence(plan, history)
        self._expected = self._evidence.expectations()
        self._seconds = trial_seconds(plan, history)
        self._best = max(self._expected.values(), default=-1.0)  # less what the objective takes off
        self._error = self._evidence.error(folds=plan.folds)
        towers = {each.name for each in plan.methods if each.trains is Trains.TOWER}
        self._towers = {
            candidate: self._mean(candidate, method) for candidate, method in self._evidence.ends if method in towers
        }  # candidates that have a tuned tower, and what is believed of it

    def of(self, names: Sequence[str]) -> list[Action]:
        """Every trial of these candidates that there is time for."""
        found = []
        for name in names:
            for method in self._plan.methods:
                found += [*self._first(name, method), *self._further(name, method), *self._other(name, method)]
        return [each for each in found if each.seconds > 0]

    def _mean(self, name: str, method: str) -> float:
        row = self._plan.belief.candidates.index(name)
        return float(self._evidence.posterior.mean[row, self._plan.column(method)]) - self._plan.charge(name)

    def _sd(self, name: str, method: str) -> float:
        return float(self._evidence.posterior.sd[self._plan.belief.candidates.index(name), self._plan.column(method)])

    def _trials(self, name: str, method: Method) -> list[Tried]:
        return [trial for trial in self._evidence.trials if (trial.candidate, trial.method) == (name, method.name)]

    def _action(
        self, name: str, method: Method, point: Point | None, *, gain: float, origin: TrialOrigin, why: str
    ) -> Action:
        """With the epochs that there is time for; 0 seconds where not even a short schedule would end."""
        at = DEFAULT if point is None else point
        whole = self._seconds[name, method.name] * (length(at) if method.trains is Trains.TOWER else 1)
        shorter, share = in_time(at, whole, left=self._left)
        if method.trains is not Trains.TOWER:
            share = 1.0 if self._best <= 0 or share == 1.0 else 0.0
        elif self._best > 0 and (length(at) * share < 1 / EPOCHS_FACTOR or (share < 1.0 and self._towers)):
            share = 0.0  # a short schedule is better than no tower, and no better than that
        return Action(
            candidate=name, method=method, point=None if point is None else shorter, origin=origin, why=why,
            gain=share * gain, seconds=share * whole, cost=budget_share(whole, left=self._left),
        )  # fmt: skip

    def _first(self, name: str, method: Method) -> list[Action]:
        if self._trials(name, method):
            return []
        mean, sd = self._mean(name, method.name), self._sd(name, method.name)
        choice = acquisition(mean, sd, best=self._best, reached=None, tries=0, error=self._error)
        gain = choice + (self._of_member(mean) if method.trains is Trains.TOWER else 0.0)
        why = f"predicted rank {self._plan.rank(name)}"
        return [self._action(name, method, DEFAULT, gain=gain, origin=TrialOrigin.PLANNED, why=why)]

    def _of_member(self, mean: float) -> float:
        """What the pool gains by one more tuned candidate."""
        count = len(self._towers)
        if count >= self._plan.members or self._plan.members < 2:  # noqa: PLR2004 - one is no pool
            return 0.0
        worse = float(np.mean(list(self._towers.values()))) - mean if self._towers else 0.0
        averaged = self._plan.policy.member_gain * (1 / (count + 1) - 1 / (count + 2))
        return max(0.0, averaged - max(0.0, worse) / (count + 2))

    def _further(self, name: str, method: Method) -> list[Action]:
        """One more fit of the leading settings, which leaves out another fold."""
        plan, expected = self._plan, self._expected
        mine = [each for each in self._trials(name, method) if each.number in expected]
        if method.trains is not Trains.TOWER or not mine:
            return []
        lead = max(mine, key=lambda each: expected[each.number])
        scored = folds_of(self._history, name, method.name, lead.point)  # none where the user's own images decide
        rest = plan.folds - len(scored)
        if not scored or not rest:
            return []
        rivals = [value for number, value in expected.items() if number != lead.number]
        error = self._evidence.error(folds=rest)
        choice = 0.0
        if rivals:
            sd = self._sd(name, method.name)
            choice = worth_of_measuring(expected[lead.number], sd, other=max(rivals), error=error) / rest
        averaged = plan.policy.fit_gain * (1 / len(scored) - 1 / (len(scored) + 1))
        if rivals and expected[lead.number] < max(rivals):  # it is one of several, or of no use
            leaders = sorted(self._towers, key=lambda each: -self._towers[each])[: plan.members]
            averaged = averaged / (len(leaders) + 1) if name in leaders and plan.members > 1 else 0.0
        made = self._action(name, method, lead.point, gain=choice + averaged, origin=TrialOrigin.SAMPLED,
                            why=f"settings of trial {lead.number} on another fold")  # fmt: skip
        if made.point != lead.point:  # there is no time for as many epochs: they would be other settings
            return []
        return [replace(made, fold=next(fold for fold in range(plan.folds) if fold not in scored))]

    def _other(self, name: str, method: Method) -> list[Action]:
        """Other settings."""
        trials = self._trials(name, method)
        if not trials or not method.settings:
            return []
        mean, sd = self._mean(name, method.name), self._sd(name, method.name)
        reached = mean if (name, method.name) in self._evidence.ends else None
        choice = acquisition(mean, sd, best=self._best, reached=reached, tries=len(trials), error=self._error)
        above = max(0.0, choice - self._plan.policy.least_gain)
        point = self._near_best(trials, method)
        why = "sampled" if point is None else "near the best point"
        return [self._action(name, method, point, gain=above, origin=TrialOrigin.SAMPLED, why=why)]

    def _near_best(self, trials: Sequence[Tried], method: Method) -> Point | None:
        """A point near the arm's best; None: it is the turn of the study's own sampler."""
        measured = [each for each in trials if each.validation is not None]
        of_method = sum(each.method == method.name for each in self._evidence.trials)
        if not measured or (of_method > _STARTUP and len(trials) % 2):
            return None
        best = max(measured, key=lambda each: each.validation or 0.0)
        rng = np.random.default_rng([self._plan.seed, len(self._history)])
        moves = rng.normal(0.0, self._plan.policy.step, len(method.settings))
        return moved(best.point, dict(zip(method.settings, moves.tolist(), strict=True)))

    @property
    def measured(self) -> bool:
        """Whether there is a model yet."""
        return any(each.state is TrialState.COMPLETE and (each.validation or 0.0) > 0 for each in self._history)
