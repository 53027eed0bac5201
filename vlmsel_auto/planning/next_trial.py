"""The trial that promises most per cost, or that none promises enough."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.planning.audits import due_audit
from vlmsel_auto.planning.history import best_value, observe, stalled
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.parts import parts_of
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.posterior import Posterior
from vlmsel_auto.planning.prospects import Prospect, prospects
from vlmsel_auto.planning.space import DEFAULT, Point, moved, shorter
from vlmsel_auto.planning.tried import History, Left, Tried
from vlmsel_auto.records import TrialOrigin, TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class NextTrial:
    """A trial to be run. ``point`` None: the sampler of the study chooses the settings."""

    candidate: str
    method: str
    point: Point | None
    origin: TrialOrigin
    why: str
    continues: int | None = None  # number of the paused trial that goes on
    fold: int = 0  # part of the labelled images that a tower is scored on


def next_trial(plan: Plan, history: History, *, left: Left, unavailable: Sequence[str] = ()) -> NextTrial | None:
    """The trial that should come next, or None when none promises enough for its time.

    First the floor, once, also when nothing of the budget is left; then one trial of a head for every active candidate,
    by predicted rank; then the arm (candidate, method) with the largest expected improvement per share of the remaining
    budget, at its default first, then at points near the best; audits between. Deterministic in the plan's seed and the
    history.

    Args:
        plan: from `make_plan`.
        history: finished trials in order; those that run as `running.imagine` has them.
        left: what is left of the budget.
        unavailable: candidates that cannot be used, such as those whose weights are missing.
    """
    usable = [line.candidate for line in plan.lines if line.candidate not in set(unavailable)]
    floor = _floor(plan, history, usable=usable)
    if left.spent:
        return floor if floor is not None and may_be_late(plan, history, floor) else None
    if floor is not None or not usable or not plan.methods:
        return floor
    gone = [_failed(name, method.name) for name in unavailable for method in plan.methods]
    early = _screening(plan, [*history, *gone], left=left) or _audit(plan, [*history, *gone], left=left)
    chosen = early or _promising(plan, history, left=left, usable=usable)
    return None if chosen is None else replace(chosen, fold=_fold(plan, history, chosen))


def _fold(plan: Plan, history: History, chosen: NextTrial) -> int:
    """In turn, so that the leaders' towers together are scored on all labelled images.

    A paused trial keeps its own, and settings that were tried get one that they were not scored on.
    """
    if chosen.continues is not None:
        return next((trial.fold or 0 for trial in history if trial.number == chosen.continues), 0)
    scored = set() if chosen.point is None else parts_of(history, chosen.candidate, chosen.method, chosen.point)
    if scored:
        return next((part for part in range(plan.folds) if part not in scored), 0)
    towers = {each.name for each in plan.methods if each.trains is Trains.TOWER}
    return sum(trial.method in towers and trial.continues is None for trial in history) % plan.folds


def _failed(name: str, method: str) -> Tried:
    return Tried(candidate=name, method=method, origin=TrialOrigin.PLANNED, state=TrialState.FAILED, validation=None,
                 seconds=0.0, point=DEFAULT, number=-1)  # fmt: skip


def _floor(plan: Plan, history: History, *, usable: Sequence[str]) -> NextTrial | None:
    """The first candidate without any training, until one was measured: from then on there is a model to export."""
    if plan.floor is None or any(trial.state is TrialState.COMPLETE for trial in history):
        return None
    tried = {trial.candidate for trial in history if trial.method == plan.floor.name}
    open_ = [name for name in usable if name not in tried]
    if not open_:
        return None
    return NextTrial(candidate=open_[0], method=plan.floor.name, point=DEFAULT, origin=TrialOrigin.FLOOR,
                     why="the floor: nothing is trained")  # fmt: skip


def may_be_late(plan: Plan, history: History, floor: NextTrial) -> bool:
    """Whether a floor comes although nothing of the budget is left: once, and if its candidate is soon loaded."""
    tried = any(trial.method == floor.method for trial in history)
    return not tried and plan.loading.get(floor.candidate, 0.0) < plan.policy.late_model


def _screening(plan: Plan, history: History, *, left: Left) -> NextTrial | None:
    """One trial of the first head for each active candidate: cheap, and it shows how fast the candidate is."""
    head = next((each.name for each in plan.methods if each.trains is Trains.HEAD), None)
    if head is None:
        return None
    floor = None if plan.floor is None else plan.floor.name
    screened = {trial.candidate for trial in history if trial.method == head}
    paid = sum(trial.seconds for trial in history if trial.method in {head, floor})
    done = sum(trial.method == head for trial in history)
    allowed = len(plan.active)
    if any(each.trains is Trains.TOWER for each in plan.methods):
        if left.work is not None and paid > 0 and done:
            whole = left.work + sum(trial.seconds for trial in history)
            allowed = min(allowed, max(1, int(plan.policy.screening_time * whole * done / paid)))
        if left.trials is not None:
            counted = sum(trial.method != floor for trial in history)
            allowed = min(allowed, max(1, (left.trials + counted) // plan.policy.screening_share))
    for line in plan.lines:
        if done < allowed and not line.postponed and line.candidate not in screened:
            return NextTrial(candidate=line.candidate, method=head, point=plan.first(line.candidate, head),
                             origin=TrialOrigin.PLANNED, why=f"predicted rank {line.rank}")  # fmt: skip
    return None


def _audit(plan: Plan, history: History, *, left: Left) -> NextTrial | None:
    candidate = due_audit(plan, history, left=left)
    if candidate is None:
        return None
    method = plan.methods[-1].name
    return NextTrial(candidate=candidate, method=method, point=plan.first(candidate, method), origin=TrialOrigin.AUDIT,
                     why="audit: postponed, tuned to measure what postponing costs")  # fmt: skip


def still_postponed(plan: Plan, history: History, *, now: Posterior | None = None) -> tuple[str, ...]:
    """Candidates that are still postponed after these trials, by predicted rank.

    A postponed candidate returns when its upper bound beats the leader's lower bound, or when the leaders stalled.
    """
    waiting = [line.candidate for line in plan.lines if line.postponed]
    names = {each.name for each in plan.methods}
    tried = [trial for trial in history if trial.origin is not TrialOrigin.AUDIT and trial.method in names]
    seen = {trial.candidate for trial in tried if trial.state is TrialState.COMPLETE}
    failed = {trial.candidate for trial in tried if trial.state is TrialState.FAILED}
    if not waiting or not seen | failed:
        return tuple(waiting)
    now = observe(plan, history) if now is None else now
    off = np.array([plan.charge(name) for name in plan.belief.candidates])
    mean, sd = now.mean[:, -1] - off, now.sd[:, -1]
    index = {name: m for m, name in enumerate(plan.belief.candidates)}
    leader = max((index[name] for name in plan.active), key=lambda m: float(mean[m]))
    compared = all(name in seen | failed for name in plan.active)  # before that the bounds mean nothing
    bound = plan.policy.bound
    lowest = float(mean[leader] - bound * sd[leader])
    back = {
        name
        for name in waiting
        if name in seen or (compared and float(mean[index[name]] + bound * sd[index[name]]) > lowest)
    }
    returns = (stalled(plan, history) // plan.policy.patience) if compared else 0
    rest = sorted((name for name in waiting if name not in back), key=lambda name: -float(mean[index[name]]))
    back.update(rest[:returns])
    return tuple(name for name in waiting if name not in back)


def _promising(plan: Plan, history: History, *, left: Left, usable: Sequence[str]) -> NextTrial | None:
    """The arm with the largest expected improvement per cost, or None when nothing is worth a trial."""
    policy = plan.policy
    now = observe(plan, history)
    waiting = set(still_postponed(plan, history, now=now))
    names = [name for name in usable if name not in waiting] or list(usable)
    arms = prospects(plan, history, names=names, now=now, left=left)
    arms = arms or prospects(plan, history, names=usable, now=now, left=left)
    since, measured = stalled(plan, history), best_value(history) > 0
    if measured:  # there is a model: none is begun in vain
        timed = {trial.method for trial in history if trial.state is TrialState.COMPLETE}
        arms = [arm for arm in arms if arm.fits >= policy.in_vain or not _is_timed_tower(arm, timed)]
    if since < policy.patience:  # there is news: what leads so far is told apart later
        arms = [arm for arm in arms if arm.again is None]
    fresh = [arm for arm in arms if not arm.tries]
    last = sum(t.state is TrialState.COMPLETE and t.method == plan.methods[-1].name for t in history)
    known = since >= policy.patience and last >= min(policy.fewest_tuned, len(usable))
    enough = [arm for arm in arms if arm.is_enough(policy)]
    given_up = not fresh and len(names) == len(usable)
    if not arms or ((known and not enough) if measured else given_up):
        return None
    if known and measured and all(arm.again is not None for arm in enough):  # what is there can be told apart better
        arm = max(enough, key=lambda each: each.gain / each.cost)
    elif fresh and since >= policy.patience and len(history) % 2 == 0:
        # the leaders have nothing new: every second trial goes to who was not tried, whatever the ranking promised
        arm = max(fresh, key=lambda each: (_worth_of(plan, now, each), -plan.order.index(each.candidate)))
    elif not measured and fresh:  # the plan's own order
        arm = min(fresh, key=lambda each: plan.order.index(each.candidate))
    else:
        arm = max(arms, key=lambda each: (each.gain / each.cost, -each.tries, -plan.order.index(each.candidate)))
    return _trial_of(plan, history, arm)


def _trial_of(plan: Plan, history: History, arm: Prospect) -> NextTrial:
    """The next trial of the chosen arm: its first, the paused one, or one at another point."""
    name, method = arm.candidate, arm.method
    if not arm.tries:
        line = next(each for each in plan.lines if each.candidate == name)
        why = f"predicted rank {line.rank}" + (", returned" if line.postponed else "")
        point = _in_time(plan.first(name, method.name), arm)
        return NextTrial(candidate=name, method=method.name, point=point, origin=TrialOrigin.PLANNED, why=why)
    if arm.paused is not None and arm.paused.curve is not None:
        done, planned = len(arm.paused.curve.values), arm.paused.curve.epochs
        why = f"goes on with trial {arm.paused.number} after epoch {done} of {planned}"
        return NextTrial(candidate=name, method=method.name, point=arm.paused.point, origin=arm.paused.origin, why=why,
                         continues=arm.paused.number)  # fmt: skip
    if arm.again is not None:
        return NextTrial(candidate=name, method=method.name, point=arm.again.point, origin=TrialOrigin.SAMPLED,
                         why=f"settings of trial {arm.again.number} on another part")  # fmt: skip
    near = _near_best(plan, history, arm)
    return NextTrial(
        candidate=name,
        method=method.name,
        point=None if near is None else _in_time(near, arm),
        origin=TrialOrigin.SAMPLED,
        why="sampled" if near is None else "near the best point",
    )


def _in_time(point: Point, arm: Prospect) -> Point:
    """Fewer epochs when the time left is too short for as many: a short schedule that ends beats half of a long one."""
    return shorter(point, arm.fits) if arm.method.trains is Trains.TOWER and arm.fits < 1 else point


def _is_timed_tower(arm: Prospect, timed: Collection[str]) -> bool:
    return arm.method.trains is Trains.TOWER and arm.method.name in timed


def _worth_of(plan: Plan, now: Posterior, arm: Prospect) -> float:
    mean = now.mean[plan.belief.candidates.index(arm.candidate), plan.column(arm.method.name)]
    return float(mean) - plan.charge(arm.candidate)


def _near_best(plan: Plan, history: History, arm: Prospect) -> Point | None:
    """A point near the arm's best; None: it is the turn of the study's own sampler."""
    same = [trial for trial in history if trial.method == arm.method.name]
    mine = [trial for trial in same if trial.candidate == arm.candidate and trial.validation is not None]
    if not mine or (len(same) > 2 * plan.policy.patience and arm.tries % 2):
        return None
    best = max(mine, key=lambda trial: trial.validation or 0.0)
    settings = arm.method.settings
    moves = np.random.default_rng([plan.seed, len(history)]).normal(0.0, plan.policy.step, len(settings))
    return moved(best.point, dict(zip(settings, moves.tolist(), strict=True)))
