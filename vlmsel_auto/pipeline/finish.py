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
from vlmsel_auto.pipeline.ensemble import Pool, export_ensemble, pool_leaders
from vlmsel_auto.pipeline.export import export_best
from vlmsel_auto.pipeline.final_fit import fit_finally
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import BestModel, Candidate, EnsembleModel, Task, TrialResult
from vlmsel_auto.study.study import StudyOutcome


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
    *,
    task: Task,
    candidates: Sequence[Candidate],
    size: int,
    limits: Limits,
    objective: Objective,
    store: Store,
    workdir: Path,
    engine: Engine,
    deadline: float | None,
    interrupted: bool,
    exported: TrialResult | None,
    sink: Sink,
) -> Finished:
    """Fit the chosen towers on all labels, and export.

    Args:
        outcome: of the study.
        task: the target.
        candidates: all that were usable.
        size: of the ensemble, see `ensemble.pool_leaders`.
        limits: which the ensemble keeps as a whole.
        objective: by which its members must be worth what they cost.
        store: has the embeddings.
        workdir: where checkpoints are and models go.
        engine: where final fits run.
        deadline: `time.monotonic` by which final fits must be over.
        interrupted: somebody waits for the end: nothing is fitted any more.
        exported: the trial whose model is in ``workdir/model`` already, see `best_so_far`; None: none.
        sink: takes events.
    """
    latencies = measured_latencies(candidates, task, store)
    pooled = _pooled(
        outcome.members, task=task, candidates=candidates, size=size, limits=limits, objective=objective,
        latencies=latencies, workdir=workdir, sink=sink,
    )  # fmt: skip
    if outcome.best is not None and not interrupted:
        outcome = fit_finally(
            outcome,
            wanted=_wanted(outcome.best, pooled),
            engine=engine,
            deadline=deadline,
            sink=sink,
        )
    warnings = _warnings(outcome, candidates, task=task, store=store, sink=sink)
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


def wanted_now(
    best: TrialResult,
    members: Sequence[TrialResult],
    *,
    task: Task,
    candidates: Sequence[Candidate],
    size: int,
    limits: Limits,
    objective: Objective,
    store: Store,
    workdir: Path,
) -> list[int]:
    """Numbers of the trials that the user would get, if the search ended with these; other arguments as `finish`."""
    pooled = _pooled(
        members, task=task, candidates=candidates, size=size, limits=limits, objective=objective,
        latencies=measured_latencies(candidates, task, store), workdir=workdir, sink=discard,
    )  # fmt: skip
    return _wanted(best, pooled)


def _wanted(best: TrialResult, pooled: Pool | None) -> list[int]:
    return list(dict.fromkeys([best.number, *([] if pooled is None else pooled.towers)]))


def _pooled(
    members: Sequence[TrialResult],
    *,
    task: Task,
    candidates: Sequence[Candidate],
    size: int,
    limits: Limits,
    objective: Objective,
    latencies: Mapping[str, float],
    workdir: Path,
    sink: Sink,
) -> Pool | None:
    return pool_leaders(
        members,
        size=size,
        fits=together(limits, candidates, latencies),
        charge=charge_together(objective, candidates, latencies),
        task=task,
        workdir=workdir,
        sink=sink,
    )


def _warnings(
    outcome: StudyOutcome, candidates: Sequence[Candidate], *, task: Task, store: Store, sink: Sink
) -> dict[str, str]:
    """What the user must know of leading candidates, told at once, for report and cards."""
    leading = {each.spec.candidate for each in (*outcome.members, outcome.best) if each is not None}
    found = suspicions([one for one in candidates if one.id in leading], task=task, store=store)
    for text in found.values():
        sink(Notice(text=text, level="warning"))
    return found
