"""The chosen towers once more, on all labelled images: a trial holds a part of them out, the user's model need not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialFailed
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import save_result
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.run import fit_on_all_labels, seconds_on_all_labels
from vlmsel_auto.tuning.work import Loader


def fit_finally(
    outcome: StudyOutcome,
    *,
    wanted: Sequence[int],
    task: Task,
    candidates: Sequence[Candidate],
    load: Loader,
    store: Store,
    workdir: Path,
    device: str,
    deadline: float | None,
    sink: Sink,
) -> StudyOutcome:
    """Fit towers on all labelled images while there is time for whole fits; heads already are.

    Args:
        outcome: of the study; its weights are in ``workdir``.
        wanted: numbers of the trials that the user gets, the most important first.
        task: the target; without `Task.folds` nothing is done, for the user's own validation images only decide.
        candidates: all that were usable.
        load: gives a freshly loaded model of a candidate.
        store: where embeddings are kept.
        workdir: the search's work directory.
        device: where the models are.
        deadline: `time.monotonic` at which all must be over; None: no end.
        sink: told of a fit that failed; the trial's own weights then stay.
    """
    by_id = {one.id: one for one in candidates}
    results = {each.number: each for each in outcome.results}
    for number in wanted if task.folds else ():
        trial = results[number]
        if method_of(trial.spec.method).trains is not Trains.TOWER or trial.on_all_labels:
            continue
        if deadline is not None and time.monotonic() + seconds_on_all_labels(trial, folds=len(task.folds)) > deadline:
            continue
        try:
            made = fit_on_all_labels(
                trial, task=task, candidate=by_id[trial.spec.candidate], load=load, store=store, workdir=workdir,
                device=device, deadline=deadline,
            )  # fmt: skip
        except TrialFailed as error:
            sink(Notice(text=f"trial {number} stays as it is, not fitted on all labels: {error}", level="warning"))
            continue
        if made is not None:
            save_result(workdir, made)
            results[number] = made
    best = None if outcome.best is None else results[outcome.best.number]
    return replace(
        outcome,
        results=tuple(results[each.number] for each in outcome.results),
        best=best,
        members=tuple(results[each.number] for each in outcome.members),
    )
