"""The trials of a search: what the plan asks for is queued, run and closed until the budget is spent.

`planning.next_trial` decides which candidate and method come next; the settings of a first trial are the defaults,
later ones are near the best point or sampled by TPE. At a rung a trial that falls behind is pruned. Every finished
trial updates the ranking.

`Budget.trials` counts the finished trials of all runs together, `Budget.seconds` is wall time of this run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Sink, StageFinished, StageStarted, discard
from vlmsel_auto.planning.plan import ACTIVE, Conditions, Plan, make_plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.process import locked, terminable
from vlmsel_auto.records import Budget, Candidate, Ranking, StoppedBy, Task, TrialResult, TrialState
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.loop import run_trials
from vlmsel_auto.study.opening import open_study
from vlmsel_auto.study.recovery import recover
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.study.state import Search
from vlmsel_auto.tuning.checkpoints import result_numbers
from vlmsel_auto.tuning.methods import METHODS, methods_of
from vlmsel_auto.tuning.work import Loader


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
    runner: TrialRunner  # what trials were made with


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
    top_k: int = ACTIVE,
    storage: str | None = None,
    train_shots: int | None = None,
    images_per_trial: int | None = None,
    store: Store | None = None,
    charges: Mapping[str, float] | None = None,
    policy: Policy = POLICY,
    engine: Engine | None = None,
    members: int = 1,
) -> StudyOutcome:
    """Run trials until the budget is spent, none promises enough for its time, or someone asks to stop.

    The same call on the same work directory resumes: finished trials are kept and never repeated.

    Args:
        task: the task; its validation split and the ranking choose, its test split is only reported.
        candidates: all of them; the study is bound to them.
        ranking: their predicted order.
        budget: ``trials`` counts the finished trials of all runs on this work directory (not the zero-shot baseline,
            nor those that the clock cut short), ``seconds`` is wall time of this call and holds within 5 %, or within
            one batch of images.
        workdir: holds ``study.journal`` and ``trials/``.
        load: gives a freshly loaded model of a candidate, on ``device``.
        methods: names of rows of `tuning.methods`; None: all.
        seed: of plan, sampler and trials.
        sink: takes the events of stage "trials".
        device: where the models are.
        top_k: candidates that are not postponed.
        storage: address of the Optuna storage that finished trials are copied to, or None.
        train_shots: at most so many training images a class; None takes the whole training split.
        images_per_trial: images that a default trial of a tower shows to it, repeats counted; None: by their number.
        store: where embeddings are kept; None is ``workdir/targets``.
        charges: what the objective takes off the metric of each candidate; None: nothing.
        policy: constants of the planner.
        engine: where trials run, as many at once as it has slots; None: one after the other in this process. ``load``
            must be picklable for workers.
        members: tuned towers that the user's ensemble may have; 0 and 1 are none.

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
    plan = make_plan(
        ranking,
        candidates=list(table.values()),
        methods=rows,
        top_k=top_k,
        conditions=Conditions(
            seed=seed,
            loading={name: each.seconds for name, each in ranking.not_looked.items()},
            relative_costs=runner.relative_costs(),
            charges=charges or {},
            validation_images=runner.sizes.val,
            folds=runner.folds,
            members=members,
            policy=policy,
        ),
    )
    with (
        locked(workdir / "study.lock"),
        open_study(
            task=task,
            names=list(table),
            methods=rows,
            workdir=workdir,
            seed=seed,
            done=result_numbers(workdir),
            storage=storage,
            sink=sink,
        ) as study,
        terminable(),
    ):
        search = Search(
            plan=plan,
            ranking=ranking,
            budget=budget,
            deadline=None if budget.seconds is None else begun + budget.seconds,
            dispatch=Dispatch(engine=engine or InProcess(), runner=runner),
            study=study,
            results=Results(workdir=workdir),
            sink=sink,
        )
        try:
            return _run(search, begun=begun)
        finally:
            search.dispatch.close()


def _run(search: Search, *, begun: float) -> StudyOutcome:
    """Take over what earlier runs finished, go on, and say what came out."""
    search.sink(StageStarted(stage="trials", total=search.budget.trials))
    try:
        aside = recover(
            search.study,
            search.results,
            search.runner,
            tell=lambda result: search.tell(result, expected=search.expected(), resumed=True),
            in_process=isinstance(search.dispatch.engine, InProcess),
            deadline=search.deadline,
            sink=search.sink,
        )
        search.unavailable.update(aside)
        search.tidy(search.expected())
        stopped = run_trials(search)
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
        runner=search.runner,
    )
