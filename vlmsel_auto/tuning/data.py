"""Images of a task as mini-batches from memory: no files are opened while a tower trains, no worker processes start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch.nn import functional

from vlmsel_auto.records import FloatArray, ImageView, IntArray, Metric, PixelSource, Task
from vlmsel_auto.tasks.split import few_shot

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 (n, S, S, 3), int64 (n,)

_RESIDENT_BYTES = 512 * 2**20  # sets up to this size are read once; larger ones batch by batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Image indices of one trial: what it learns from, is chosen by, and is reported on."""

    train: IntArray
    val: IntArray
    test: IntArray
    folds: tuple[IntArray, ...] = ()  # of train and val, for cross-validation; none: val decides

    @property
    def labelled(self) -> IntArray:
        """What a head that is cross-validated learns from in the end: all of train and val, or train alone."""
        return np.sort(np.concatenate([self.train, self.val])) if self.folds else self.train

    @property
    def held_out(self) -> IntArray:
        """What a head is scored on by fits that never saw it: the images of all folds, or the validation images."""
        return np.sort(np.concatenate(self.folds)) if self.folds else self.val


def splits(task: Task, *, fold: int = 0, train_shots: int | None = None, max_val: int = 2_000) -> Splits:
    """The splits of a trial. They depend on task and fold, never on the trial's seed: trials must be comparable.

    Args:
        task: the task; its training and validation splits must not be empty.
        fold: the one of `Task.folds` that validates, the others train; no matter where the task has none.
        train_shots: at most this many training images a class, the first of the task's own draw (its support set, where
            as many); None takes all.
        max_val: larger validation splits are thinned (the same images each time): a measure of choice needs no more.

    Raises:
        ValueError: no training or no validation image.
    """
    if not len(task.train) or not len(task.val):
        raise ValueError(
            f"Task {task.name!r} needs training and validation images to tune on, "
            f"but got {len(task.train)} and {len(task.val)}"
        )
    test = np.sort(task.test)
    if task.folds and train_shots is None:
        fold %= len(task.folds)
        train = np.setdiff1d(np.concatenate([task.train, task.val]), task.folds[fold])
        return Splits(train=train, val=np.sort(task.folds[fold]), test=test, folds=task.folds)
    val = np.sort(task.val)
    if len(val) > max_val:
        val = np.sort(np.random.default_rng(0).permutation(val)[:max_val])
    train = np.sort(task.train)
    if train_shots is not None:
        train = few_shot(task.labels, train, shots=train_shots, seed=task.seed)
    return Splits(train=train, val=val, test=test)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Some images of a task in one view, with their labels."""

    source: PixelSource
    view: ImageView
    indices: IntArray
    labels: torch.Tensor  # int64 (n,)
    resident: torch.Tensor | None  # uint8 (n, S, S, 3), or None: read batch by batch

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def batch(self, rows: torch.Tensor) -> Batch:
        """Images and labels of these rows."""
        if self.resident is not None:
            return self.resident[rows], self.labels[rows]
        return _tensor(self.source.read(self.view, self.indices[rows.numpy()])), self.labels[rows]


def _tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    # a copy when read-only: tensors cannot share memory that is mapped from disk for reading
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def image_set(
    task: Task,
    *,
    view: ImageView,
    indices: IntArray,
    resident_bytes: int = _RESIDENT_BYTES,
    check: Callable[[], None] = lambda: None,
) -> ImageSet:
    """Open ``indices`` of the task in ``view``; in memory when they fit into ``resident_bytes``.

    ``check`` is called while images are decoded: what it raises ends the work.
    """
    task.pixels.prepare(view, indices, check=check)
    fits = len(indices) * view.size * view.size * 3 <= resident_bytes
    return ImageSet(
        source=task.pixels,
        view=view,
        indices=indices,
        labels=torch.from_numpy(task.labels[indices].astype(np.int64)),
        resident=_tensor(task.pixels.read(view, indices)) if fits else None,
    )


@dataclass(kw_only=True, eq=False)
class MiniBatches:
    """Mini-batches of a set, as often as iterated: in order, or newly shuffled each time when a generator is given."""

    images: ImageSet
    size: int
    generator: torch.Generator | None = field(default=None)

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.images) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; the last may be smaller."""
        count = len(self.images)
        rows = torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)
        for start in range(0, count, self.size):
            yield self.images.batch(rows[start : start + self.size])


def score(metric: Metric, *, labels: IntArray, predicted: IntArray) -> float:
    """A task's metric in [0, 1].

    Accuracy; balanced accuracy, the mean recall of the classes that occur in ``labels``; or macro F1, the mean F1 of
    the classes that occur in ``labels`` or ``predicted``, as scikit-learn has it.

    Raises:
        ValueError: no label, or different lengths.
    """
    if not len(labels) or len(labels) != len(predicted):
        raise ValueError(
            f"labels and predictions must be as many, at least one, but got {len(labels)}, {len(predicted)}"
        )
    if metric == "macro_f1":
        return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
    return _mean(metric, labels=labels, values=(labels == predicted).astype(np.float64))


def _mean(metric: Metric, *, labels: IntArray, values: FloatArray) -> float:
    """Mean of one value an image: over images, or over the means of the classes."""
    if metric == "accuracy":
        return float(values.mean())
    present, inverse = np.unique(labels, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(present))
    return float((np.bincount(inverse, weights=values, minlength=len(present)) / counts).mean())


def _soft(metric: Metric, *, labels: IntArray, probabilities: FloatArray) -> float:
    """The metric with each image counted by probabilities (n, K) in place of a prediction.

    F1 is then twice the probability that a class's images give it, over their number and the probability that all
    images give it: the F1 itself where the probabilities are 0 and 1. Classes without an image are left out.
    """
    true = probabilities[np.arange(len(labels)), labels]
    if metric != "macro_f1":
        return _mean(metric, labels=labels, values=true)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    right = np.bincount(labels, weights=true, minlength=probabilities.shape[1])
    present = counts > 0
    return float((2 * right[present] / (counts + probabilities.sum(axis=0))[present]).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A classifier on the images of a split."""

    metric: float  # the task's, in [0, 1]
    soft: float  # the same with each image counted by its probabilities, not its most probable class, in [0, 1]
    loss: float  # mean cross entropy
    images: int  # that it was measured on


def measure(metric: Metric, *, logits: torch.Tensor, labels: torch.Tensor) -> Measured:
    """Measure logits (n, K) against labels int64 (n,)."""
    known = labels.cpu().numpy()
    logs = functional.log_softmax(logits.float(), dim=1)
    return Measured(
        metric=score(metric, labels=known, predicted=logits.argmax(dim=1).cpu().numpy()),
        soft=_soft(metric, labels=known, probabilities=logs.exp().double().cpu().numpy()),
        loss=-float(logs.gather(1, labels[:, None]).mean()),
        images=len(known),
    )
