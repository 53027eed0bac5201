"""The loop of a search: one trial after the other, until the budget is spent or none promises enough for its time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vlmsel_auto.events import RankingReady, Sink, TrialFinished, TrialStarted
from vlmsel_auto.planning.curves import RUNGS, rung_of
from vlmsel_auto.planning.history import History, Left, believed, expectations, level_folds, updated_ranking
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.rungs import goes_on_at
from vlmsel_auto.records import Budget, Ranking, StoppedBy, TrialOrigin, TrialResult
from vlmsel_auto.study.optuna_study import OptunaStudy, Prediction, RunningTrial
from vlmsel_auto.study.recovery import queue_again
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import Attempt, TrialRunner, failed
from vlmsel_auto.tuning.checkpoints import drop_weights
from vlmsel_auto.tuning.run import seconds_on_all_labels
from vlmsel_auto.tuning.work import EpochHook

_FINAL_FIT_MARGIN = 1.3  # times what the fit on all labels should take: its trial may end late
_FINAL_FIT_SHARE = 0.3  # of the budget, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """One run of a search: what it follows, what it works with, and what it fills."""

    plan: Plan
    ranking: Ranking
    budget: Budget
    deadline: float | None
    runner: TrialRunner
    study: OptunaStudy
    results: Results
    sink: Sink
    unavailable: dict[str, str] = field(default_factory=dict)  # candidate -> why it cannot be used

    def history(self) -> History:
        """Trials so far as the plan sees them."""
        return level_folds(self.results.history(self.runner))

    def left(self) -> Left:
        """What is left of the budget."""
        trials = None if self.budget.trials is None else self.budget.trials - len(self.results.counted())
        end = self.end()
        return Left(trials=trials, seconds=None if end is None else end - time.monotonic())

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
    """One trial after the other until the budget is spent or none promises enough for its time."""
    ranking = search.updated()
    search.study.expect(search.expected())
    while True:
        left = search.left()
        if not search.study.waiting():
            history = search.history()
            chosen = next_trial(search.plan, history, left=left, unavailable=tuple(search.unavailable))
            if chosen is None:
                return StoppedBy.BUDGET if left.spent else StoppedBy.EXHAUSTED
            search.study.queue(chosen, prediction=_predict(search, history, ranking, chosen))
        elif left.spent:
            return StoppedBy.BUDGET
        _run_one(search)
        ranking = search.updated()
        search.sink(RankingReady(ranking=ranking, updated=True))


def _predict(search: Search, history: History, ranking: Ranking, trial: NextTrial) -> Prediction:
    """What is believed of a trial that is about to be queued, by the ranking as it is now."""
    order = search.ranking.order
    end = believed(search.plan, history, (trial.candidate, trial.method))
    return Prediction(
        rank=order.index(trial.candidate) + 1 if trial.candidate in order else None,
        p_best=next((line.p_best for line in ranking.ranked if line.candidate == trial.candidate), None),
        forecast=None if end is None else end.mean,
        sd=None if end is None else end.sd,
    )


def _run_one(search: Search) -> None:
    """Run the next trial of the queue and close it in the study, whatever happens to it."""
    trial = search.study.take()
    try:
        attempt = _attempt(search, trial)
    except KeyboardInterrupt:
        drop_weights(search.runner.workdir, trial.number)
        queue_again(search.study, search.runner, number=trial.number, trial=trial.planned, attempt=trial.attempt)
        raise
    if attempt.unavailable:
        search.unavailable[trial.candidate] = attempt.unavailable
    search.results.keep(attempt.result)
    search.study.close(attempt.result)
    expected = search.expected()
    search.study.expect(expected)
    search.results.tidy(expected)
    search.tell(attempt.result, expected=expected)


def _attempt(search: Search, trial: RunningTrial) -> Attempt:
    spec = search.runner.spec(trial.method, trial.candidate, trial.point, fold=trial.fold)
    search.sink(TrialStarted(number=trial.number, spec=spec, why=trial.why))
    known = search.unavailable.get(trial.candidate)
    if known is not None:
        return Attempt(result=failed(spec, number=trial.number, origin=trial.origin, reason=known))
    return search.runner.attempt(
        spec,
        number=trial.number,
        origin=trial.origin,
        report=_at_rungs(search, trial, epochs=spec.epochs),
        deadline=_deadline(search, trial),
        continues=trial.continues,
        sink=search.sink,
    )


def _deadline(search: Search, trial: RunningTrial) -> float | None:
    """When a trial must be over; the floor may be late, since without it there is no model."""
    end = search.end()
    if end is None or trial.origin is not TrialOrigin.FLOOR:
        return end
    return max(end, time.monotonic() + search.plan.policy.late_model)


def _at_rungs(search: Search, trial: RunningTrial, *, epochs: int) -> EpochHook:
    """Ask at each rung whether the trial goes on."""
    history = search.history()
    before = search.results.results.get(trial.continues) if trial.continues is not None else None
    has_rungs = search.runner.methods[trial.method].trains is Trains.TOWER
    done = len(before.curve) if before is not None else 0
    reached = rung_of(done, epochs=epochs) if epochs else RUNGS

    def report(epoch: int, validation: float, loss: float) -> bool:
        nonlocal reached
        del loss
        rung = rung_of(epoch, epochs=epochs)
        if not has_rungs or rung <= reached or rung >= RUNGS:
            return False
        reached = rung
        search.study.report(trial.number, rung=rung, value=validation)
        return not goes_on_at(search.plan, history, trial.planned, rung=rung, validation=validation)

    return report
