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

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import Sink
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
class Trials:
    """What the trials of a search left, and what models are made of it with."""

    task: Task
    candidates: Sequence[Candidate]  # that were usable
    workdir: Path  # of the search: weights and logits are there
    store: Store  # of embeddings
    sink: Sink  # told what could not be made
    results: Sequence[TrialResult] = ()  # of all trials: those of the same settings on other folds tell more of one

    def candidate_of(self, trial: TrialResult) -> Candidate:
        """Whose trial it is."""
        return next(one for one in self.candidates if one.id == trial.spec.candidate)


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


def held_out_of(trial: TrialResult, trials: Trials) -> HeldOut | None:
    """What a trial and those of its settings on other folds say; None: the trial's own logits were not kept.

    Raises:
        TrialUnavailable: its weights are not there.
    """
    task, workdir = trials.task, trials.workdir
    logits = load_trial(workdir, trial, tower=False).held_out_logits
    if logits is None:
        return None
    rows, logs = [left_out(trial, task=task)], [log_probabilities(logits)]
    for other in other_folds(trial, trials.results) if method_of(trial.spec.method).trains is Trains.TOWER else ():
        further = read_held_out(workdir, other)
        with suppress(TrialUnavailable):  # damaged, or gone: this fit alone says nothing
            further = load_trial(workdir, other, tower=False).held_out_logits
        if further is not None:
            rows.append(left_out(other, task=task))
            logs.append(log_probabilities(further))
    order = np.argsort(np.concatenate(rows))
    return HeldOut(rows=np.concatenate(rows)[order], logs=np.concatenate(logs)[order])


def join(trial: TrialResult, trials: Trials, *, load: Loader) -> Joined:
    """One classifier of a complete trial and those of its settings on other folds; no temperature is fitted.

    Where the mean of the weights is worse on the images that its fits learned from than they were on them unseen, or
    memory does not suffice, the trial stands alone. ``load`` loads its candidate.

    Raises:
        TrialUnavailable: the trial's weights are missing or damaged, or the candidate cannot be loaded.
    """
    told, held_out = over_folds(trial, trials.results), held_out_of(trial, trials)
    kept = load_trial(trials.workdir, trial)
    fits = [kept]
    for each in () if kept.visual is None else other_folds(trial, trials.results):
        with suppress(TrialUnavailable):  # likewise
            fits.append(load_trial(trials.workdir, each))
    if len(fits) == 1 or held_out is None or told.validation is None:
        return Joined(trial=told, fits=1, held_out=held_out, checkpoint=kept)
    try:
        mean = averaged(
            fits, task=trials.task, candidate=trials.candidate_of(trial), load=load, known=held_out.rows,
            least=told.validation,
        )  # fmt: skip
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
