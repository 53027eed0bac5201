"""The mean of the leading candidates: an ensemble of their best trials, exported where it is expected to be better.

A plain mean of probabilities is our own choice: few validation images are little to fit weights to. What it is worth:
benchmarks/final_accuracy.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.models.ensembles import write_ensemble
from vlmsel_auto.pipeline.export import export_trial
from vlmsel_auto.records import Candidate, EnsembleModel, IntArray, Task, TrialResult
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.data import Measured, Splits, measure, splits

_FOLDER = "ensemble"


def export_ensemble(
    members: Sequence[TrialResult],
    *,
    size: int,
    task: Task,
    candidates: Sequence[Candidate],
    workdir: Path,
    sink: Sink,
) -> EnsembleModel | None:
    """Write the mean of the first ``size`` members to ``workdir/ensemble``.

    Args:
        members: best trial of each leading candidate, best first.
        size: at most so many; fewer than two give no ensemble.
        task: the target.
        candidates: all that were usable.
        workdir: where the study's checkpoints are.
        sink: told when it could not be written.

    Returns:
        The ensemble; None where there is none, or where the first member alone has the smaller loss on images that no
        scored head saw: all labelled ones where every member was cross-validated, else the validation images.
    """
    folder = workdir / _FOLDER
    try:
        kept = [load_trial(workdir, each.number) for each in members[:size]]
        chosen = [(trial, one) for trial, one in zip(members, kept, strict=False) if one.held_out_logits is not None]
        shutil.rmtree(folder, ignore_errors=True)  # an earlier call's would look like this one's
        if len(chosen) < 2:  # noqa: PLR2004 - a mean of one is that one
            return None
        parts = splits(task)
        held_out = _held_out([one.held_out_logits for _, one in chosen], parts)
        rows = parts.held_out if len(held_out[0]) == len(parts.held_out) else parts.val
        together = _mean(task, held_out, rows)
        if together.loss >= _mean(task, held_out[:1], rows).loss:
            return None
        test = _mean(task, [one.test_logits for _, one in chosen], parts.test).metric if len(parts.test) else None
        by_id = {one.id: one for one in candidates}
        for place, (trial, one) in enumerate(chosen, start=1):
            candidate = by_id[trial.spec.candidate]
            export_trial(trial, one, candidate=candidate, task=task, directory=folder / f"member-{place}")
        write_ensemble(folder, members=len(chosen))
    except VlmselError as error:  # the single model and the report are worth having all the same
        sink(Notice(text=f"no ensemble was exported: {error}", level="warning"))
        return None
    return EnsembleModel(
        members=tuple(trial.spec.candidate for trial, _ in chosen),
        trials=tuple(trial.number for trial, _ in chosen),
        validation=together.metric,
        validation_images=together.images,
        test=test,
        model_dir=folder,
    )


def _held_out(logits: Sequence[NDArray[np.float32] | None], parts: Splits) -> list[NDArray[np.float32]]:
    """Logits of the same images for all members: of all labelled ones, or of the validation images a tower has."""
    found = [each for each in logits if each is not None]
    if all(len(each) == len(parts.held_out) for each in found):
        return found
    places = np.searchsorted(parts.held_out, parts.val)
    return [each if len(each) == len(parts.val) else each[places] for each in found]


def _mean(task: Task, logits: Sequence[NDArray[np.float32] | None], rows: IntArray) -> Measured:
    """Metric and loss of the mean probability."""
    shares = [torch.from_numpy(each).double().softmax(dim=1).numpy() for each in logits if each is not None]
    logs = torch.from_numpy(np.log(np.maximum(np.mean(shares, axis=0), 1e-12)))
    return measure(task.metric, logits=logs, labels=torch.from_numpy(task.labels[rows]))
