"""From the trials of a study to what the user gets: the best model and the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.measuring.contamination import suspicions
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.pipeline.affordable import charge_together, measured_latencies, together
from vlmsel_auto.pipeline.ensemble import pool_leaders
from vlmsel_auto.pipeline.ensemble_export import export_ensemble
from vlmsel_auto.pipeline.export import export_best, without_model
from vlmsel_auto.pipeline.joined import Joined, calibrated, join
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.run import Run
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import BestModel, Candidate, EnsembleModel, Task, TrialResult
from vlmsel_auto.study.results import over_folds
from vlmsel_auto.study.study import StudyOutcome


@dataclass(frozen=True, kw_only=True, eq=False)
class Delivery:
    """What decides which models the user gets, and where they go: the same from a search's first trial to its last."""

    task: Task
    candidates: Sequence[Candidate]  # all that are usable
    size: int  # of the ensemble, see `ensemble.pool_leaders`
    limits: Limits  # which the ensemble keeps as a whole
    objective: Objective  # by which its members must be worth what they cost
    store: Store  # has the embeddings
    workdir: Path  # where checkpoints are and models go

    @classmethod
    def of(cls, run: Run, ranked: Ranked) -> Self:
        """What decides it in a search that has a ranking."""
        session = run.session
        return cls(
            task=ranked.task,
            candidates=[one for one in session.candidates if one.id not in ranked.ranking.failures],
            size=run.request.aim.ensemble,
            limits=session.limits,
            objective=session.objective,
            store=session.store,
            workdir=run.workdir,
        )

    def latencies(self) -> dict[str, float]:
        """Seconds an image, by id, of the candidates that were loaded so far."""
        return measured_latencies(self.candidates, self.task, self.store)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """The models of a search, and the trials behind them."""

    best: BestModel | None
    ensemble: EnsembleModel | None
    chosen: Joined | None = None  # the best model, without its tower
    trials: tuple[TrialResult, ...] = ()  # of all runs, by number
    trials_seconds: float = 0.0  # wall time of this run's
    members: tuple[TrialResult, ...] = ()  # the best trial of each leading candidate, best first
    notes: Sequence[str]  # what users of the models must know
    latencies: Mapping[str, float]  # candidate -> seconds an image


def finish(
    outcome: StudyOutcome, delivery: Delivery, *, exported: TrialResult | None, interrupted: bool, sink: Sink
) -> Finished:
    """Join the fits of the chosen towers, and export.

    Args:
        outcome: of the study.
        delivery: decides which models there are.
        exported: the trial whose model is in ``workdir/model`` already, see `best_so_far`; None: none.
        interrupted: somebody waits for the end: no fits are joined.
        sink: takes events.
    """
    task, workdir = delivery.task, delivery.workdir
    by_id = {one.id: one for one in delivery.candidates}
    latencies = delivery.latencies()
    warnings = _warnings(outcome, delivery, sink=sink)

    results = () if interrupted else outcome.results
    ready: dict[int, Joined] = {}  # the best model is often a member too

    def joined(trial: TrialResult) -> Joined:
        if trial.number in ready:
            return ready[trial.number]
        candidate, load = by_id[trial.spec.candidate], outcome.runner.load
        return join(trial, results, task=task, candidate=candidate, workdir=workdir, load=load)

    best, chosen = None, None
    if outcome.best is not None:
        candidate = by_id[outcome.best.spec.candidate]
        try:
            made = ready[outcome.best.number] = joined(outcome.best)
            chosen = calibrated(made, task=task)
            best = export_best(
                chosen, task=task, candidate=candidate, workdir=workdir, sink=sink, warnings=warnings, exported=exported
            )
        except VlmselError as error:
            sink(Notice(text=f"the best model was not exported: {error}", level="error"))
            best = without_model(over_folds(outcome.best, outcome.results), candidate=candidate)
    pooled = pool_leaders(
        outcome.members,
        size=delivery.size,
        fits=together(delivery.limits, delivery.candidates, latencies),
        charge=charge_together(delivery.objective, delivery.candidates, latencies),
        results=outcome.results,
        task=task,
        workdir=workdir,
        sink=sink,
    )
    return Finished(
        best=best,
        ensemble=export_ensemble(
            pooled,
            joined=joined,
            task=task,
            candidates=delivery.candidates,
            workdir=workdir,
            sink=sink,
            warnings=warnings,
        ),
        chosen=None if chosen is None else replace(chosen, checkpoint=replace(chosen.checkpoint, visual=None)),
        trials=outcome.results,
        trials_seconds=outcome.seconds,
        members=outcome.members,
        notes=tuple(warnings.values()),
        latencies=latencies,
    )


def _warnings(outcome: StudyOutcome, delivery: Delivery, *, sink: Sink) -> dict[str, str]:
    """What the user must know of leading candidates, told at once, for report and cards."""
    leading = {each.spec.candidate for each in (*outcome.members, outcome.best) if each is not None}
    chosen = [one for one in delivery.candidates if one.id in leading]
    found = suspicions(chosen, task=delivery.task, store=delivery.store)
    for text in found.values():
        sink(Notice(text=text, level="warning"))
    return found
