"""The coordinator of a search: every worker has a trial until the budget is spent or none promises enough for its time.

It alone, in whose process this runs, plans, prunes at rungs, and writes study and results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, cast

from vlmsel_auto.engines.each_job import why_not
from vlmsel_auto.engines.engine import Done, Failed, Finished, Lost, Ticket
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Event, Notice, RankingReady, Sink, TrialEpoch, TrialFinished, TrialStarted
from vlmsel_auto.planning.curves import RUNGS, Curve, rung_of
from vlmsel_auto.planning.folds import fold_ease, level_folds
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.next_trial import NextTrial, may_be_late, next_trial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.running_trials import Running, goes_on_at, imagine
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import History, Left, Tried
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import Budget, Ranking, StoppedBy, TrialOrigin, TrialResult
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.optuna_study import OptunaStudy, StudyEntry, TakenTrial, TrialForecast
from vlmsel_auto.study.recovery import ATTEMPTS, Recovery
from vlmsel_auto.study.results import Results
from vlmsel_auto.tuning.runner import Attempt, Trial, TrialRunner

_LATE_SECONDS: Final = 20.0  # that a worker may be late before its trial is ended


@dataclass(kw_only=True, eq=False)
class TrialAtWorker:
    """A trial that a worker is at."""

    taken: TakenTrial
    trial: Trial
    curve: list[float]  # validation after each epoch so far, those of the trial that it continues included
    reached: int  # rung
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True, eq=False)
class Coordinator:
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
    running: dict[Ticket, TrialAtWorker] = field(default_factory=dict)
    _zero_shot_begun: bool = False  # whether this run has begun a trial without training
    _made: tuple[tuple[TrialResult, ...], Ranking] | None = None  # the last updated ranking, and what it was made from

    @property
    def runner(self) -> TrialRunner:
        """What trials are made with."""
        return self.dispatch.runner

    @property
    def _recovery(self) -> Recovery:
        return Recovery(study=self.study, results=self.results, runner=self.runner, sink=self.sink)

    def history(self) -> History:
        """Trials so far as the plan sees them."""
        return level_folds(self.results.history(self.runner))

    def imagined(self) -> list[Tried]:
        """The same with what running trials may come to."""
        tried = self.results.history(self.runner)
        ease, begun = fold_ease(tried), []
        for each in self.running.values():
            planned = each.taken.planned
            level = ease[planned.fold].metric if ease else 0.0
            values = tuple(value - level for value in each.curve) if self._is_tower(planned) else ()
            curve = Curve(values=values, epochs=max(each.trial.spec.epochs, len(values))) if values else None
            begun.append(Running(number=each.trial.number, trial=planned, curve=curve))
        return imagine(self.plan, level_folds(tried), begun)

    def _is_tower(self, planned: NextTrial) -> bool:
        return self.runner.methods[planned.method].trains is Trains.TOWER

    def left(self) -> Left:
        """What is left of the budget, less the trials that run."""
        taken = len(self.results.counted())
        taken += sum(each.trial.origin is not TrialOrigin.ZERO_SHOT for each in self.running.values())
        return Left(
            trials=None if self.budget.trials is None else self.budget.trials - taken,
            seconds=None if self.deadline is None else self.deadline - time.monotonic(),
            workers=self.dispatch.engine.slots,
        )

    def expected(self) -> dict[int, float]:
        """What the complete trials would reach on new images, by number."""
        return TrialEvidence(self.plan, self.history()).expectations()

    def leader(self, expected: Mapping[int, float]) -> TrialResult | None:
        """The trial that would be chosen now."""
        return next(iter(self.results.leaders(expected)), None)

    def updated(self) -> Ranking:
        """The ranking after the trials so far."""
        results = self.results.all()
        if self._made is None or self._made[0] != results:
            self._made = results, TrialEvidence(self.plan, self.history()).updated(self.ranking)
        return self._made[1]

    def recover(self) -> None:
        """Take over what earlier runs finished, and queue again what they left unfinished."""

        def tell(result: TrialResult) -> None:
            self.sink(TrialFinished(result=result, leader=self.leader(self.expected()), resumed=True))

        in_process = isinstance(self.dispatch.engine, InProcess)
        self.unavailable.update(self._recovery.recover(tell=tell, in_process=in_process, deadline=self.deadline))
        self.results.tidy(self.expected())

    def run(self) -> StoppedBy:
        """Keep every worker at a trial until the budget is spent or none promises enough for its time.

        Raises:
            KeyboardInterrupt: asked to end; trials that ran are queued again.
            OSError: the work directory cannot be written.
            WorkdirError: a worker does not see it.
        """
        try:
            while True:
                stopped = self._fill()
                if stopped is not None and not self.running:
                    return stopped
                outcome = self.dispatch.engine.finished(timeout=self._patience())
                if outcome is not None:
                    self._take(outcome)
                elif self.running:
                    self._cancel_all()  # workers that hang hold up nothing for ever
        except KeyboardInterrupt:
            self._cancel_all()
            self._recovery.queue_unfinished()
            raise

    def _patience(self) -> float | None:
        """Seconds to wait for a worker: until it should have ended its trial by itself, and some more."""
        end = self.deadline
        return None if end is None else max(_LATE_SECONDS, end + _LATE_SECONDS - time.monotonic())

    def _cancel_all(self) -> None:
        for ticket in self.running:
            self.dispatch.engine.cancel(ticket)

    def _fill(self) -> StoppedBy | None:
        """Begin trials while there are workers for them; why no more are begun, or None where all workers have one."""
        while len(self.running) < self.dispatch.engine.slots:
            left = self.left()
            waiting = self.study.waiting()
            if not waiting:
                history = self.imagined()
                chosen = self._next(history, left)
                if chosen is None or (left.spent and self._zero_shot_begun):  # it is late once
                    wants_time = left.spent or self._next(history, replace(left, seconds=None)) is not None
                    return StoppedBy.BUDGET if wants_time else StoppedBy.EXHAUSTED
                self.study.queue(chosen, prediction=self._forecast(history, chosen))
            elif left.spent and not self._may_be_late(waiting[0]):
                return StoppedBy.BUDGET
            self._begin(self.study.take())
        return None

    def _next(self, history: History, left: Left) -> NextTrial | None:
        return next_trial(self.plan, history, left=left, unavailable=tuple(self.unavailable))

    def _may_be_late(self, entry: StudyEntry) -> bool:
        """Whether a queued trial is the baseline, killed in an earlier run, that may be late as in a new search."""
        planned = entry.planned
        if planned is None or planned.origin is not TrialOrigin.ZERO_SHOT or self._zero_shot_begun:
            return False
        return may_be_late(self.plan, self.history(), planned)

    def _forecast(self, history: History, trial: NextTrial) -> TrialForecast:
        """What is believed of a trial that is about to be queued."""
        order, ranking = self.ranking.order, self.updated()
        end = TrialEvidence(self.plan, history).of((trial.candidate, trial.method))
        return TrialForecast(
            rank=order.index(trial.candidate) + 1 if trial.candidate in order else None,
            p_best=next((line.p_best for line in ranking.ranked if line.candidate == trial.candidate), None),
            forecast=None if end is None else end.mean,
            sd=None if end is None else end.sd,
        )

    def _begin(self, taken: TakenTrial) -> None:
        planned = taken.planned
        trial = self.runner.trial(taken.number, planned, deadline=self._deadline(planned))
        self.sink(TrialStarted(number=trial.number, spec=trial.spec, why=planned.why))
        if planned.origin is TrialOrigin.ZERO_SHOT:
            self._zero_shot_begun = True
        known = self.unavailable.get(planned.candidate)
        if known is not None:
            self._close(Attempt(result=trial.failed(known)))
            self.sink(RankingReady(ranking=self.updated(), updated=True))
            return
        curve = [] if trial.continues is None else list(self.results.curve_of(trial.continues))
        reached = rung_of(len(curve), epochs=trial.spec.epochs) if trial.spec.epochs else RUNGS
        running = TrialAtWorker(taken=taken, trial=trial, curve=curve, reached=reached)

        def told(item: object) -> None:
            if isinstance(item, TrialEpoch):
                self.sink(item)
                running.curve[item.epoch - 1 :] = [item.validation]  # one whose state was damaged begins anew
                if self._falls_behind(running, epoch=item.epoch):
                    self.dispatch.engine.stop(ticket)
            else:
                self.sink(cast("Event", item))

        ticket = self.dispatch.submit(trial, told=told)
        self.running[ticket] = running

    def _deadline(self, planned: NextTrial) -> float | None:
        """When a trial must be over; the zero-shot baseline may be late, since without it there is no model."""
        end = self.deadline
        if end is None or planned.origin is not TrialOrigin.ZERO_SHOT:
            return end
        return max(end, time.monotonic() + self.plan.policy.late_model)

    def _falls_behind(self, running: TrialAtWorker, *, epoch: int) -> bool:
        """Whether the trial has come to a rung and is pruned there."""
        planned, rung = running.taken.planned, rung_of(epoch, epochs=running.trial.spec.epochs)
        if not self._is_tower(planned) or not running.reached < rung < RUNGS:
            return False
        running.reached, value = rung, running.curve[-1]
        self.study.report(running.trial.number, rung=rung, value=value)
        return not goes_on_at(self.plan, self.history(), planned, rung=rung, validation=value)

    def _take(self, outcome: Finished) -> None:
        """A trial is over, or a job of an earlier stage, of which the engine may yet tell."""
        running = self.running.pop(outcome.ticket, None)
        if running is not None:
            self._settle(running, outcome)
            self.sink(RankingReady(ranking=self.updated(), updated=True))

    def _settle(self, running: TrialAtWorker, outcome: Finished) -> None:
        """Close a trial in the study, whatever became of it."""
        number, attempt = running.taken.number, running.taken.attempt
        match outcome:
            case Done(result=Attempt() as ended):
                self._close(ended)
            case Failed(failure=failure) if (error := failure.os_error()) is not None and is_disk_error(error):
                self._recovery.queue_again(number, running.taken.planned, attempt=attempt)
                raise error
            case Failed(failure=failure) if failure.kind == WorkdirError.__name__:  # the worker does not see it
                self._recovery.queue_again(number, running.taken.planned, attempt=attempt)
                raise WorkdirError(failure.text)
            case Lost() if attempt < ATTEMPTS:
                self._recovery.queue_again(number, running.taken.planned, attempt=attempt + 1)
                self.sink(Notice(text=f"the worker of trial {number} died: it runs again", level="warning"))
            case _:
                seconds = time.monotonic() - running.began
                self._close(Attempt(result=running.trial.failed(why_not(outcome), seconds=seconds)))

    def _close(self, attempt: Attempt) -> None:
        result = attempt.result
        if attempt.unavailable:
            self.unavailable[result.spec.candidate] = attempt.unavailable
        self.results.keep(result)
        self.study.close(result)
        expected = self.expected()
        self.results.tidy(expected)
        self.sink(TrialFinished(result=result, leader=self.leader(expected)))
