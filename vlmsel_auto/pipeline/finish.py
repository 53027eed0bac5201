"""From the trials of a study to what the user gets: final fits, the best model and the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.measuring.contamination import suspicions
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.pipeline.affordable import charge_together, measured_latencies, together
from vlmsel_auto.pipeline.ensemble import Pool, pool_leaders
from vlmsel_auto.pipeline.ensemble_export import export_ensemble
from vlmsel_auto.pipeline.export import export_best
from vlmsel_auto.pipeline.final_fit import fit_finally
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import BestModel, Candidate, EnsembleModel, Task, TrialResult
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

    def latencies(self) -> dict[str, float]:
        """Seconds an image, by id, of the candidates that were loaded so far."""
        return measured_latencies(self.candidates, self.task, self.store)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """What came of a study."""

    outcome: StudyOutcome  # with the final fits
    best: BestModel | None
    ensemble: EnsembleModel | None
    warnings: Mapping[str, str]  # candidate -> what a user of it must know
    latencies: Mapping[str, float]  # candidate -> seconds an image


def finish(
    outcome: StudyOutcome,
    delivery: Delivery,
    *,
    engine: Engine,
    deadline: float | None,
    interrupted: bool,
    exported: TrialResult | None,
    sink: Sink,
) -> Finished:
    """Fit the chosen towers on all labels, and export.

    Args:
        outcome: of the study.
        delivery: decides which models there are.
        engine: where final fits run.
        deadline: `time.monotonic` by which final fits must be over.
        interrupted: somebody waits for the end: nothing is fitted any more.
        exported: the trial whose model is in ``workdir/model`` already, see `best_so_far`; None: none.
        sink: takes events.
    """
    task, candidates, workdir = delivery.task, delivery.candidates, delivery.workdir
    latencies = delivery.latencies()
    pooled = _pooled(outcome.members, outcome.results, delivery, latencies=latencies, sink=sink)
    if outcome.best is not None and not interrupted:
        outcome = fit_finally(
            outcome,
            wanted=_wanted(outcome.best, pooled),
            engine=engine,
            deadline=deadline,
            sink=sink,
        )
    warnings = _warnings(outcome, delivery, sink=sink)
    return Finished(
        outcome=outcome,
        best=export_best(
            outcome,
            task=task,
            candidates=candidates,
            workdir=workdir,
            sink=sink,
            warnings=warnings,
            exported=exported,
        ),
        ensemble=export_ensemble(
            pooled,
            trials=outcome.members,
            task=task,
            candidates=candidates,
            workdir=workdir,
            sink=sink,
            warnings=warnings,
        ),
        warnings=warnings,
        latencies=latencies,
    )


def wanted_now(best: TrialResult, members: Sequence[TrialResult], *, delivery: Delivery) -> list[int]:
    """Numbers of the trials that the user would get, if the search ended with these."""
    return _wanted(best, _pooled(members, (), delivery, latencies=delivery.latencies(), sink=discard))


def _wanted(best: TrialResult, pooled: Pool | None) -> list[int]:
    return list(dict.fromkeys([best.number, *([] if pooled is None else pooled.towers)]))


def _pooled(
    members: Sequence[TrialResult],
    results: Sequence[TrialResult],
    delivery: Delivery,
    *,
    latencies: Mapping[str, float],
    sink: Sink,
) -> Pool | None:
    return pool_leaders(
        members,
        size=delivery.size,
        fits=together(delivery.limits, delivery.candidates, latencies),
        charge=charge_together(delivery.objective, delivery.candidates, latencies),
        results=results,
        task=delivery.task,
        workdir=delivery.workdir,
        sink=sink,
    )


def _warnings(outcome: StudyOutcome, delivery: Delivery, *, sink: Sink) -> dict[str, str]:
    """What the user must know of leading candidates, told at once, for report and cards."""
    leading = {each.spec.candidate for each in (*outcome.members, outcome.best) if each is not None}
    chosen = [one for one in delivery.candidates if one.id in leading]
    found = suspicions(chosen, task=delivery.task, store=delivery.store)
    for text in found.values():
        sink(Notice(text=text, level="warning"))
    return found
