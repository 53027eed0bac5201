"""Heaps to label: votes of the mini zoo on a task's images, and whether what the belief says of them comes true.

Losses, chances and orders are compared with what is true; stopping by losses has its cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.common import print_head, print_row
from benchmarks.labels.without_labels import measurement, others
from vlmsel_auto.cache import Store
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import Embeddings, embed
from vlmsel_auto.pipeline.label_session import votes_of
from vlmsel_auto.ranking.agreement import ndcg
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.label_belief import Belief, Weights, prior_weights, strength_chances
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task
from vlmsel_auto.tasks.task import load_task

Try = tuple[FloatArray, FloatArray]  # expected and true loss after 0, 1, ... labels
_LOSSES = (0.0, 0.001, 0.005, 0.01, 0.02, 1.0)  # expected loss, in accuracy
_CHANCES = (0.0, 0.05, 0.2, 0.5, 0.8, 1.0)
_STOPS = (0.01, 0.005, 0.002, 0.001)
_COUNTS = (0, 5, 10, 20, 40, 60, 100, 200)  # of labels, after which both are screened


def expected_table(ours: Sequence[Try]) -> list[dict[str, object]]:
    """Expected against true loss of the named candidate after `_COUNTS` labels, in points; one pair a task."""
    pairs = [(said[count], true[count]) for said, true in ours for count in _COUNTS if count < len(said)]
    said, true = np.array(pairs).T
    place = np.digitize(said, _LOSSES) - 1
    rows: list[dict[str, object]] = []
    print()
    print_head("expected loss, points", "cases", "mean expected", "mean true")
    for b in range(len(_LOSSES) - 1):
        within = place == b
        if not within.any():
            continue
        row: dict[str, object] = {
            "expected": f"{100 * _LOSSES[b]:g} to {100 * _LOSSES[b + 1]:g}",
            "cases": int(within.sum()),
            "mean expected": round(100 * float(said[within].mean()), 2),
            "mean true": round(100 * float(true[within].mean()), 2),
        }
        rows.append(row)
        print_row(*row.values())
    return rows


def stopping_table(ours: Sequence[Try], counting: Sequence[Sequence[Try]], *, near: float) -> list[dict[str, object]]:
    """What stopping as soon as the expected loss is small takes and costs, beside counting that loses as little.

    Args:
        ours: expected and true loss of what is named after each label, one pair a task.
        counting: the same of counted right answers, by task and repetition.
        near: accuracy within which a candidate counts as the best.
    """
    rows: list[dict[str, object]] = []
    print()
    print_head(
        "stop below", "labels, mean", "median", "true loss", "tasks within a point", "counting: fixed", "stopped"
    )
    for bound in _STOPS:
        stops, true = np.array([_stopped(one, bound) for one in ours]).T
        row: dict[str, object] = {
            "below": f"{100 * bound:g} points",
            "labels": round(float(stops.mean()), 1),
            "median": round(float(np.median(stops)), 1),
            "loss": round(100 * float(true.mean()), 2),
            "within": int((true <= near + 1e-9).sum()),
            "counting needs": _fixed(float(true.mean()), counting),
            "counting needs, stopped likewise": _stopped_likewise(float(true.mean()), counting),
        }
        rows.append(row)
        print_row(*row.values())
    return rows


def _stopped(one: Try, bound: float) -> tuple[int, float]:
    """Labels until the expected loss is no more than that, or all, and the true loss then."""
    expected, lost = one
    stop = int(np.flatnonzero(np.append(expected[:-1] <= bound, True))[0])
    return stop, float(lost[stop])


def _fixed(loss: float, tries: Sequence[Sequence[Try]]) -> int:
    """Labels, as many on every task, after which the mean loss is no more than that."""
    most = max(len(lost) for each in tries for _, lost in each)
    means = [
        np.mean([np.mean([lost[min(count, len(lost) - 1)] for _, lost in each]) for each in tries])
        for count in range(most)
    ]
    return int(np.flatnonzero(np.append(np.array(means[:-1]) <= loss, True))[0])


def _stopped_likewise(loss: float, tries: Sequence[Sequence[Try]]) -> float | None:
    """Mean number of labels with the bound for the expected loss that makes the true one no more; None: none does."""
    for bound in np.geomspace(0.1, 1e-5, 81):
        labels, lost = np.array([np.mean([_stopped(one, bound) for one in each], axis=0) for each in tries]).T
        if lost.mean() <= loss:
            return round(float(labels.mean()), 1)
    return None


def chances_table(heaps: Sequence[Heap], beliefs: Sequence[Mapping[int, Belief]]) -> list[dict[str, object]]:
    """Predicted P(best) in bins against how often it came true; of several best ones each is a part of one."""
    rows: list[dict[str, object]] = []
    print()
    print_head("labels", "P(best)", "candidates", "mean P(best)", "was best")
    for count in (0, 5, 20, 60):
        p = np.concatenate([each[count].p_best for each in beliefs])
        best = [one.right.mean(axis=1) >= one.right.mean(axis=1).max() - 1e-9 for one in heaps]
        true = np.concatenate([each / each.sum() for each in best])
        place = np.clip(np.digitize(p, _CHANCES) - 1, 0, len(_CHANCES) - 2)
        for b in np.unique(place):
            within = place == b
            row: dict[str, object] = {
                "labels": count,
                "p_best": f"{_CHANCES[b]:.2f} to {_CHANCES[b + 1]:.2f}",
                "candidates": int(within.sum()),
                "mean": round(float(p[within].mean()), 3),
                "true": round(float(true[within].mean()), 3),
            }
            rows.append(row)
            print_row(*row.values())
    return rows


def order_table(heaps: Sequence[Heap], beliefs: Sequence[Mapping[int, Belief]]) -> list[dict[str, object]]:
    """NDCG@5 and tau-b of the ranking without labels, and of the belief's accuracies, for zero-shot accuracy."""

    def agreement(scores: Sequence[FloatArray]) -> list[float]:
        pairs = [(score, one.right.mean(axis=1)) for score, one in zip(scores, heaps, strict=True)]
        gains, taus = [ndcg(*pair) for pair in pairs], [stats.kendalltau(*pair).statistic for pair in pairs]
        return [round(float(np.nanmean(each)), 3) for each in (gains, taus)]

    found = {"no label: the ranking": agreement([one.ranked for one in heaps])}
    for count in (0, 5, 10, 20, 60):
        now = [each[count].accuracy for each in beliefs]
        found[f"belief, {count} labels"] = agreement(now)
    print()
    print_head("order by", "NDCG@5", "tau-b")
    for name, (gain, tau) in found.items():
        print_row(name, f"{gain:.3f}", f"{tau:.3f}")
    return [{"order": name, "ndcg5": gain, "tau_b": tau} for name, (gain, tau) in found.items()]


HEAP = 400  # images at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Heap:
    """One task: votes of all candidates, the truth, and what the ranking knew."""

    name: str
    votes: FloatArray  # (M, n, K)
    labels: IntArray  # (n,)
    prior: Weights
    alike: FloatArray  # (M, M) likeness of the candidates
    chances: FloatArray  # (S,) of the strengths of the votes
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


def heap(
    path: Path, library: Library, candidates: Sequence[Candidate], *, cache: Path, misnamed: Path | None = None
) -> Heap:
    """Embed a task, or find it in ``cache``, and rank without labels and without the task in the library.

    With ``misnamed`` the classes have the names of the first classes of that task.
    """
    task, store = load_task(path, workdir=cache), Store(cache / "targets")

    def seen(one: Candidate, by: Task) -> Embeddings:
        rows = np.sort(np.random.default_rng(1).permutation(by.test)[:HEAP])
        return embed(one, by, rows, load=partial(zoo.load, one), store=store)

    measured = [measurement(one, seen(one, task), library=library, task=task.name) for one in candidates]
    if misnamed is not None:
        other = load_task(misnamed, workdir=cache)
        texts = [seen(one, other).text[: task.n_classes].astype(np.float64) for one in candidates]
        measured = [replace(one, text_features=text) for one, text in zip(measured, texts, strict=True)]
    rows = np.sort(np.random.default_rng(1).permutation(task.test)[:HEAP])
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
    alike = likeness(list(votes))
    return Heap(
        name=task.name,
        votes=votes,
        labels=task.labels[rows],
        prior=prior_weights(np.array([lines[one.id].p_best for one in candidates]), alike),
        alike=alike,
        chances=strength_chances(votes, alike),
        ranked=ranked,
        features=unit_rows(measured[int(ranked.argmax())].features),
    )


def part(one: Heap, *, share: float, seed: int) -> Heap:
    """A heap of so many of its images, drawn by chance; what the ranking knew is of the whole."""
    at = np.sort(np.random.default_rng(seed).permutation(len(one.labels))[: int(share * len(one.labels))])
    return replace(one, votes=one.votes[:, at], labels=one.labels[at], features=one.features[at])
