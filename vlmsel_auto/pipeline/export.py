"""The best trial of a study to a model folder that plain open_clip loads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.card import Provenance
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.records import BestModel, Candidate, FinalScore, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.reporting.mistakes import judge
from vlmsel_auto.study.results import over_parts
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.final_score import final_score
from vlmsel_auto.tuning.methods import method_of

NO_WARNINGS: Final[Mapping[str, str]] = MappingProxyType({})
_LEAST: Final = 0.05  # of the sureness: one that is wrong everywhere still names classes


def export_best(
    outcome: StudyOutcome,
    *,
    task: Task,
    candidates: Sequence[Candidate],
    workdir: Path,
    sink: Sink,
    warnings: Mapping[str, str] = NO_WARNINGS,
    exported: TrialResult | None = None,
) -> BestModel | None:
    """Write the best trial's model to ``workdir/model``; None without a complete trial.

    A model that cannot be written costs a notice: the best trial is returned all the same, without a folder. The card
    of a candidate's model says what ``warnings`` have for it. Validation is that on all parts of the labelled images
    that the best trial's settings were scored on. Where the model of ``exported`` is there already and is the same,
    nothing is written.
    """
    chosen = outcome.best
    if chosen is None or chosen.validation is None:
        return None
    told = over_parts(chosen, outcome.results)
    began = time.monotonic()
    sink(StageStarted(stage="report", text="export and report"))
    candidate = next(one for one in candidates if one.id == chosen.spec.candidate)
    directory: Path | None = None
    on_test: FinalScore | None = None
    try:
        kept = calibrated(load_trial(workdir, chosen), trial=chosen, task=task)
        on_test = None if kept.test_logits is None else final_score(task, kept.test_logits)
        if told != exported or candidate.id in warnings:
            export_trial(told, kept, candidate=candidate, task=task, directory=workdir / "model", warnings=warnings)
        directory = workdir / "model"
    except VlmselError as error:
        sink(Notice(text=f"the best model was not exported: {error}", level="error"))
    sink(StageFinished(stage="report", seconds=time.monotonic() - began))
    return BestModel(
        candidate=candidate.id,
        method=chosen.spec.method,
        validation=told.validation,
        test=chosen.test,
        trial=chosen.number,
        model_dir=directory,
        on_test=on_test,
        params=candidate.params,
    )


def held_out_rows(trial: TrialResult, *, task: Task) -> IntArray:
    """Sorted images that a trial's held-out logits are of: its part for a tower, all labelled ones for a head."""
    parts = splits(task, fold=trial.spec.fold)
    return parts.val if method_of(trial.spec.method).trains is Trains.TOWER else parts.held_out


def calibrated(kept: Checkpoint, *, trial: TrialResult, task: Task) -> Checkpoint:
    """The classifier at the temperature that its held-out images give (Guo et al., ICML 2017); no class changes places.

    It is a pool of one member, shrunk towards the classifier as it is: few images tell little.
    """
    if kept.held_out_logits is None:
        return kept
    logs = log_probabilities(kept.held_out_logits)
    labels = task.labels[held_out_rows(trial, task=task)]
    (fitted,) = fit_weights([logs], labels, start=[1.0]).tolist()
    sureness = max(_LEAST, fitted)
    return replace(
        kept,
        weight=np.asarray(sureness * kept.weight, dtype=np.float32),
        bias=np.asarray(sureness * kept.bias, dtype=np.float32),
        held_out_logits=np.asarray(sureness * kept.held_out_logits, dtype=np.float32),
        test_logits=None if kept.test_logits is None else np.asarray(sureness * kept.test_logits, dtype=np.float32),
    )


def export_trial(
    trial: TrialResult,
    kept: Checkpoint,
    *,
    candidate: Candidate,
    task: Task,
    directory: Path,
    warnings: Mapping[str, str] = NO_WARNINGS,
) -> Path:
    """Write the model of a trial, with the sentence that ``warnings`` has for its candidate.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        WorkdirError: ``directory`` holds something else, or cannot be written.
    """
    model = zoo.load(candidate)
    if kept.visual is not None:
        model.visual.load_state_dict(dict(kept.visual), strict=True)
    return export(
        model,
        Classifier(
            head=kept.weight,
            bias=kept.bias,
            scale=kept.scale,
            classes=task.classes,
            prompts=task.prompts,
            templates=task.templates,
            about={
                "task": task.name,
                "method": trial.spec.method,
                "metric": task.metric,
                "validation": trial.validation,
                "test": trial.test,
                "trial": trial.number,
                "seed": trial.spec.seed,
                "digest": task.digest,
            },
        ),
        directory=directory,
        known=_provenance(trial, kept, task=task, warning=warnings.get(candidate.id, "")),
    )


def _provenance(trial: TrialResult, kept: Checkpoint, *, task: Task, warning: str) -> Provenance:
    """What the card says: scores and confusions on the test images, or on held-out ones where there are none."""
    on_test = None if kept.test_logits is None else final_score(task, kept.test_logits)
    rows = held_out_rows(trial, task=task) if on_test is None else np.sort(task.test)
    return Provenance(
        task=task.name,
        digest=task.digest,
        method=method_of(trial.spec.method).label,
        metric=task.metric,
        validation=trial.validation,
        validation_images=trial.validation_images or 0,
        on_test=on_test,
        confusions=confused(kept.held_out_logits if on_test is None else kept.test_logits, rows=rows, task=task),
        confused_in="validation" if on_test is None else "test",
        warning=warning,
    )


def confused(
    logits: FloatArray | NDArray[np.float32] | None, *, rows: IntArray, task: Task
) -> tuple[tuple[str, str, int], ...]:
    """Pairs of classes (true, predicted, images) that logits (n, K) of the images ``rows`` (n,) mix up, worst first."""
    if logits is None:
        return ()
    shares, paths = softmax(logits.astype(np.float64), axis=1), [task.paths[row] for row in rows]
    found = judge(shares, labels=task.labels[rows], classes=task.classes, paths=paths, split="")
    return tuple((each.true, each.predicted, each.images) for each in found.confusions)
