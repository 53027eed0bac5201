"""The fits of one candidate by the same settings as one classifier: what is exported, and what is known of it.

A head is one fit. A tower has one fit for each fold that it was scored on; the mean of their weights is one tower, and
each image is judged by the fit that left it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.study.results import other_folds, over_folds
from vlmsel_auto.tuning.averaging import averaged
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial, read_held_out
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.work import Loader

_LEAST = 0.05  # of the sureness: one that is wrong everywhere still names classes


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """What fits of the same settings say of images that they left out. n: images, K: classes."""

    rows: IntArray  # (n,) sorted image indices
    logs: FloatArray  # (n, K) log-probabilities

    def at(self, rows: IntArray) -> FloatArray:
        """Log-probabilities of some of the rows."""
        return self.logs[np.searchsorted(self.rows, rows)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """One classifier."""

    trial: TrialResult  # the first of its fits, with the validation of all
    fits: int  # whose mean weights it has
    held_out: HeldOut | None
    checkpoint: Checkpoint  # with the logits of the test images


def left_out(trial: TrialResult, *, task: Task) -> IntArray:
    """Sorted images that a trial's held-out logits are of: its fold for a tower, all labelled ones for a head."""
    parts = splits(task, fold=trial.spec.fold)
    return parts.val if method_of(trial.spec.method).trains is Trains.TOWER else parts.held_out


def held_out_of(trial: TrialResult, results: Sequence[TrialResult], *, task: Task, workdir: Path) -> HeldOut | None:
    """What a trial and those of its settings on other folds say; None: the trial's own logits were not kept.

    Raises:
        TrialUnavailable: its weights are not there.
    """
    logits = load_trial(workdir, trial, tower=False).held_out_logits
    if logits is None:
        return None
    rows, logs = [left_out(trial, task=task)], [log_probabilities(logits)]
    for other in other_folds(trial, results) if method_of(trial.spec.method).trains is Trains.TOWER else ():
        further = read_held_out(workdir, other)
        with suppress(TrialUnavailable):  # damaged, or gone: this fit alone says nothing
            further = load_trial(workdir, other, tower=False).held_out_logits
        if further is not None:
            rows.append(left_out(other, task=task))
            logs.append(log_probabilities(further))
    order = np.argsort(np.concatenate(rows))
    return HeldOut(rows=np.concatenate(rows)[order], logs=np.concatenate(logs)[order])


def join(
    trial: TrialResult,
    results: Sequence[TrialResult],
    *,
    task: Task,
    candidate: Candidate,
    workdir: Path,
    load: Loader,
) -> Joined:
    """One classifier of a trial and those of its settings on other folds; no temperature is fitted.

    Where the mean of the weights is worse on the images that its fits learned from than they were on them unseen, or
    memory does not suffice, the trial stands alone.

    Args:
        trial: complete; its weights are in ``workdir``.
        results: all trials.
        task: the target.
        candidate: of the trial.
        workdir: of the search.
        load: loads the candidate.

    Raises:
        TrialUnavailable: the trial's weights are missing or damaged, or the candidate cannot be loaded.
    """
    told = over_folds(trial, results)
    held_out = held_out_of(trial, results, task=task, workdir=workdir)
    kept = load_trial(workdir, trial)
    fits = [kept]
    for each in () if kept.visual is None else other_folds(trial, results):
        with suppress(TrialUnavailable):  # likewise
            fits.append(load_trial(workdir, each))
    if len(fits) == 1 or held_out is None or told.validation is None:
        return Joined(trial=told, fits=1, held_out=held_out, checkpoint=kept)
    try:
        mean = averaged(fits, task=task, candidate=candidate, load=load, known=held_out.rows, least=told.validation)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        mean = None
    finally:
        release_memory()
    if mean is None:
        return Joined(trial=told, fits=1, held_out=held_out, checkpoint=kept)
    return Joined(trial=told, fits=len(fits), held_out=held_out, checkpoint=mean)


def calibrated(joined: Joined, *, task: Task) -> Joined:
    """The classifier at the temperature that its held-out images give (Guo et al., ICML 2017); no class changes places.

    It is a pool of one member, shrunk towards the classifier as it is: few images tell little.
    """
    held_out, kept = joined.held_out, joined.checkpoint
    if held_out is None:
        return joined
    (fitted,) = fit_weights([held_out.logs], task.labels[held_out.rows], start=[1.0]).tolist()
    sureness = max(_LEAST, fitted)
    return replace(
        joined,
        held_out=replace(held_out, logs=log_probabilities(sureness * held_out.logs)),
        checkpoint=replace(
            kept,
            weight=np.asarray(sureness * kept.weight, dtype=np.float32),
            bias=np.asarray(sureness * kept.bias, dtype=np.float32),
            test_logits=None if kept.test_logits is None else np.asarray(sureness * kept.test_logits, dtype=np.float32),
        ),
    )
