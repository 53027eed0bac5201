"""The best candidate by counts of right answers on images in random order, which is what anybody would do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.labels.labelling_heaps import Heap
from vlmsel_auto.records import FloatArray, IntArray

_KNOWING_NOTHING = 4  # answers


def counted(one: Heap, *, seed: int) -> list[int]:
    """Candidates named by plain counts of right answers on images in random order; ties by chance."""
    rng = np.random.default_rng(seed)
    order = _in_turn(one, rng)
    counts = np.cumsum(one.right[:, order], axis=1, dtype=np.float64)
    counts = np.concatenate([np.zeros((len(counts), 1)), counts], axis=1) + 1e-3 * rng.random((len(counts), 1))
    return [int(each) for each in counts.argmax(axis=0)]


def counted_losses(one: Heap, *, seed: int) -> FloatArray:
    """Loss that is expected of what `counted` names: accuracies are normal, with the covariance of right answers.

    Some answers that know nothing, each candidate's by itself, are added to those that were counted.
    """
    right = one.right[:, _in_turn(one, np.random.default_rng(seed))].astype(np.float64)
    noise = np.random.default_rng(0).standard_normal((1_000, len(right)))
    lost = [np.inf]
    for count in range(1, right.shape[1] + 1):
        mean = right[:, :count].mean(axis=1)
        spread = right[:, :count] @ right[:, :count].T / count - np.outer(mean, mean)
        spread = (count * spread + _KNOWING_NOTHING * np.eye(len(mean)) / 4) / (count + _KNOWING_NOTHING)
        left = 1 - count / len(one.labels)
        drawn = mean + noise @ np.linalg.cholesky(left / (count + _KNOWING_NOTHING) * spread).T
        lost.append(float(drawn.max(axis=1).mean() - drawn.mean(axis=0).max()))
    return np.array(lost)


def _in_turn(one: Heap, rng: np.random.Generator) -> IntArray:
    """All images but one in the order in which they are labelled, which a fresh generator draws first."""
    return rng.permutation(len(one.labels))[:-1]


def counted_tries(heaps: Sequence[Heap], *, tries: int = 3) -> list[list[tuple[FloatArray, FloatArray]]]:
    """Expected and true losses of `counted`, of each task and repetition."""
    return [
        [(counted_losses(one, seed=seed), one.loss(counted(one, seed=seed))) for seed in range(tries)] for one in heaps
    ]
