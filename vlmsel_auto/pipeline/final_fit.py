"""The chosen towers once more, on all labelled images: a trial holds a part of them out, the user's model need not."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vlmsel_auto.engines.engine import Done, Engine, Failed, Finished, Ticket
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import TrialResult
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.study.trial_job import Fitted
from vlmsel_auto.tuning.checkpoints import save_result
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.run import seconds_on_all_labels

_LATE_SECONDS: Final = 20.0  # that a worker may be late before its fit is ended


def fit_finally(
    outcome: StudyOutcome, *, wanted: Sequence[int], engine: Engine, deadline: float | None, sink: Sink
) -> StudyOutcome:
    """Fit towers on all labelled images while there is time for whole fits; heads already are.

    The best model's tower may be the mean of several fits, see `tuning.run.fit_on_all_labels`.

    Args:
        outcome: of the study; its weights are in the work directory. Without `Task.folds` nothing is done, for the
            user's own validation images only decide.
        wanted: numbers of the trials that the user gets, the most important first.
        engine: where fits run, as many at once as it has slots.
        deadline: `time.monotonic` at which all must be over; None: no end.
        sink: takes the events of stage "fits"; told of a fit that failed, whose trial then keeps its own weights.

    Raises:
        KeyboardInterrupt: asked to end.
        OSError: the work directory cannot be written.
    """
    runner = outcome.runner
    folds, results = len(runner.task.folds), {each.number: each for each in outcome.results}
    waiting = deque(results[number] for number in (wanted if folds else ()) if _can_be_fitted(results[number]))
    chosen = None if outcome.best is None else outcome.best.number
    dispatch, running = Dispatch(engine=engine, runner=runner), dict[Ticket, TrialResult]()
    stage = _Stage(sink=sink, total=len(waiting))
    try:
        while waiting or running:
            while waiting and len(running) < engine.slots:
                trial = waiting.popleft()
                needed = seconds_on_all_labels(trial, folds=folds)
                if deadline is None or time.monotonic() + needed <= deadline:
                    price = outcome.plan.policy.price if trial.number == chosen else math.inf
                    ticket = dispatch.submit_fit(trial, deadline=deadline, seconds=needed, price=price)
                    running[ticket] = trial
            if not running:
                break
            stage.begin()
            ended = engine.finished(timeout=_patience(deadline))
            if ended is None:
                break
            if ended.ticket in running:  # the engine may yet tell of jobs of an earlier stage
                trial = running.pop(ended.ticket)
                made = _made(trial, ended, dispatch=dispatch, sink=sink)
                if made is not None:
                    save_result(runner.workdir, made)
                    results[trial.number] = made
                stage.step(trial.spec.candidate)
    finally:
        for ticket in running:
            engine.cancel(ticket)
        dispatch.close()
    stage.end()
    return replace(
        outcome,
        results=tuple(results[each.number] for each in outcome.results),
        best=None if outcome.best is None else results[outcome.best.number],
        members=tuple(results[each.number] for each in outcome.members),
    )


@dataclass(kw_only=True, eq=False)
class _Stage:
    """What is told of the fits; nothing where there are none."""

    sink: Sink
    total: int
    began: float | None = None
    done: int = 0

    def begin(self) -> None:
        if self.began is None:
            self.began = time.monotonic()
            self.sink(StageStarted(stage="fits", total=self.total, text="chosen towers, on all labelled images"))

    def step(self, candidate: str) -> None:
        self.done += 1
        self.sink(StageProgress(stage="fits", done=self.done, text=candidate))

    def end(self) -> None:
        if self.began is not None:
            self.sink(StageFinished(stage="fits", seconds=time.monotonic() - self.began))


def _patience(deadline: float | None) -> float | None:
    """Seconds to wait for a fit; None: as long as it takes."""
    return None if deadline is None else max(0.0, deadline - time.monotonic()) + _LATE_SECONDS


def _can_be_fitted(trial: TrialResult) -> bool:
    return method_of(trial.spec.method).trains is Trains.TOWER and not trial.on_all_labels


def _made(trial: TrialResult, ended: Finished, *, dispatch: Dispatch, sink: Sink) -> TrialResult | None:
    """The trial after its fit, its weights in the work directory; None: it stays as it is."""
    match ended:
        case Done(result=Fitted() as fitted):
            dispatch.receive(trial.number, fitted.files)
            return fitted.result
        case Failed(failure=failure):
            error = failure.os_error()
            if error is not None and is_disk_error(error):
                raise error
            reason = failure.text
        case _:
            reason = "its worker died each time (out of memory?)"
    sink(Notice(text=f"trial {trial.number} stays as it is, not fitted on all labels: {reason}", level="warning"))
    return None
