"""When a postponed candidate returns: its upper bound beats the leader's lower bound, or the leaders have stalled."""

from __future__ import annotations

from vlmsel_auto.trials.belief import Posterior
from vlmsel_auto.trials.history import History, observe, stalled
from vlmsel_auto.trials.prior import Plan

__all__ = ["PATIENCE", "postponed_now"]

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
