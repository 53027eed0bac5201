"""The trials of a search: plan -> trials, rungs, budget, resume.

`steps` decides which candidate and method come next, or which paused trial goes on; the hyperparameters of a first
trial are the defaults, later ones are near the best point or sampled by TPE. At a rung a fine-tuning trial that falls
behind is paused. Every finished trial updates the ranking.

`Budget.trials` counts the finished trials of all runs together, `Budget.seconds` is wall time of this run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import BudgetError, CandidateError
from vlmsel_auto.events import RankingReady, Sink, StageFinished, StageStarted, TrialFinished, TrialStarted, discard
from vlmsel_auto.planning.curves import RUNGS, best_at, goes_on, rung_of
from vlmsel_auto.planning.history import History, Left, expectations, updated_ranking
from vlmsel_auto.planning.next_trial import Step, next_step
from vlmsel_auto.planning.plan import METHODS, Plan, handicap, make_plan
from vlmsel_auto.planning.space import PastTrial, learn_defaults
from vlmsel_auto.process import locked, terminable
from vlmsel_auto.records import Budget, Candidate, Method, Ranking, Task, TrialResult
from vlmsel_auto.study.optuna_study import Ledger, Turn, open_ledger
from vlmsel_auto.study.recovery import queue_again, recover
from vlmsel_auto.study.results import Shelf
from vlmsel_auto.study.runner import Attempt, Workbench, failed
from vlmsel_auto.tuning.checkpoints import drop_weights, load_trial, read_results
from vlmsel_auto.tuning.probe import Loader
from vlmsel_auto.tuning.run import Report

__all__ = ["StudyOutcome", "load_trial", "run_study"]

_SLACK = 0.05  # the first trial of a candidate is paused only when it is worse by more than this: it tells of its rank


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyOutcome:
    """What a study found. ``results`` are all finished trials, also those of earlier runs, by number."""

    results: tuple[TrialResult, ...]
    best: TrialResult | None  # what `expectations` chooses; its weights are in the work directory
    plan: Plan
    ranking: Ranking  # after the trials
    seconds: float  # wall time of this run
    stopped_by: Literal["budget", "interrupted", "exhausted"]
    failures: Mapping[str, str]  # candidate -> why its last failed trial failed


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    """One run: what it follows, what it works with, and what it fills."""

    plan: Plan
    ranking: Ranking
    budget: Budget
    deadline: float | None
    bench: Workbench
    ledger: Ledger
    shelf: Shelf
    sink: Sink
    unavailable: dict[str, str] = field(default_factory=dict)  # candidate -> why it cannot be used

    def history(self) -> History:
        """Trials so far as the plan sees them."""
        return self.shelf.history(self.bench, methods=self.plan.methods)

    def left(self) -> Left:
        """What is left of the budget."""
        trials = None if self.budget.trials is None else self.budget.trials - len(self.shelf.counted())
        seconds = None if self.deadline is None else self.deadline - time.monotonic()
        return Left(trials=trials, seconds=seconds)

    def expected(self) -> dict[int, float]:
        """What the complete trials would reach on new images, by number."""
        return expectations(self.plan, self.history())

    def leader(self, expected: Mapping[int, float]) -> TrialResult | None:
        """The trial that would be chosen now."""
        return next(iter(self.shelf.leaders(expected)), None)

    def tell(self, result: TrialResult, *, expected: Mapping[int, float], resumed: bool = False) -> None:
        """Say that a trial is finished, and who leads."""
        self.sink(TrialFinished(result=result, leader=self.leader(expected), resumed=resumed))

    def updated(self) -> Ranking:
        """The ranking after the trials so far."""
        return updated_ranking(self.plan, self.ranking, self.history())


def _loop(search: _Search) -> Literal["budget", "exhausted"]:
    """One trial after the other until the budget is spent or nothing promising is left."""
    while True:
        left = search.left()
        if (left.trials is not None and left.trials <= 0) or (left.seconds is not None and left.seconds <= 0):
            return "budget"
        if not search.ledger.waiting():
            step = next_step(search.plan, search.history(), left=left, unavailable=tuple(search.unavailable))
            if step is None:
                return "exhausted"
            search.ledger.queue(step)
        _run_one(search)
        search.sink(RankingReady(ranking=search.updated(), updated=True))


def _run_one(search: _Search) -> None:
    """Run the next trial of the queue; whatever happens to it, the book is told."""
    turn = search.ledger.take()
    try:
        attempt = _attempt(search, turn)
    except KeyboardInterrupt:
        drop_weights(search.bench.workdir, turn.number)
        step = Step(
            candidate=turn.candidate,
            method=turn.method,
            point=turn.point,
            origin=turn.origin,
            why=turn.why,
            continues=turn.continues,
        )
        queue_again(search.ledger, search.bench, number=turn.number, step=step, attempt=turn.attempt)
        raise
    if attempt.unavailable:
        search.unavailable[turn.candidate] = attempt.unavailable
    search.shelf.keep(attempt.result)
    search.ledger.close(attempt.result)
    expected = search.expected()
    search.shelf.tidy(expected)
    search.tell(attempt.result, expected=expected)


def _attempt(search: _Search, turn: Turn) -> Attempt:
    spec = search.bench.spec(turn.method, turn.candidate, turn.point)
    search.sink(TrialStarted(number=turn.number, spec=spec, why=turn.why))
    known = search.unavailable.get(turn.candidate)
    if known is not None:
        return Attempt(result=failed(spec, number=turn.number, origin=turn.origin, reason=known))
    return search.bench.attempt(
        spec,
        number=turn.number,
        origin=turn.origin,
        report=_reporter(search, turn, epochs=spec.epochs),
        deadline=search.deadline,
        continues=turn.continues,
        sink=search.sink,
    )


def _reporter(search: _Search, turn: Turn, *, epochs: int) -> Report:
    """Ask at each rung of fine-tuning whether the trial goes on. Audits do: their value is what they are for."""
    others = [each for each in search.history() if each.curve is not None and each.number != turn.continues]
    before = search.shelf.results.get(turn.continues) if turn.continues is not None else None
    curve = list(before.curve) if before is not None else []
    planned = turn.origin == "planned"
    shift = (_SLACK if planned else 0.0) - handicap(search.plan, turn.candidate)
    told = rung_of(len(curve), epochs=epochs) if epochs else RUNGS

    def report(epoch: int, validation: float, loss: float) -> bool:
        nonlocal told
        del loss
        curve.append(validation)
        rung = rung_of(epoch, epochs=epochs)
        if turn.method != "finetune" or rung <= told or rung >= RUNGS:
            return False
        told = rung
        value = max(curve)
        search.ledger.report(turn.number, rung=rung, value=value)
        peers = [best for each in others if each.curve and (best := best_at(each.curve, rung=rung)) is not None]
        return turn.origin != "audit" and not goes_on(value + shift, peers)

    return report


def _check(*, candidates: Sequence[Candidate], budget: Budget, methods: Sequence[Method]) -> None:
    if not candidates or len({each.id for each in candidates}) != len(candidates):
        raise CandidateError(f"Candidates must be distinct, at least one, but got {[each.id for each in candidates]!r}")
    for name, value in (("seconds", budget.seconds), ("trials", budget.trials)):
        if value is not None and not value > 0:
            raise BudgetError(f"A budget of {name} must be positive, or None for no limit, but got {value!r}")
    if not methods or any(method not in METHODS for method in methods):
        raise BudgetError(f"methods must be some of {METHODS!r}, but got {tuple(methods)!r}")


def run_study(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    ranking: Ranking,
    budget: Budget,
    workdir: Path,
    load: Loader,
    methods: Sequence[Method] = METHODS,
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
) -> StudyOutcome:
    """Run trials until the budget is spent, nothing promising is left, or someone asks to stop.

    The same call on the same work directory resumes: finished trials are kept and never repeated.

    Args:
        task: the task; its validation split and the ranking choose, its test split is only reported.
        candidates: all of them; the study is bound to them.
        ranking: their predicted order.
        budget: ``trials`` counts the finished trials of all runs on this work directory (those that the clock cut short
            are not counted), ``seconds`` is wall time of this call and holds within 5 %, or within one batch of images.
        workdir: holds ``study.journal`` and ``trials/``.
        load: gives a freshly loaded model of a candidate, on ``device``.
        methods: ``"probe"``, ``"finetune"`` or both.
        seed: of plan, sampler and trials.
        sink: takes the events of stage "trials".
        device: where the models are.
        top_k: candidates that are not postponed; None lets the ranking's probabilities decide.
        audits: postponed candidates that are tuned on purpose.
        storage: SQLAlchemy URL of a shared study; None is ``workdir/study.journal`` for this process alone.
        train_shots: at most so many training images a class; None takes the whole training split.
        images_per_trial: images that a default fine-tuning trial shows to the tower, repeats counted.
        store: where features are kept; None is ``workdir/features``.
        past: trials of earlier searches, from which the settings of first trials are learned.

    Raises:
        BudgetError: a budget that allows nothing, or no method.
        CandidateError: no candidate, or one twice.
        WorkdirError: another process works there, or it belongs to a search with other candidates or images.
    """
    begun = time.monotonic()
    _check(candidates=candidates, budget=budget, methods=methods)
    table = {each.id: each for each in sorted(candidates, key=lambda each: each.id)}
    bench = Workbench(
        task=task,
        table=table,
        load=load,
        store=store or Store(workdir / "features"),
        workdir=workdir,
        device=torch.device(device),
        train_shots=train_shots,
        images_per_trial=images_per_trial,
        seed=seed,
    )
    plan = make_plan(
        ranking,
        candidates=list(table.values()),
        methods=methods,
        top_k=top_k,
        audits=audits,
        seed=seed,
        defaults=learn_defaults(past, candidates=list(table.values()), methods=methods, without=task.digest),
        tune_cost=bench.tune_cost(),
        validation_images=len(bench.splits.val),
    )
    lock = nullcontext() if storage else locked(workdir, name="study.lock")
    with (
        lock,
        open_ledger(
            task=task,
            names=list(table),
            workdir=workdir,
            storage=storage,
            seed=seed,
            done=read_results(workdir) if storage is None else (),
        ) as ledger,
        terminable(),
    ):
        shelf = Shelf(workdir=workdir)
        search = _Search(
            plan=plan,
            ranking=ranking,
            budget=budget,
            deadline=None if budget.seconds is None else begun + budget.seconds,
            bench=bench,
            ledger=ledger,
            shelf=shelf,
            sink=sink,
        )
        sink(StageStarted(stage="trials", total=budget.trials))
        stopped: Literal["budget", "interrupted", "exhausted"] = "interrupted"
        try:
            recover(
                ledger,
                shelf,
                bench,
                tell=lambda result: search.tell(result, expected=search.expected(), resumed=True),
            )
            shelf.tidy(search.expected())
            stopped = _loop(search)
        except KeyboardInterrupt:
            stopped = "interrupted"
        seconds = time.monotonic() - begun
        sink(StageFinished(stage="trials", seconds=seconds, text=stopped))
        return StudyOutcome(
            results=shelf.all(),
            best=search.leader(search.expected()),
            plan=plan,
            ranking=search.updated(),
            seconds=seconds,
            stopped_by=stopped,
            failures={each.spec.candidate: each.reason for each in shelf.all() if each.state == "failed"},
        )
