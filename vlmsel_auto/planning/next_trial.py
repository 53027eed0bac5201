"""The trial that promises most per cost, or that none promises enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vlmsel_auto.planning.actions import Action, Actions
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.space import DEFAULT, Point
from vlmsel_auto.planning.trials import History, Left
from vlmsel_auto.records import TrialOrigin, TrialState

_TOWERS_LEFT: Final = 3  # at most one trial in so many is the first of a head, when trials are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class NextTrial:
    """A trial to be run. ``point`` None: the sampler of the study chooses the settings."""

    candidate: str
    method: str
    point: Point | None
    origin: TrialOrigin
    why: str
    continues: int | None = None  # number of the interrupted trial that goes on
    fold: int = 0  # that a tower is scored on


def next_trial(plan: Plan, history: History, *, left: Left, unavailable: Sequence[str] = ()) -> NextTrial | None:
    """The trial that should come next, or None when none promises enough for its time.

    First the zero-shot baseline, once, also when nothing of the budget is left; then the head of every active
    candidate, by predicted rank; then whatever has the largest gain for its share of the remaining budget (`actions`).
    Where nothing of the active candidates is worth its price, the postponed ones are considered too. Deterministic in
    the plan's seed and the history.

    Args:
        plan: from `make_plan`.
        history: finished trials in order; those that run as `running_trials.imagine` has them.
        left: what is left of the budget.
        unavailable: candidates that cannot be used, such as those whose weights are missing.
    """
    usable = [name for name in plan.order if name not in set(unavailable)]
    baseline = _zero_shot(plan, history, usable=usable)
    if left.spent:
        return baseline if baseline is not None and may_be_late(plan, history, baseline) else None
    if baseline is not None or not usable or not plan.methods:
        return baseline
    head = _screening(plan, history, usable=usable, left=left)
    if head is not None:
        return head
    actions = Actions(plan, history, left=left)
    tried = {trial.candidate for trial in history}
    for names in ([name for name in usable if name in plan.active or name in tried], usable):
        worth = [each for each in actions.of(names) if each.gain > plan.policy.price * each.seconds / 60]
        if worth and not actions.measured:  # there is no model yet: in the plan's own order
            fresh = [each for each in worth if each.origin is TrialOrigin.PLANNED]
            return _trial(plan, history, min(fresh or worth, key=lambda each: plan.rank(each.candidate)))
        if worth:
            power = plan.policy.cost_power
            best = max(worth, key=lambda each: (each.gain / each.cost**power, -plan.rank(each.candidate)))
            return _trial(plan, history, best)
    return None


def _trial(plan: Plan, history: History, action: Action) -> NextTrial:
    """The chosen trial; folds in turn, so that towers together are scored on all of them."""
    towers = {each.name for each in plan.methods if each.trains is Trains.TOWER}
    turn = sum(trial.method in towers for trial in history) % plan.folds
    return NextTrial(
        candidate=action.candidate,
        method=action.method.name,
        point=action.point,
        origin=action.origin,
        why=action.why,
        fold=turn if action.fold is None else action.fold,
    )


def _zero_shot(plan: Plan, history: History, *, usable: Sequence[str]) -> NextTrial | None:
    """The first candidate without any training, until one was measured: from then on there is a model to export."""
    if plan.zero_shot is None or any(trial.state is TrialState.COMPLETE for trial in history):
        return None
    tried = {trial.candidate for trial in history if trial.method == plan.zero_shot.name} | plan.nameless
    open_ = [name for name in usable if name not in tried]
    if not open_:
        return None
    return NextTrial(candidate=open_[0], method=plan.zero_shot.name, point=DEFAULT, origin=TrialOrigin.ZERO_SHOT,
                     why="zero-shot baseline: nothing is trained")  # fmt: skip


def may_be_late(plan: Plan, history: History, baseline: NextTrial) -> bool:
    """Whether the baseline comes although nothing of the budget is left: once, and if its candidate is soon loaded."""
    tried = any(trial.method == baseline.method for trial in history)
    return not tried and plan.loading.get(baseline.candidate, 0.0) < plan.policy.late_model


def _screening(plan: Plan, history: History, *, usable: Sequence[str], left: Left) -> NextTrial | None:
    """One trial of the first head for each active candidate: cheap, and it shows how fast the candidate is."""
    head = next((each.name for each in plan.methods if each.trains is Trains.HEAD), None)
    if head is None:
        return None
    zero_shot = None if plan.zero_shot is None else plan.zero_shot.name
    screened = {trial.candidate for trial in history if trial.method == head}
    open_ = [name for name in plan.active if name in usable and name not in screened]
    paid = sum(trial.seconds for trial in history if trial.method in {head, zero_shot})
    allowed = len(plan.active)
    if any(each.trains is Trains.TOWER for each in plan.methods):
        if left.work is not None and paid > 0 and screened:
            whole = left.work + sum(trial.seconds for trial in history)
            allowed = min(allowed, max(1, int(plan.policy.screening * whole * len(screened) / paid)))
        if left.trials is not None:
            counted = sum(trial.method != zero_shot for trial in history)
            allowed = min(allowed, max(1, (left.trials + counted) // _TOWERS_LEFT))
    if not open_ or len(screened) >= allowed:
        return None
    return NextTrial(candidate=open_[0], method=head, point=DEFAULT, origin=TrialOrigin.PLANNED,
                     why=f"predicted rank {plan.rank(open_[0])}")  # fmt: skip
