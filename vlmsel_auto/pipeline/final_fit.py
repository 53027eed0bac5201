"""The chosen towers once more, on all labelled images: a trial holds a part of them out, the user's model need not."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted
from vlmsel_auto.records import StoppedBy
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import save_result

_LATE_SECONDS: Final = 20.0  # that a worker may be late before its fit is ended


def fit_finally(
    outcome: StudyOutcome, *, wanted: Sequence[int], engine: Engine, deadline: float | None, sink: Sink
) -> StudyOutcome:
    """Fit towers on all labelled images while there is time for whole fits; heads already are.

    The best model's tower may be the mean of several fits, see `tuning.run.fit_on_all_labels`.

    Args:
        outcome: of the study; its weights are in the work directory. Fits that it began go on, if they are wanted.
            Without `Task.folds` nothing is done, for the user's own validation images only decide.
        wanted: numbers of the trials that the user gets, the most important first.
        engine: where fits run, as many at once as it has slots.
        deadline: `time.monotonic` at which all must be over; None: no end.
        sink: takes the events of stage "fits"; told of a fit that failed, whose trial then keeps its own weights.

    Returns:
        The study with the fits that were finished; stopped by the user where that one asked to end meanwhile, once.

    Raises:
        OSError: the work directory cannot be written.
    """
    runner, fits = outcome.runner, outcome.fits
    folds, results = len(runner.task.folds), {each.number: each for each in outcome.results}
    chosen = None if outcome.best is None else outcome.best.number
    dispatch = Dispatch(engine=engine, runner=runner)
    fits.end(dispatch, besides=wanted)  # the last trials overtook them
    waiting = deque(results[number] for number in wanted if fits.can_begin(results[number], folds=folds, left=None))
    stage, stopped = _Stage(sink=sink, total=len(waiting) + len(fits.running)), outcome.stopped_by
    try:
        while waiting or fits.running:
            while waiting and len(fits.running) < engine.slots:
                trial = waiting.popleft()
                if fits.can_begin(trial, folds=folds, left=None if deadline is None else deadline - time.monotonic()):
                    price = outcome.plan.policy.price if trial.number == chosen else math.inf
                    fits.begin(trial, dispatch=dispatch, deadline=deadline, price=price)
            if not fits.running:
                break
            stage.begin()
            ended = engine.finished(timeout=_patience(deadline))
            if ended is None:
                break
            if ended.ticket in fits.running:  # the engine may yet tell of jobs of an earlier stage
                candidate = fits.running[ended.ticket].spec.candidate
                made = fits.settle(ended, dispatch=dispatch, sink=sink)
                if made is not None:
                    results[made.number] = made  # first: its file takes the old weights away
                    save_result(runner.workdir, made)
                stage.step(candidate)
    except KeyboardInterrupt:  # trials and fits so far are what the user gets
        stopped = StoppedBy.INTERRUPTED
    finally:
        fits.end(dispatch)
        dispatch.close()
    stage.end()
    return replace(
        outcome,
        stopped_by=stopped,
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
