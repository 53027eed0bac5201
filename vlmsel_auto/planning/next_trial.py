"""After every trial the one that promises most per cost, pure: nothing here trains, reads or writes.

When a postponed candidate returns: its upper bound beats the leader's lower bound, or the leaders have stalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmsel_auto.planning.cost import price, seconds_of
from vlmsel_auto.planning.history import (
    MIN_GAIN,
    History,
    Left,
    Tried,
    best_value,
    expectations,
    expected_end,
    known_ends,
    observe,
    paused,
    stalled,
    whole_curves,
)
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.posterior import Posterior, promise
from vlmsel_auto.planning.space import Point
from vlmsel_auto.records import Method, TrialOrigin

__all__ = ["PATIENCE", "Step", "next_step", "postponed_now"]

_BOUND = 1.64  # standard deviations of the bounds
PATIENCE = 5  # trials without a better result after which the leaders count as stalled


def postponed_now(plan: Plan, history: History, *, now: Posterior | None = None) -> tuple[str, ...]:
    """Candidates that are still postponed after these trials, by predicted rank."""
    waiting = [line.candidate for line in plan.lines if line.postponed]
    tuned = [trial for trial in history if trial.state == "complete" and trial.origin != "audit"]
    if not waiting or not tuned:
        return tuple(waiting)
    now = observe(plan, history) if now is None else now
    last = now.mean.shape[1] - 1
    mean, sd = now.mean[:, last], now.sd[:, last]
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    leader = max((index[name] for name in plan.active), key=lambda m: float(mean[m]))
    seen = {trial.candidate for trial in tuned}
    # the bounds mean something once every active candidate has been seen
    compared = all(name in seen for name in plan.active)
    floor = float(mean[leader] - _BOUND * sd[leader])
    back = {
        name
        for name in waiting
        if name in seen or (compared and float(mean[index[name]] + _BOUND * sd[index[name]]) > floor)
    }
    returns = (stalled(history) // PATIENCE) if compared else 0
    rest = sorted((name for name in waiting if name not in back), key=lambda name: -float(mean[index[name]]))
    back.update(rest[:returns])
    return tuple(name for name in waiting if name not in back)


_EXHAUSTED = 16  # likewise, after which a search without news ends
_STALLED_PERFECT = 8  # likewise, when every validation image is right
_STEP = 0.17  # of a local move, in the unit cube
_TOO_SHORT = 0.25  # there must be time for this share of a whole trial
_HOPELESS = 0.01  # what is left of an arm's promise otherwise
_PROBE_SHARE = 3  # at most one trial in so many goes to the first probes, when trials are counted
_PROBE_TIME = 0.25  # at most this share of the time, when that is limited


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The next trial. ``point`` None: the sampler of the study chooses the hyperparameters."""

    candidate: str
    method: Method
    point: Point | None
    origin: TrialOrigin
    why: str
    continues: int | None = None  # number of the paused trial that it takes up


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arm:
    candidate: str
    method: Method
    tries: int
    gain: float  # expected improvement
    cost: float  # share of what is left
    fits: float = 1.0  # share of a whole trial that there is time for
    paused: Tried | None = None  # the trial that would go on


def next_step(plan: Plan, history: History, *, left: Left, unavailable: Sequence[str] = ()) -> Step | None:
    """The trial that should come next, or None when nothing promising is left.

    First one probe of every active candidate, by predicted rank; then the arm (candidate, method) with the largest
    expected improvement per share of the remaining budget, defaults first, then points near the best; audits between.
    Deterministic in the plan's seed and the history.

    Args:
        plan: from `make_plan`.
        history: finished trials in order.
        left: what is left of the budget.
        unavailable: candidates that cannot be used, such as those whose weights are missing.
    """
    if (left.trials is not None and left.trials <= 0) or (left.seconds is not None and left.seconds <= 0):
        return None
    usable = [line.candidate for line in plan.lines if line.candidate not in set(unavailable)]
    if not usable:
        return None
    gone = [
        Tried(
            candidate=name,
            method=method,
            origin="planned",
            state="failed",
            validation=None,
            seconds=0.0,
            point=Point(),
            number=-1,
        )
        for name in unavailable
        for method in plan.methods
    ]
    early = _first_probes(plan, [*history, *gone], left=left) or _next_audit(plan, [*history, *gone], left=left)
    return early or _promising(plan, history, left=left, usable=usable)


def _first_probes(plan: Plan, history: History, *, left: Left) -> Step | None:
    if "probe" not in plan.methods:
        return None
    probed = {trial.candidate for trial in history if trial.method == "probe"}
    paid = [trial.seconds for trial in history if trial.method == "probe"]
    done = len(paid)
    allowed = len(plan.active)
    if left.seconds is not None and sum(paid) > 0 and "finetune" in plan.methods:
        whole = left.seconds + sum(trial.seconds for trial in history)
        allowed = min(allowed, max(1, int(_PROBE_TIME * whole * done / sum(paid))))
    if left.trials is not None and "finetune" in plan.methods:
        allowed = min(allowed, max(1, (left.trials + len(history)) // _PROBE_SHARE))
    for line in plan.lines:
        if done < allowed and not line.postponed and line.candidate not in probed:
            return Step(
                candidate=line.candidate,
                method="probe",
                point=plan.first(line.candidate, "probe"),
                origin="planned",
                why=f"predicted rank {line.rank}",
            )
    return None


def _next_audit(plan: Plan, history: History, *, left: Left) -> Step | None:
    """Audits come after every third trial of the last method, so that they neither lead nor fall off the end."""
    method = plan.methods[-1]
    mine = [trial for trial in history if trial.method == method]
    done = {trial.candidate for trial in mine}
    open_audits = [name for name in plan.audits if name not in done]
    ordinary = sum(trial.origin != "audit" for trial in mine)
    audited = len(mine) - ordinary
    soon = left.trials is not None and left.trials <= len(open_audits)
    if not open_audits or ordinary < 2 or not (ordinary // 3 > audited or soon):  # noqa: PLR2004 - two leaders first
        return None
    return Step(
        candidate=open_audits[0],
        method=method,
        point=plan.first(open_audits[0], method),
        origin="audit",
        why="audit: postponed, tuned to measure what postponing costs",
    )


def _promising(plan: Plan, history: History, *, left: Left, usable: Sequence[str]) -> Step | None:
    """The arm with the largest expected improvement per cost, or None when nothing is worth a trial."""
    now = observe(plan, history)
    waiting = set(postponed_now(plan, history, now=now))
    names = [name for name in usable if name not in waiting] or list(usable)
    arms = _arms(plan, history, names=names, now=now, left=left)
    fresh = [arm for arm in arms if not arm.tries]
    patience = _STALLED_PERFECT if best_value(history) >= 1.0 - MIN_GAIN else _EXHAUSTED
    since = stalled(history)
    if since >= patience and not fresh and len(names) == len(usable):
        return None
    if fresh and since >= PATIENCE and (since - PATIENCE) % 2 == 0:
        # the leaders have nothing new: every second trial goes to who was not tried, whatever the ranking promised
        arm = max(fresh, key=lambda each: (_mean_of(plan, now, each), -plan.order.index(each.candidate)))
    elif not best_value(history) > 0 and fresh:  # nothing measured yet: the plan's own order
        arm = min(fresh, key=lambda each: plan.order.index(each.candidate))
    else:
        arm = max(arms, key=lambda each: (each.gain / each.cost, -each.tries, -plan.order.index(each.candidate)))
    if not arm.tries:
        line = next(each for each in plan.lines if each.candidate == arm.candidate)
        why = f"predicted rank {line.rank}" + (", returned" if line.postponed else "")
        first = _in_time(plan.first(arm.candidate, arm.method), arm)
        return Step(candidate=arm.candidate, method=arm.method, point=first, origin="planned", why=why)
    if arm.paused is not None and arm.paused.curve is not None:
        done, planned = len(arm.paused.curve.values), arm.paused.curve.epochs
        return Step(
            candidate=arm.candidate,
            method=arm.method,
            point=arm.paused.point,
            origin=arm.paused.origin,
            why=f"goes on with trial {arm.paused.number} after epoch {done} of {planned}",
            continues=arm.paused.number,
        )
    rng = np.random.default_rng([plan.seed, len(history)])
    point = _point(arm, history, rng=rng, seen=sum(trial.method == arm.method for trial in history))
    why = "near the best point" if point is not None else "sampled"
    point = None if point is None else _in_time(point, arm)
    return Step(candidate=arm.candidate, method=arm.method, point=point, origin="sampled", why=why)


def _arms(plan: Plan, history: History, *, names: Sequence[str], now: Posterior, left: Left) -> list[_Arm]:
    """New trials of every candidate and method, and the paused trials."""
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    best = max(expectations(plan, history, now=now).values(), default=-1.0)
    ends = known_ends(history, images=plan.validation_images)
    seconds = seconds_of(plan, history)
    whole = whole_curves(history)
    arms = []
    for name in names:
        for j, method in enumerate(plan.methods):
            mine = [trial for trial in history if trial.candidate == name and trial.method == method]
            mean, sd = float(now.mean[index[name], j]), float(now.sd[index[name], j])
            gain = promise(mean, sd, best=best, reached=mean if (name, method) in ends else None, tries=len(mine))
            cost = price(seconds[name, method], left=left)
            fits = 1.0 if left.seconds is None else min(1.0, left.seconds / max(seconds[name, method], 1e-9))
            if fits < _TOO_SHORT:
                gain *= _HOPELESS
            arms.append(_Arm(candidate=name, method=method, tries=len(mine), gain=gain, cost=cost, fits=fits))
    for trial in paused(history):
        end = expected_end(trial, whole=whole)
        if trial.candidate in names and trial.curve is not None and end is not None:
            tries = sum(each.candidate == trial.candidate and each.method == trial.method for each in history)
            rest = 1 - len(trial.curve.values) / trial.curve.epochs
            cost = price(rest * seconds[trial.candidate, trial.method], left=left)
            # as much above or below what was measured as the arm is
            believed = float(now.mean[index[trial.candidate], plan.methods.index(trial.method)])
            mean = end.mean + believed - ends[trial.candidate, trial.method].mean
            gain = promise(mean, end.sd, best=best, reached=None, tries=0)
            arms.append(
                _Arm(candidate=trial.candidate, method=trial.method, tries=tries, gain=gain, cost=cost, paused=trial)
            )
    return arms


def _in_time(point: Point, arm: _Arm) -> Point:
    """Fewer epochs when the time left is too short for as many: a short schedule that ends beats half of a long one."""
    return point.shorter(arm.fits) if arm.method == "finetune" and arm.fits < 1 else point


def _mean_of(plan: Plan, now: Posterior, arm: _Arm) -> float:
    return float(now.mean[plan.belief.candidates.index(arm.candidate), plan.methods.index(arm.method)])


def _point(arm: _Arm, history: History, *, rng: np.random.Generator, seen: int) -> Point | None:
    """Where to go with an arm that has been tried: near its best point, in turn with the study's own sampler."""
    mine = [
        trial
        for trial in history
        if trial.candidate == arm.candidate and trial.method == arm.method and trial.validation is not None
    ]
    if not mine or (seen > 2 * PATIENCE and arm.tries % 2):
        return None
    best = max(mine, key=lambda trial: trial.validation or 0.0)
    moves = rng.normal(0.0, _STEP, 4)
    return best.point.moved(
        learning_rate=float(moves[0]),
        weight_decay=float(moves[1]),
        augmentation=float(moves[2]),
        epochs=float(moves[3]),
    )
