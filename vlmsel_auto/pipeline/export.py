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

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Notice, Sink, StageFinished, StageStarted, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.models.card import Provenance
from vlmsel_auto.models.embedding import find_embeddings
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.familiar import Familiar, familiar
from vlmsel_auto.models.selective import answer_levels
from vlmsel_auto.pipeline.joined import Joined, calibrated, held_out_of
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import AnswerLevel, BestModel, Candidate, FinalScore, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.reporting.mistakes import judge
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.final_score import final_score
from vlmsel_auto.tuning.methods import method_of

_LEADER_SHARE: Final = 0.03  # of the time, at most, for exports that may be replaced


def export_best(
    joined: Joined,
    *,
    task: Task,
    candidate: Candidate,
    workdir: Path,
    store: Store,
    sink: Sink,
    exported: TrialResult | None = None,
) -> BestModel:
    """Write the chosen model to ``workdir/model``.

    A model that cannot be written costs a notice: it is returned all the same, without a folder. Where the model of the
    trial ``exported`` is there already and is the same, nothing is written.

    Args:
        joined: the chosen model, at its temperature.
        task: the target.
        candidate: of the model.
        workdir: of the search.
        store: of embeddings.
        sink: takes events.
        exported: the trial whose model is in ``workdir/model`` already; None: none.
    """
    began = time.monotonic()
    sink(StageStarted(stage="report", text="export and report"))
    trial, directory, folder = joined.trial, None, workdir / "model"
    try:
        if joined.fits > 1 or trial != exported:
            export_joined(joined, candidate=candidate, task=task, directory=folder, store=store)
        directory = folder
    except VlmselError as error:
        sink(Notice(text=f"the best model was not exported: {error}", level="error"))
    on_test = _on_test(joined, task=task)
    sink(StageFinished(stage="report", seconds=time.monotonic() - began))
    return replace(
        without_model(trial, candidate=candidate),
        test=trial.test if on_test is None else on_test.metric,
        model_dir=directory,
        on_test=on_test,
        fits=joined.fits,
        answers=_answers(joined, task=task),
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


def _answers(joined: Joined, *, task: Task) -> tuple[AnswerLevel, ...]:
    said = joined.held_out
    return () if said is None else answer_levels(said.logs, task.labels[said.rows])


def _familiar(joined: Joined, *, candidate: Candidate, task: Task, store: Store) -> Familiar | None:
    """What a head learned from, by the embeddings that it was fitted to."""
    if joined.checkpoint.visual is not None:
        return None
    rows = splits(task).labelled
    known = find_embeddings(candidate, task, rows, store=store)
    return None if known is None else familiar(known.images, task.labels[rows])


def _on_test(joined: Joined, *, task: Task) -> FinalScore | None:
    logits = joined.checkpoint.test_logits
    return None if logits is None else final_score(task, logits)


def export_joined(
    joined: Joined,
    *,
    candidate: Candidate,
    task: Task,
    directory: Path,
    store: Store,
) -> Path:
    """Write a model.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        WorkdirError: ``directory`` holds something else, or cannot be written.
    """
    trial, kept = joined.trial, joined.checkpoint
    on_test = _on_test(joined, task=task)
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
                "test": trial.test if on_test is None else on_test.metric,
                "trial": trial.number,
                "seed": trial.spec.seed,
                "digest": task.digest,
            },
            answers=_answers(joined, task=task),
            familiar=_familiar(joined, candidate=candidate, task=task, store=store),
        ),
        directory=directory,
        known=_provenance(joined, on_test, task=task),
    )


def _provenance(joined: Joined, on_test: FinalScore | None, *, task: Task) -> Provenance:
    """What the card says: scores and confusions on the test images, or on held-out ones where there are none."""
    trial, rows = joined.trial, np.sort(task.test)
    said: FloatArray | NDArray[np.float32] | None = joined.checkpoint.test_logits
    if on_test is None:
        said, rows = (None, rows) if joined.held_out is None else (joined.held_out.logs, joined.held_out.rows)
    return Provenance(
        task=task.name,
        digest=task.digest,
        method=method_of(trial.spec.method).label,
        metric=task.metric,
        validation=trial.validation,
        validation_images=trial.validation_images or 0,
        on_test=on_test,
        confusions=confused(said, rows=rows, task=task),
        confused_in="validation" if on_test is None else "test",
        answers=_answers(joined, task=task),
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


@dataclass(kw_only=True, eq=False)
class LeaderExport:
    """A sink that exports the leader of finished trials to ``workdir/model``, before the events go on.

    The first is exported at once, a better one as soon as all exports together took no more than 3 % of the time.
    """

    sink: Sink
    task: Task
    candidates: Sequence[Candidate]
    workdir: Path
    store: Store
    began: float = field(default_factory=time.monotonic)
    exported: TrialResult | None = None  # whose model is in ``workdir/model``
    _spent: float = 0.0
    _tried: int | None = None  # number of the last trial that was to be exported

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, TrialFinished) and event.leader is not None and not event.resumed:
            self._keep(event.leader)
        self.sink(event)

    def _keep(self, leader: TrialResult) -> None:
        begun = time.monotonic()
        if leader.number == self._tried or self._spent > _LEADER_SHARE * (begun - self.began):
            return
        candidate = next(one for one in self.candidates if one.id == leader.spec.candidate)
        try:
            joined = calibrated(
                Joined(
                    trial=leader,
                    fits=1,
                    held_out=held_out_of(leader, (), task=self.task, workdir=self.workdir),
                    checkpoint=load_trial(self.workdir, leader),
                ),
                task=self.task,
            )
            self.exported = None
            directory = self.workdir / "model"
            export_joined(joined, candidate=candidate, task=self.task, directory=directory, store=self.store)
            self.exported = leader
        except VlmselError as error:
            self.sink(Notice(text=f"the best model so far was not exported: {error}", level="warning"))
        self._tried = leader.number
        self._spent += time.monotonic() - begun
        release_memory()
