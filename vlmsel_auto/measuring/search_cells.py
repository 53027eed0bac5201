"""A finished search becomes a source task of the user's library, so that the next search starts wiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Final, cast

import numpy as np

from vlmsel_auto.library.records import Build, Cell
from vlmsel_auto.measuring.cells import cell_of
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, Task, TrialResult, TrialState
from vlmsel_auto.tasks.split import few_shot
from vlmsel_auto.tuning.methods import method_of

SEARCH: Final = "vlmsel-auto search"  # the source that a library names for what a search measured
RUN: Final = "search"  # name of the tuning run in the library
RUN_SOURCES: Final = {RUN: "best trial of each candidate in a search"}
_SHOTS: Final = (1, 2, 4, 8, 16)


def cells_of_search(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    measured: Sequence[Measurement],
    trials: Sequence[TrialResult],
    seed: int,
) -> list[Cell]:
    """One cell for every measured candidate that knows class names; ``candidates`` may hold more.

    Zero-shot accuracy is that on the labelled images that screenings embed, so no model is run again; tuned and probed
    accuracies are those of the best trials on the test split, where there were trials.
    """
    by_id = {one.id: one for one in candidates}
    build = Build(
        source=SEARCH,
        code_version=metadata.version("vlmsel-auto"),
        settings=(("scalar", "margin"), ("seed", str(seed)), ("zero_shot", "training images of screenings")),
    )
    tuned, probed = _best(trials, trains=Trains.TOWER), _best(trials, trains=Trains.HEAD)
    support = task.support
    draws = {
        (0, shots): few_shot(task.labels, support, shots=shots, seed=seed)
        for shots in _SHOTS
        if shots <= max(task.shots, 1)
    }
    labelled = np.concatenate([support, task.others])
    # images of no split have numbers below 0, by what they show: the digest of the task does not cover them
    beside = np.empty(0, np.int64) if task.beside is None else task.beside.image_ids
    images = np.concatenate([labelled, -1 - beside])
    cells = []
    for one in measured:
        if not by_id[one.candidate].has_text:  # libraries compare candidates by what they say of class names
            continue
        whole = replace(one, features=one.all_features)
        cell = cell_of(
            whole,
            candidate=by_id[one.candidate],
            task=task,
            images=images,
            unlabelled=images,
            compared=images,
            draws=draws,
            zero_shot=zeroshot.zeroshot(
                zeroshot.cosines(whole.features[: len(labelled)], one.text_features), task.labels[labelled]
            ),
            build=build,
        )
        runs = {RUN: tuned[one.candidate]} if one.candidate in tuned else {}
        known = replace(cell.task, zero_shot_images=len(labelled))
        cells.append(replace(cell, task=known, tuned=runs, probed=probed.get(one.candidate, np.nan)))
    return cells


def _best(trials: Sequence[TrialResult], *, trains: Trains) -> Mapping[str, float]:
    """Test metric of each candidate's best complete trial by a method that trains this, chosen by validation."""
    known = [
        (trial.validation, trial)
        for trial in trials
        if trial.state is TrialState.COMPLETE and method_of(trial.spec.method).trains is trains
        if trial.validation is not None and trial.test is not None
    ]
    best: dict[str, float] = {}
    for _, trial in sorted(known, key=lambda each: each[0], reverse=True):
        best.setdefault(trial.spec.candidate, cast("float", trial.test))
    return best
