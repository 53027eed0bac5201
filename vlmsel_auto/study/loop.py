"""The loop of a search: every worker has a trial until the budget is spent or none promises enough for its time.

The coordinator, in whose process this runs, alone plans, prunes at rungs, and writes study and results.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

from vlmsel_auto.engines.engine import Done, Failed, Finished, Lost
from vlmsel_auto.events import Event, Notice, RankingReady, TrialEpoch, TrialStarted
from vlmsel_auto.planning.curves import RUNGS, rung_of
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.next_trial import NextTrial, may_be_late, next_trial
from vlmsel_auto.planning.running_trials import goes_on_at
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import History, Left
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import StoppedBy, TrialOrigin
from vlmsel_auto.study.optuna_study import Prediction, RunningTrial, StudyEntry
from vlmsel_auto.study.recovery import ATTEMPTS, queue_again, queue_unfinished
from vlmsel_auto.study.runner import Attempt, failed
from vlmsel_auto.study.state import RunningHere, Search
from vlmsel_auto.study.trial_job import Ran

_LATE_SECONDS = 20.0  # that a worker may be late before its trial is ended


def run_trials(search: Search) -> StoppedBy:
    """Keep every worker at a trial until the budget is spent or none promises enough for its time.

    Raises:
        KeyboardInterrupt: asked to end; trials that ran are queued again.
        OSError: the work directory cannot be written.
    """
    search.study.expect(search.expected())
    try:
        while True:
            stopped = _fill(search)
            if stopped is not None and not search.running:
                return stopped
            outcome = search.dispatch.engine.finished(timeout=_patience(search))
            if outcome is not None:
                _take(search, outcome)
            elif search.running:
                _end_late(search)
    except KeyboardInterrupt:
        for ticket in search.running:
            search.dispatch.engine.cancel(ticket)
        queue_unfinished(search.study, search.runner)
        raise


def _fill(search: Search) -> StoppedBy | None:
    """Begin trials while there are workers for them; why no more are begun, or None where all workers have one."""
    while search.free > 0:
        left = search.left()
        waiting = search.study.waiting()
        if not waiting:
            history = search.imagined()
            chosen = next_trial(search.plan, history, left=left, unavailable=tuple(search.unavailable))
            if chosen is None or (left.spent and search.zero_shot_begun):  # it is late once
                return StoppedBy.BUDGET if left.spent or _wants_time(search, history, left) else StoppedBy.EXHAUSTED
            search.study.queue(chosen, prediction=_predict(search, history, chosen))
        elif left.spent and not _is_late_zero_shot(search, waiting[0]):
            return StoppedBy.BUDGET
        _begin(search, search.study.take())
    return None


def _wants_time(search: Search, history: History, left: Left) -> bool:
    """Whether a trial would be begun if there were time for it."""
    unlimited = replace(left, seconds=None)
    return next_trial(search.plan, history, left=unlimited, unavailable=tuple(search.unavailable)) is not None


def _is_late_zero_shot(search: Search, entry: StudyEntry) -> bool:
    """Whether a queued trial is the baseline, killed in an earlier run, that may be late as in a search that is new."""
    trial = entry.planned
    if trial is None or trial.origin is not TrialOrigin.ZERO_SHOT or search.zero_shot_begun:
        return False
    return may_be_late(search.plan, search.history(), trial)


def _predict(search: Search, history: History, trial: NextTrial) -> Prediction:
    """What is believed of a trial that is about to be queued."""
    order, ranking = search.ranking.order, search.updated()
    end = TrialEvidence(search.plan, history).of((trial.candidate, trial.method))
    return Prediction(
        rank=order.index(trial.candidate) + 1 if trial.candidate in order else None,
        p_best=next((line.p_best for line in ranking.ranked if line.candidate == trial.candidate), None),
        forecast=None if end is None else end.mean,
        sd=None if end is None else end.sd,
    )


def _begin(search: Search, trial: RunningTrial) -> None:
    spec = search.runner.spec(trial.method, trial.candidate, trial.point, fold=trial.fold)
    search.sink(TrialStarted(number=trial.number, spec=spec, why=trial.why))
    if trial.origin is TrialOrigin.ZERO_SHOT:
        search.zero_shot_begun = True
    known = search.unavailable.get(trial.candidate)
    if known is not None:
        _close(search, Attempt(result=failed(spec, number=trial.number, origin=trial.origin, reason=known)))
        search.sink(RankingReady(ranking=search.updated(), updated=True))
        return
    curve = [] if trial.continues is None else list(search.results.curve_of(trial.continues))
    reached = rung_of(len(curve), epochs=spec.epochs) if spec.epochs else RUNGS
    running = RunningHere(trial=trial, spec=spec, curve=curve, reached=reached)

    def told(item: object) -> None:
        if isinstance(item, TrialEpoch):
            search.sink(item)
            running.curve[item.epoch - 1 :] = [item.validation]  # one whose state was damaged begins anew
            if _falls_behind(search, running, epoch=item.epoch):
                search.dispatch.engine.stop(ticket)
        else:
            search.sink(cast("Event", item))

    ticket = search.dispatch.submit(
        trial, spec, deadline=_deadline(search, trial), seconds=search.expected_seconds(trial), told=told
    )
    search.running[ticket] = running


def _deadline(search: Search, trial: RunningTrial) -> float | None:
    """When a trial must be over; the zero-shot baseline may be late, since without it there is no model."""
    end = search.deadline
    if end is None or trial.origin is not TrialOrigin.ZERO_SHOT:
        return end
    return max(end, time.monotonic() + search.plan.policy.late_model)


def _falls_behind(search: Search, running: RunningHere, *, epoch: int) -> bool:
    """Whether the trial has come to a rung and is pruned there."""
    trial, rung = running.trial, rung_of(epoch, epochs=running.spec.epochs)
    has_rungs = search.runner.methods[trial.method].trains is Trains.TOWER
    if not has_rungs or not running.reached < rung < RUNGS:
        return False
    running.reached, value = rung, running.curve[-1]
    search.study.report(trial.number, rung=rung, value=value)
    return not goes_on_at(search.plan, search.history(), trial.planned, rung=rung, validation=value)


def _take(search: Search, outcome: Finished) -> None:
    """A trial is over, or a job of an earlier stage, of which the engine may yet tell."""
    running = search.running.pop(outcome.ticket, None)
    if running is not None:
        _settle(search, running, outcome)
        search.sink(RankingReady(ranking=search.updated(), updated=True))


def _settle(search: Search, running: RunningHere, outcome: Finished) -> None:
    """Close a trial in the study, whatever became of it."""
    trial = running.trial
    match outcome:
        case Done(result=Ran() as ran):
            search.dispatch.receive(trial.number, ran.files)
            _close(search, ran.attempt)
        case Failed(failure=failure) if (error := failure.os_error()) is not None and is_disk_error(error):
            queue_again(search.study, search.runner, number=trial.number, trial=trial.planned, attempt=trial.attempt)
            raise error
        case Lost() if trial.attempt < ATTEMPTS:
            queue_again(
                search.study, search.runner, number=trial.number, trial=trial.planned, attempt=trial.attempt + 1
            )
            search.sink(Notice(text=f"the worker of trial {trial.number} died: it runs again", level="warning"))
        case _:
            _close(search, Attempt(result=failed(
                running.spec, number=trial.number, origin=trial.origin, reason=_why_not(outcome),
                seconds=time.monotonic() - running.began,
            )))  # fmt: skip


def _why_not(outcome: Finished) -> str:
    match outcome:
        case Failed():
            return str(outcome.failure)
        case Lost():
            return f"its worker died each of {ATTEMPTS} times that it ran (out of memory?)"
        case _:
            return "its worker did not end it in time"


def _close(search: Search, attempt: Attempt) -> None:
    if attempt.unavailable:
        search.unavailable[attempt.result.spec.candidate] = attempt.unavailable
    search.results.keep(attempt.result)
    search.study.close(attempt.result)
    expected = search.expected()
    search.study.expect(expected)
    search.tidy(expected)
    search.tell(attempt.result, expected=expected)


def _patience(search: Search) -> float | None:
    """Seconds to wait for a worker: until it should have ended its trial by itself, and some more."""
    end = search.deadline
    return None if end is None else max(_LATE_SECONDS, end + _LATE_SECONDS - time.monotonic())


def _end_late(search: Search) -> None:
    """Workers that hang hold up nothing for ever."""
    for ticket in search.running:
        search.dispatch.engine.cancel(ticket)
