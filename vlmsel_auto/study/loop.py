"""The loop of a search: every worker has a trial until the budget is spent or none promises enough for its time.

The coordinator, in whose process this runs, alone plans, decides who is paused at a rung, and writes study and results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from vlmsel_auto.engines.engine import Done, Failed, Finished, Lost, Ticket
from vlmsel_auto.events import Event, Notice, RankingReady, Sink, TrialEpoch, TrialFinished, TrialStarted
from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.curves import RUNGS, Curve, rung_of
from vlmsel_auto.planning.history import (
    History,
    Left,
    Tried,
    believed,
    expectations,
    fold_ease,
    level_folds,
    updated_ranking,
)
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.rungs import goes_on_at
from vlmsel_auto.planning.running import Running, imagine
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import Budget, Ranking, StoppedBy, TrialOrigin, TrialResult, TrialSpec
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.optuna_study import OptunaStudy, Prediction, RunningTrial
from vlmsel_auto.study.recovery import ATTEMPTS, queue_again
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import Attempt, TrialRunner, failed
from vlmsel_auto.study.trial_job import Ran
from vlmsel_auto.tuning.checkpoints import drop_weights
from vlmsel_auto.tuning.run import seconds_on_all_labels

_FINAL_FIT_MARGIN = 1.3  # times what the fit on all labels should take: its trial may end late
_FINAL_FIT_SHARE = 0.3  # of the budget, at most
_LATE_SECONDS = 20.0  # that a worker may be late before its trial is ended


@dataclass(kw_only=True, eq=False)
class RunningHere:
    """A trial that a worker is at."""

    trial: RunningTrial
    spec: TrialSpec
    curve: list[float]  # validation after each epoch so far, those of the trial that it continues included
    reached: int  # rung
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """One run of a search: what it follows, what it works with, and what it fills."""

    plan: Plan
    ranking: Ranking
    budget: Budget
    deadline: float | None
    dispatch: Dispatch
    study: OptunaStudy
    results: Results
    sink: Sink
    unavailable: dict[str, str] = field(default_factory=dict)  # candidate -> why it cannot be used
    running: dict[Ticket, RunningHere] = field(default_factory=dict)
    floors: list[int] = field(default_factory=list)  # trials without training that this run has begun

    @property
    def runner(self) -> TrialRunner:
        """What trials are made with."""
        return self.dispatch.runner

    def history(self) -> History:
        """Trials so far as the plan sees them."""
        return level_folds(self.results.history(self.runner))

    def imagined(self) -> list[Tried]:
        """The same with what running trials may come to."""
        history = self.history()
        ease = fold_ease(self.results.history(self.runner))
        begun = []
        for each in self.running.values():
            level = ease[each.trial.fold].metric if ease else 0.0
            is_tower = self.runner.methods[each.trial.method].trains is Trains.TOWER
            values = tuple(value - level for value in each.curve) if is_tower else ()
            curve = Curve(values=values, epochs=max(each.spec.epochs, len(values))) if values else None
            begun.append(Running(number=each.trial.number, trial=each.trial.planned, curve=curve))
        return imagine(self.plan, history, begun)

    def expected_seconds(self, trial: RunningTrial) -> float | None:
        """Of a whole trial."""
        return trial_seconds(self.plan, self.history()).get((trial.candidate, trial.method))

    def left(self) -> Left:
        """What is left of the budget, less the trials that run."""
        taken = len(self.results.counted())
        taken += sum(each.trial.origin is not TrialOrigin.FLOOR for each in self.running.values())
        end = self.end()
        return Left(
            trials=None if self.budget.trials is None else self.budget.trials - taken,
            seconds=None if end is None else end - time.monotonic(),
            workers=self.dispatch.engine.slots,
        )

    def end(self) -> float | None:
        """When trials must be over: before the deadline by what the leading tower's fit on all labels needs.

        That is kept only where it is a small part of the budget, where there still is as much, and where the tower has
        not had that fit in an earlier run.
        """
        if self.deadline is None or self.budget.seconds is None or self.runner.folds == 1:
            return self.deadline
        leader = self.leader(self.expected())
        if leader is None or leader.on_all_labels or not self._is_tower(leader):
            return self.deadline
        needed = seconds_on_all_labels(leader, folds=self.runner.folds)
        late = self.deadline - time.monotonic() < needed
        if late or _FINAL_FIT_MARGIN * needed > _FINAL_FIT_SHARE * self.budget.seconds:
            return self.deadline
        return self.deadline - _FINAL_FIT_MARGIN * needed

    def _is_tower(self, trial: TrialResult) -> bool:
        return self.runner.methods[trial.spec.method].trains is Trains.TOWER

    def expected(self) -> dict[int, float]:
        """What the complete trials would reach on new images, by number."""
        return expectations(self.plan, self.history())

    def leader(self, expected: Mapping[int, float]) -> TrialResult | None:
        """The trial that would be chosen now."""
        return next(iter(self.results.leaders(expected)), None)

    def tell(self, result: TrialResult, *, expected: Mapping[int, float], resumed: bool = False) -> None:
        """Say that a trial is finished, and who leads."""
        self.sink(TrialFinished(result=result, leader=self.leader(expected), resumed=resumed))

    def updated(self) -> Ranking:
        """The ranking after the trials so far."""
        return updated_ranking(self.plan, self.ranking, self.history())


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
            running = None if outcome is None else search.running.pop(outcome.ticket, None)
            if outcome is not None and running is not None:  # the engine may yet tell of jobs of an earlier stage
                _settle(search, running, outcome)
                search.sink(RankingReady(ranking=search.updated(), updated=True))
            elif outcome is None and search.running:
                _end_late(search)
    except KeyboardInterrupt:
        for ticket, each in sorted(search.running.items()):
            search.dispatch.engine.cancel(ticket)
            drop_weights(search.runner.workdir, each.trial.number)
            queue_again(
                search.study, search.runner, number=each.trial.number, trial=each.trial.planned,
                attempt=each.trial.attempt,
            )  # fmt: skip
        raise


def _fill(search: Search) -> StoppedBy | None:
    """Begin trials while there are workers for them; why no more are begun, or None where all workers have one."""
    while len(search.running) < search.dispatch.engine.slots:
        left = search.left()
        if not search.study.waiting():
            history = search.imagined()
            chosen = next_trial(search.plan, history, left=left, unavailable=tuple(search.unavailable))
            if chosen is None or (left.spent and search.floors):  # it is late once
                return StoppedBy.BUDGET if left.spent else StoppedBy.EXHAUSTED
            search.study.queue(chosen, prediction=_predict(search, history, chosen))
        elif left.spent:
            return StoppedBy.BUDGET
        _begin(search, search.study.take())
    return None


def _predict(search: Search, history: History, trial: NextTrial) -> Prediction:
    """What is believed of a trial that is about to be queued."""
    order, ranking = search.ranking.order, search.updated()
    end = believed(search.plan, history, (trial.candidate, trial.method))
    return Prediction(
        rank=order.index(trial.candidate) + 1 if trial.candidate in order else None,
        p_best=next((line.p_best for line in ranking.ranked if line.candidate == trial.candidate), None),
        forecast=None if end is None else end.mean,
        sd=None if end is None else end.sd,
    )


def _begin(search: Search, trial: RunningTrial) -> None:
    spec = search.runner.spec(trial.method, trial.candidate, trial.point, fold=trial.fold)
    search.sink(TrialStarted(number=trial.number, spec=spec, why=trial.why))
    if trial.origin is TrialOrigin.FLOOR:
        search.floors.append(trial.number)
    known = search.unavailable.get(trial.candidate)
    if known is not None:
        _close(search, Attempt(result=failed(spec, number=trial.number, origin=trial.origin, reason=known)))
        search.sink(RankingReady(ranking=search.updated(), updated=True))
        return
    before = search.results.results.get(trial.continues) if trial.continues is not None else None
    curve = list(before.curve) if before is not None else []
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
    """When a trial must be over; the floor may be late, since without it there is no model."""
    end = search.end()
    if end is None or trial.origin is not TrialOrigin.FLOOR:
        return end
    return max(end, time.monotonic() + search.plan.policy.late_model)


def _falls_behind(search: Search, running: RunningHere, *, epoch: int) -> bool:
    """Whether the trial has come to a rung and should be paused there."""
    trial, rung = running.trial, rung_of(epoch, epochs=running.spec.epochs)
    has_rungs = search.runner.methods[trial.method].trains is Trains.TOWER
    if not has_rungs or not running.reached < rung < RUNGS:
        return False
    running.reached, value = rung, running.curve[-1]
    search.study.report(trial.number, rung=rung, value=value)
    return not goes_on_at(search.plan, search.history(), trial.planned, rung=rung, validation=value)


def _settle(search: Search, running: RunningHere, outcome: Finished) -> None:
    """Close a trial in the study, whatever became of it."""
    trial = running.trial
    match outcome:
        case Done(result=Ran() as ran):
            search.dispatch.receive(ran)
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
    search.results.tidy(expected)
    search.tell(attempt.result, expected=expected)


def _patience(search: Search) -> float | None:
    """Seconds to wait for a worker: until it should have ended its trial by itself, and some more."""
    end = search.end()
    return None if end is None else max(_LATE_SECONDS, end + _LATE_SECONDS - time.monotonic())


def _end_late(search: Search) -> None:
    """Workers that hang hold up nothing for ever."""
    for ticket in search.running:
        search.dispatch.engine.cancel(ticket)
