"""Heaps to label: votes of the mini zoo on a task's images, and what a ranking without labels knew of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.without_labels import measurement, others
from vlmsel_auto.cache import Store
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.pipeline.label_session import votes_of
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.label_belief import Weights, prior_weights
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, FloatArray, IntArray
from vlmsel_auto.tasks.task import load_task

HEAP = 400  # images at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Heap:
    """One task: votes of all candidates, the truth, and what the ranking knew."""

    name: str
    votes: FloatArray  # (M, n, K)
    labels: IntArray  # (n,)
    prior: Weights
    ranked: FloatArray  # (M,) scores without labels
    features: FloatArray  # (n, D) of the candidate that ranks first, unit length

    @property
    def right(self) -> NDArray[np.bool_]:
        """(M, n) whether a candidate names an image's class."""
        return np.asarray(self.votes.argmax(axis=2) == self.labels, dtype=np.bool_)

    def loss(self, named: Sequence[int]) -> FloatArray:
        """Accuracy lost by each named candidate, one after every label."""
        accuracy = self.right.mean(axis=1)
        return np.asarray(accuracy.max() - accuracy[list(named)], dtype=np.float64)


def heap(path: Path, library: Library, candidates: Sequence[Candidate], *, cache: Path) -> Heap:
    """Embed a task, or find it in ``cache``, and rank without labels and without the task in the library."""
    task, store = load_task(path, workdir=cache), Store(cache / "targets")
    rows = np.sort(np.random.default_rng(1).permutation(task.test)[:HEAP])
    measured = [
        measurement(
            one, embed(one, task, rows, load=partial(zoo.load, one), store=store), library=library, task=task.name
        )
        for one in candidates
    ]
    ranking = rank_candidates(
        task=task.name,
        targets=measured,
        library=others(library, task.name),
        truth="zero_shot",
        correlation=error_correlation(candidates),
    )
    lines = {line.candidate: line for line in ranking.ranked}
    ranked = np.array([lines[one.id].score for one in candidates])
    votes = votes_of(measured)
    return Heap(
        name=task.name,
        votes=votes,
        labels=task.labels[rows],
        prior=prior_weights(np.array([lines[one.id].p_best for one in candidates]), likeness(list(votes))),
        ranked=ranked,
        features=unit_rows(measured[int(ranked.argmax())].features),
    )


def part(one: Heap, *, share: float, seed: int) -> Heap:
    """A heap of so many of its images, drawn by chance; what the ranking knew is of the whole."""
    at = np.sort(np.random.default_rng(seed).permutation(len(one.labels))[: int(share * len(one.labels))])
    return replace(one, votes=one.votes[:, at], labels=one.labels[at], features=one.features[at])
