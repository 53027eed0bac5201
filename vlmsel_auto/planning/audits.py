"""Postponed candidates that are tuned all the same, so that the report can measure what postponing costs."""

from __future__ import annotations

from typing import Final

from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.tried import History, Left
from vlmsel_auto.records import TrialOrigin

_LEADERS: Final = 2  # trials of the last method that come before the first audit


def due_audit(plan: Plan, history: History, *, left: Left) -> str | None:
    """The candidate whose turn it is, or None.

    Audits come after every third trial of the last method, so that they neither lead nor fall off the end. They teach
    the report, not this search: of a time budget they get little.
    """
    method = plan.methods[-1].name
    mine = [trial for trial in history if trial.method == method]
    done = {trial.candidate for trial in mine}
    waiting = [name for name in plan.audits if name not in done]
    audits = [trial for trial in mine if trial.origin is TrialOrigin.AUDIT]
    ordinary = len(mine) - len(audits)
    soon = left.trials is not None and left.trials <= len(waiting)
    due = ordinary // plan.policy.trials_per_audit > len(audits) or soon
    if not waiting or ordinary < _LEADERS or not due:
        return None
    if left.work is None:
        return waiting[0]
    whole = left.work + sum(trial.seconds for trial in history)
    needed = sum(trial.seconds for trial in audits) + trial_seconds(plan, history)[waiting[0], method]
    return waiting[0] if needed <= plan.policy.audit_time * whole else None
