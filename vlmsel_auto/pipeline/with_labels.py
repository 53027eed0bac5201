"""From a ranking to models where labels are known: trials, joined fits, the best model and the ensemble, the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.measuring.near_copies import near_copies_warning
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.affordable import charge_together, charges_of, measured_latencies, together
from vlmsel_auto.pipeline.ensemble import export_ensemble, pool_leaders
from vlmsel_auto.pipeline.export import LeaderExport, export_best, without_model
from vlmsel_auto.pipeline.joined import Joined, Trials, calibrated, join
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.search_report import SearchModels, ended_by, report_search
from vlmsel_auto.pipeline.session import Run
from vlmsel_auto.pipeline.time_shares import joining_seconds, left_for_trials
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, StoppedBy, TrialResult
from vlmsel_auto.study.results import over_folds
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.runner import TrialRunner


def finish_with_labels(run: Run, ranked: Ranked) -> SearchResult:
    """Run the study of a search that has a ranking, export what came of it, and write the report."""
    session, task, usable, ranked_after = run.session, ranked.task, ranked.usable, run.seconds
    latencies = measured_latencies(usable, task, session.store)
    trials = Trials(task=task, candidates=usable, workdir=run.workdir, store=session.store, sink=session.sink)
    leader = LeaderExport(trials=trials)
    outcome = _tuned(run, ranked, latencies, sink=leader)
    trials = replace(trials, results=outcome.results)
    stopped = StoppedBy.INTERRUPTED if ranked.interrupted else ended_by(outcome)
    joins = stopped is not StoppedBy.INTERRUPTED  # else somebody waits for the end
    models = deliver(run, outcome, trials, latencies=latencies, exported=leader.exported, joins=joins)
    return report_search(run, ranked, models, stopped=stopped, ranked_after=ranked_after)


def _tuned(run: Run, ranked: Ranked, latencies: Mapping[str, float], *, sink: Sink) -> StudyOutcome:
    """The study, within what the budget leaves for it."""
    request, session, task, joining = run.request, run.session, ranked.task, 0.0
    if task.folds:
        images, members = len(task.labels), max(1, request.ensemble)
        joining = joining_seconds([*latencies.values()], images=images, members=members)
    budget = left_for_trials(request.budget, spent=run.seconds, joining=joining)
    told = session.sink if isinstance(session.engine, InProcess) else discard
    runner = TrialRunner(
        task=task, candidates=ranked.usable, load=partial(zoo.load, device=session.device, sink=told),
        store=session.store, workdir=run.workdir, method_names=request.methods, device=torch.device(session.device),
        seed=request.seed,
    )  # fmt: skip
    return run_study(
        runner, ranking=ranked.ranking, budget=Budget(trials=1) if ranked.interrupted else budget, sink=sink,
        engine=session.engine, storage=request.storage, top_k=request.top_k, members=request.ensemble,
        charges=charges_of(session.objective, ranked.usable, machine=session.machine, measured=latencies),
        policy=replace(POLICY, price=session.price),
    )  # fmt: skip


def deliver(
    run: Run,
    outcome: StudyOutcome,
    trials: Trials,
    *,
    latencies: Mapping[str, float],
    exported: TrialResult | None,
    joins: bool,
) -> SearchModels:
    """Join the fits of the chosen towers, and export the best model and the ensemble.

    Args:
        run: the search.
        outcome: of the study.
        trials: of the study.
        latencies: seconds an image, by id, of candidates that were loaded.
        exported: the trial whose model is in ``workdir/model`` already, see `export.LeaderExport`; None: none.
        joins: whether there is time to join fits.
    """
    session, near = run.session, _warning_of_near_copies(outcome, trials)
    parts = trials if joins else replace(trials, results=())
    ready: dict[int, Joined] = {}  # the best model is often a member too

    def joined(trial: TrialResult) -> Joined:
        return ready[trial.number] if trial.number in ready else join(trial, parts, load=outcome.runner.load)

    best, chosen = None, None
    if outcome.best is not None:
        try:
            made = ready[outcome.best.number] = joined(outcome.best)
            chosen = calibrated(made, task=trials.task)
            best = export_best(chosen, trials, exported=exported)
        except VlmselError as error:
            session.sink(Notice(text=f"the best model was not exported: {error}", level="error"))
            candidate = trials.candidate_of(outcome.best)
            best = without_model(over_folds(outcome.best, outcome.results), candidate=candidate)
    pooled = pool_leaders(
        outcome.members, trials, size=run.request.ensemble,
        fits=together(session.limits, trials.candidates, latencies),
        charge=charge_together(session.objective, trials.candidates, latencies),
    )  # fmt: skip
    return SearchModels(
        best=best,
        ensemble=export_ensemble(pooled, trials, joined=joined),
        chosen=None if chosen is None else replace(chosen, checkpoint=replace(chosen.checkpoint, visual=None)),
        trials=trials,
        trials_seconds=outcome.seconds,
        members=outcome.members,
        notes=near,
        latencies=latencies,
    )


def _warning_of_near_copies(outcome: StudyOutcome, trials: Trials) -> tuple[str, ...]:
    """What makes validation promise too much, told at once and for the report; or nothing."""
    leading = {each.spec.candidate: each for each in (outcome.best, *outcome.members) if each is not None}
    candidates = [trials.candidate_of(each) for each in leading.values()]
    text = near_copies_warning(candidates, task=trials.task, store=trials.store)
    if text:
        trials.sink(Notice(text=text, level="warning"))
    return (text,) if text else ()
