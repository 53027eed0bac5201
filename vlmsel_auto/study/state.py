"""What a search follows, works with and has come to, while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vlmsel_auto.engines.engine import Ticket
from vlmsel_auto.events import Sink, TrialFinished
from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.folds import fold_ease, level_folds
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.running_trials import Running, imagine
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import History, Left, Tried
from vlmsel_auto.records import Budget, Ranking, TrialOrigin, TrialResult, TrialSpec
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.optuna_study import OptunaStudy, RunningTrial
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import TrialRunner


@dataclass(kw_only=True, eq=False)
class RunningHere:
    """A trial that a worker is at."""

    trial: RunningTrial
    spec: TrialSpec
    curve: list[float]  # validation after each epoch so far, those of the trial that it continues included
    reached: int  # rung
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True, eq=False)
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
    zero_shot_begun: bool = False  # whether this run has begun a trial without training
    _made: tuple[tuple[TrialResult, ...], Ranking] | None = None  # the last updated ranking, and what it was made from

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

    @property
    def free(self) -> int:
        """Workers that have nothing to do."""
        return self.dispatch.engine.slots - len(self.running)

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

    def tidy(self, expected: Mapping[int, float]) -> None:
        """Drop weights that nothing will ask for."""
        self.results.tidy(expected)

    def tell(self, result: TrialResult, *, expected: Mapping[int, float], resumed: bool = False) -> None:
        """Say that a trial is finished, and who leads."""
        self.sink(TrialFinished(result=result, leader=self.leader(expected), resumed=resumed))

    def updated(self) -> Ranking:
        """The ranking after the trials so far."""
        results = self.results.all()
        if self._made is None or self._made[0] != results:
            self._made = results, TrialEvidence(self.plan, self.history()).updated(self.ranking)
        return self._made[1]
