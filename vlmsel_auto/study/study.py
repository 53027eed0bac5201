"""The trials of a search: what the plan asks for is queued, run and closed until the budget is spent.

`planning.next_trial` decides which candidate and method come next; the settings of a first trial are the defaults,
later ones are near the best point or sampled by TPE. At a rung a trial that falls behind is pruned. Every finished
trial updates the ranking.

`Budget.trials` counts the finished trials of all runs together, `Budget.seconds` is wall time of this run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Sink, StageFinished, StageStarted, discard
from vlmsel_auto.planning.plan import ACTIVE, Conditions, Plan, make_plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.process import locked, terminable
from vlmsel_auto.records import Budget, Ranking, StoppedBy, TrialResult, TrialState
from vlmsel_auto.study.coordinator import Coordinator
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.journal import open_study
from vlmsel_auto.study.results import Results
from vlmsel_auto.tuning.runner import TrialRunner


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
    runner: TrialRunner,
    *,
    ranking: Ranking,
    budget: Budget,
    sink: Sink = discard,
    engine: Engine | None = None,
    storage: str | None = None,
    top_k: int = ACTIVE,
    charges: Mapping[str, float] | None = None,
    members: int = 1,
    policy: Policy = POLICY,
) -> StudyOutcome:
    """Run trials until the budget is spent, none promises enough for its time, or someone asks to stop.

    The same call on the same work directory resumes: finished trials are kept and never repeated.

    Args:
        runner: what trials are made with. The task's validation split and the ranking choose, its test split is only
            reported; the study, ``study.journal`` in the work directory, is bound to candidates and methods.
        ranking: predicted order of the candidates.
        budget: ``trials`` counts the finished trials of all runs on this work directory (not the zero-shot baseline,
            nor those that the clock cut short), ``seconds`` is wall time of this call and holds within 5 %, or within
            one batch of images.
        sink: takes the events.
        engine: where trials run, as many at once as it has slots; None: one after the other in this process.
        storage: address of an Optuna storage that finished trials are copied to.
        top_k: candidates that are not postponed.
        charges: what the objective takes off the metric of each candidate; None: nothing.
        members: tuned towers that the user's ensemble may have; 0 and 1 are none.
        policy: constants of the planner.

    Raises:
        WorkdirError: another process works there, or it belongs to a search with other candidates or images.
    """
    begun = time.monotonic()
    conditions = Conditions(
        seed=runner.seed,
        loading={name: each.seconds for name, each in ranking.not_looked.items()},
        relative_costs=runner.relative_costs(),
        charges=charges or {},
        validation_images=runner.sizes.val,
        folds=runner.folds,
        members=members,
        policy=policy,
    )
    candidates, methods = list(runner.table.values()), list(runner.methods.values())
    plan = make_plan(ranking, candidates=candidates, methods=methods, top_k=top_k, conditions=conditions)
    with (
        locked(runner.workdir / "study.lock"),
        open_study(runner, storage=storage, sink=sink) as study,
        Dispatch(engine=engine or InProcess(), runner=runner) as dispatch,
        terminable(),
    ):
        deadline = None if budget.seconds is None else begun + budget.seconds
        coordinator = Coordinator(
            plan=plan, ranking=ranking, budget=budget, deadline=deadline, dispatch=dispatch, study=study,
            results=Results(workdir=runner.workdir), sink=sink,
        )  # fmt: skip
        return _run(coordinator, begun=begun)


def _run(coordinator: Coordinator, *, begun: float) -> StudyOutcome:
    """Take over what earlier runs finished, go on, and say what came out."""
    coordinator.sink(StageStarted(stage="trials", total=coordinator.budget.trials))
    try:
        coordinator.recover()
        stopped = coordinator.run()
    except KeyboardInterrupt:
        stopped = StoppedBy.INTERRUPTED
    seconds = time.monotonic() - begun
    coordinator.sink(StageFinished(stage="trials", seconds=seconds, text=stopped))
    results, expected = coordinator.results.all(), coordinator.expected()
    return StudyOutcome(
        results=results,
        best=coordinator.leader(expected),
        members=tuple(coordinator.results.members(expected)),
        plan=coordinator.plan,
        ranking=coordinator.updated(),
        seconds=seconds,
        stopped_by=stopped,
        failures={each.spec.candidate: each.reason for each in results if each.state is TrialState.FAILED},
        runner=coordinator.runner,
    )
