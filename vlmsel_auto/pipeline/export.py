"""The chosen model to a folder that plain open_clip loads, and the leading one while the search goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Notice, StageFinished, StageStarted, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.models.card import Provenance, ensemble_card
from vlmsel_auto.models.embedding import find_embeddings
from vlmsel_auto.models.ensembles import write_ensemble
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.facts import facts_of, known_sum
from vlmsel_auto.models.familiar import Familiar, familiar
from vlmsel_auto.models.selective import answer_levels
from vlmsel_auto.pipeline.joined import Joined, Trials, calibrated, held_out_of
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import BestModel, Candidate, EnsembleModel, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.reporting.mistakes import judge
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.final_score import final_score
from vlmsel_auto.tuning.methods import method_of

_LEADER_SHARE: Final = 0.03  # of the time, at most, for exports that may be replaced


def export_best(joined: Joined, trials: Trials, *, exported: TrialResult | None = None) -> BestModel:
    """Write the chosen model, at its temperature, to ``workdir/model``.

    A model that cannot be written costs a notice: it is returned all the same, without a folder. Where the model of the
    trial ``exported`` is there already and is the same, nothing is written.
    """
    began, sink = time.monotonic(), trials.sink
    sink(StageStarted(stage="report", text="export and report"))
    trial, directory, folder = joined.trial, None, trials.workdir / "model"
    try:
        if joined.fits > 1 or trial != exported:
            export_joined(joined, trials, directory=folder)
        directory = folder
    except VlmselError as error:
        sink(Notice(text=f"the best model was not exported: {error}", level="error"))
    known = _provenance(joined, task=trials.task)
    sink(StageFinished(stage="report", seconds=time.monotonic() - began))
    return replace(
        without_model(trial, candidate=trials.candidate_of(trial)),
        test=_test_figure(trial, known),
        model_dir=directory,
        on_test=known.on_test,
        fits=joined.fits,
        answers=known.answers,
    )


def without_model(trial: TrialResult, *, candidate: Candidate) -> BestModel:
    """A chosen trial of which no model could be written."""
    return BestModel(
        candidate=candidate.id,
        method=trial.spec.method,
        validation=trial.validation,
        test=trial.test,
        trial=trial.number,
        model_dir=None,
        params=candidate.params,
    )


def _familiar(joined: Joined, trials: Trials) -> Familiar | None:
    """What a head learned from, by the embeddings that it was fitted to."""
    if joined.checkpoint.visual is not None:
        return None
    task, rows = trials.task, splits(trials.task).labelled
    known = find_embeddings(trials.candidate_of(joined.trial), task, rows, store=trials.store)
    return None if known is None else familiar(known.images, task.labels[rows])


def export_joined(joined: Joined, trials: Trials, *, directory: Path) -> Path:
    """Write a model.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        WorkdirError: ``directory`` holds something else, or cannot be written.
    """
    trial, kept, task = joined.trial, joined.checkpoint, trials.task
    known = _provenance(joined, task=task)
    model = zoo.load(trials.candidate_of(trial))
    if kept.visual is not None:
        model.visual.load_state_dict(dict(kept.visual), strict=True)
    head = Classifier(
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
            "test": _test_figure(trial, known),
            "trial": trial.number,
            "seed": trial.spec.seed,
            "digest": task.digest,
        },
        answers=known.answers,
        familiar=_familiar(joined, trials),
    )
    return export(model, head, directory=directory, known=known)


def _test_figure(trial: TrialResult, known: Provenance) -> float | None:
    return trial.test if known.on_test is None else known.on_test.metric


def _provenance(joined: Joined, *, task: Task) -> Provenance:
    """What the card says: scores and confusions on the test images, or on held-out ones where there are none."""
    trial, held_out, logits = joined.trial, joined.held_out, joined.checkpoint.test_logits
    said: FloatArray | NDArray[np.float32] | None = logits
    rows = np.sort(task.test)
    if logits is None:
        said, rows = (None, rows) if held_out is None else (held_out.logs, held_out.rows)
    return Provenance(
        task=task.name,
        digest=task.digest,
        method=method_of(trial.spec.method).label,
        metric=task.metric,
        validation=trial.validation,
        validation_images=trial.validation_images or 0,
        on_test=None if logits is None else final_score(task, logits),
        confusions=confused(said, rows=rows, task=task),
        confused_in="validation" if logits is None else "test",
        answers=() if held_out is None else answer_levels(held_out.logs, task.labels[held_out.rows]),
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


def write_pool(
    folder: Path,
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    *,
    classes: Sequence[str],
    known: Provenance,
    trials: Sequence[int] = (),
) -> EnsembleModel:
    """Make an ensemble of the models of these candidates in ``folder/member-1`` and so on.

    Args:
        folder: of the ensemble.
        candidates: one for each member, in their order.
        weights: of their log-probabilities.
        classes: of the task.
        known: what they reach together.
        trials: numbers of their trials; none without labels.
    """
    origins = [facts_of(one) for one in candidates]
    text = ensemble_card(name=folder.name, classes=classes, origins=origins, weights=weights, known=known)
    write_ensemble(folder, weights=weights, answers=known.answers, card=text)
    return EnsembleModel(
        members=tuple(one.id for one in candidates),
        trials=tuple(trials),
        weights=tuple(weights),
        validation=known.validation,
        validation_images=known.validation_images,
        test=None if known.on_test is None else known.on_test.metric,
        model_dir=folder,
        on_test=known.on_test,
        params=known_sum([one.params for one in candidates]),
        answers=known.answers,
    )


@dataclass(kw_only=True, eq=False)
class LeaderExport:
    """A sink that exports the leader of finished trials to ``workdir/model``, before the events go on.

    The first is exported at once, a better one as soon as all exports together took no more than 3 % of the time.
    """

    trials: Trials
    began: float = field(default_factory=time.monotonic)
    exported: TrialResult | None = None  # whose model is in ``workdir/model``
    _spent: float = 0.0
    _tried: int | None = None  # number of the last trial that was to be exported

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, TrialFinished) and event.leader is not None and not event.resumed:
            self._keep(event.leader)
        self.trials.sink(event)

    def _keep(self, leader: TrialResult) -> None:
        begun, trials = time.monotonic(), self.trials
        if leader.number == self._tried or self._spent > _LEADER_SHARE * (begun - self.began):
            return
        try:
            held_out, kept = held_out_of(leader, trials), load_trial(trials.workdir, leader)
            alone = Joined(trial=leader, fits=1, held_out=held_out, checkpoint=kept)
            self.exported = None
            export_joined(calibrated(alone, task=trials.task), trials, directory=trials.workdir / "model")
            self.exported = leader
        except VlmselError as error:
            trials.sink(Notice(text=f"the best model so far was not exported: {error}", level="warning"))
        self._tried = leader.number
        self._spent += time.monotonic() - begun
        release_memory()
