"""The trials of a search: what the plan asks for is queued, run and closed until the budget is spent.

`planning.next_trial` decides which candidate and method come next, or which paused trial goes on; the settings of a
first trial are the defaults, later ones are near the best point or sampled by TPE. At a rung a trial that falls behind
is paused. Every finished trial updates the ranking.

`Budget.trials` counts the finished trials of all runs together, `Budget.seconds` is wall time of this run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import RankingReady, Sink, StageFinished, StageStarted, TrialFinished, TrialStarted, discard
from vlmsel_auto.planning.curves import RUNGS, rung_of
from vlmsel_auto.planning.history import History, Left, expectations, level_folds, updated_ranking
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.plan import Plan, make_plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.rungs import goes_on_at
from vlmsel_auto.planning.space import PastTrial, learn_defaults
from vlmsel_auto.process import locked, terminable
from vlmsel_auto.records import Budget, Candidate, Ranking, StoppedBy, Task, TrialResult, TrialState
from vlmsel_auto.study.optuna_study import OptunaStudy, RunningTrial, open_study
from vlmsel_auto.study.recovery import queue_again, recover
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import Attempt, TrialRunner, failed
from vlmsel_auto.tuning.checkpoints import drop_weights, read_results
from vlmsel_auto.tuning.methods import METHODS, methods_of
from vlmsel_auto.tuning.run import seconds_on_all_labels
from vlmsel_auto.tuning.work import EpochHook, Loader

_FINAL_FIT_MARGIN = 1.3  # times what the fit on all labels should take: its trial may end late
_FINAL_FIT_SHARE = 0.3  # of the budget, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyOutcome:
    """What a study found. ``results`` are all finished trials, also those of earlier runs, by number."""

    results: tuple[TrialResult, ...]
    best: TrialResult | None  # what `expectations` chooses; its weights are in the work directory
    members: tuple[TrialResult, ...]  # the best trial of each leading candidate, best first; their weights are there
    plan: Plan
    ranking: Ranking  # after the trials
    seconds: float  # wall time of this run
    stopped_by: StoppedBy
    failures: Mapping[str, str]  # candidate -> why its last failed trial failed


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    """One run: what it follows, what it works with, and what it fills."""

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

        That is kept only where it is a small part of the budget, and where there still is as much.
        """
        if self.deadline is None or self.budget.seconds is None or self.runner.folds == 1:
            return self.deadline
        leader = self.leader(self.expected())
        if leader is None or self.runner.methods[leader.spec.method].trains is not Trains.TOWER:
            return self.deadline
        needed = seconds_on_all_labels(leader, folds=self.runner.folds)
        late = self.deadline - time.monotonic() < needed
        if late or _FINAL_FIT_MARGIN * needed > _FINAL_FIT_SHARE * self.budget.seconds:
            return self.deadline
        return self.deadline - _FINAL_FIT_MARGIN * needed

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


def _loop(search: _Search) -> StoppedBy:
    """One trial after the other until the budget is spent or none promises enough for its time."""
    while True:
        left = search.left()
        if left.spent:
            return StoppedBy.BUDGET
        if not search.study.waiting():
            chosen = next_trial(search.plan, search.history(), left=left, unavailable=tuple(search.unavailable))
            if chosen is None:
                return StoppedBy.EXHAUSTED
            search.study.queue(chosen)
        _run_one(search)
        search.sink(RankingReady(ranking=search.updated(), updated=True))


def _run_one(search: _Search) -> None:
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
    search.results.tidy(expected)
    search.tell(attempt.result, expected=expected)


def _attempt(search: _Search, trial: RunningTrial) -> Attempt:
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
        deadline=search.end(),
        continues=trial.continues,
        sink=search.sink,
    )


def _at_rungs(search: _Search, trial: RunningTrial, *, epochs: int) -> EpochHook:
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


def run_study(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    ranking: Ranking,
    budget: Budget,
    workdir: Path,
    load: Loader,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    sink: Sink = discard,
    device: str | torch.device = "cpu",
    top_k: int | None = None,
    audits: int = 2,
    storage: str | None = None,
    train_shots: int | None = None,
    images_per_trial: int = 2_500,
    store: Store | None = None,
    past: Sequence[PastTrial] = (),
    policy: Policy = POLICY,
) -> StudyOutcome:
    """Run trials until the budget is spent, none promises enough for its time, or someone asks to stop.

    The same call on the same work directory resumes: finished trials are kept and never repeated.

    Args:
        task: the task; its validation split and the ranking choose, its test split is only reported.
        candidates: all of them; the study is bound to them.
        ranking: their predicted order.
        budget: ``trials`` counts the finished trials of all runs on this work directory (not the floor, nor those that
            the clock cut short), ``seconds`` is wall time of this call and holds within 5 %, or within one batch of
            images.
        workdir: holds ``study.journal`` and ``trials/``.
        load: gives a freshly loaded model of a candidate, on ``device``.
        methods: names of rows of `tuning.methods`; None: all.
        seed: of plan, sampler and trials.
        sink: takes the events of stage "trials".
        device: where the models are.
        top_k: candidates that are not postponed; None lets the ranking's probabilities decide.
        audits: postponed candidates that are tuned on purpose.
        storage: SQLAlchemy URL of a shared study; None is ``workdir/study.journal`` for this process alone.
        train_shots: at most so many training images a class; None takes the whole training split.
        images_per_trial: images that a default trial of a tower shows to it, repeats counted.
        store: where embeddings are kept; None is ``workdir/targets``.
        past: trials of earlier searches, from which the settings of first trials are learned.
        policy: constants of the planner.

    Raises:
        CandidateError: no candidate, or one twice.
        InputError: an unknown method, or none.
        WorkdirError: another process works there, or it belongs to a search with other candidates or images.
    """
    begun = time.monotonic()
    if not candidates or len({each.id for each in candidates}) != len(candidates):
        raise CandidateError(f"Candidates must be distinct, at least one, but got {[each.id for each in candidates]!r}")
    rows = METHODS if methods is None else methods_of(methods)
    table = {each.id: each for each in sorted(candidates, key=lambda each: each.id)}
    runner = TrialRunner(
        task=task,
        table=table,
        methods={each.name: each for each in rows},
        load=load,
        store=store or Store(workdir / "targets"),
        workdir=workdir,
        device=torch.device(device),
        train_shots=train_shots,
        images_per_trial=images_per_trial,
        seed=seed,
    )
    defaults = learn_defaults(
        past,
        candidates=list(table.values()),
        methods={each.name: each.settings for each in rows},
        without=task.digest,
        policy=policy,
    )
    plan = make_plan(
        ranking,
        candidates=list(table.values()),
        methods=rows,
        top_k=top_k,
        audits=audits,
        seed=seed,
        defaults=defaults,
        loading={name: each.seconds for name, each in ranking.not_looked.items()},
        relative_costs=runner.relative_costs(),
        gains=runner.gains(),
        validation_images=runner.sizes.val,
        folds=runner.folds,
        policy=policy,
    )
    lock = nullcontext() if storage else locked(workdir / "study.lock")
    done = read_results(workdir) if storage is None else ()
    with (
        lock,
        open_study(
            task=task, names=list(table), methods=rows, workdir=workdir, storage=storage, seed=seed, done=done
        ) as study,
        terminable(),
    ):
        search = _Search(
            plan=plan,
            ranking=ranking,
            budget=budget,
            deadline=None if budget.seconds is None else begun + budget.seconds,
            runner=runner,
            study=study,
            results=Results(workdir=workdir),
            sink=sink,
        )
        return _run(search, begun=begun)


def _run(search: _Search, *, begun: float) -> StudyOutcome:
    """Take over what earlier runs finished, go on, and say what came out."""
    search.sink(StageStarted(stage="trials", total=search.budget.trials))
    try:
        recover(
            search.study,
            search.results,
            search.runner,
            tell=lambda result: search.tell(result, expected=search.expected(), resumed=True),
        )
        search.results.tidy(search.expected())
        stopped = _loop(search)
    except KeyboardInterrupt:
        stopped = StoppedBy.INTERRUPTED
    seconds = time.monotonic() - begun
    search.sink(StageFinished(stage="trials", seconds=seconds, text=stopped))
    results, expected = search.results.all(), search.expected()
    return StudyOutcome(
        results=results,
        best=search.leader(expected),
        members=tuple(search.results.members(expected)),
        plan=search.plan,
        ranking=search.updated(),
        seconds=seconds,
        stopped_by=stopped,
        failures={each.spec.candidate: each.reason for each in results if each.state is TrialState.FAILED},
    )
