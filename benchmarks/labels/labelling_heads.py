"""What a head learns from the labels that are asked for, in several ways: the third table of `labelling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.common import change
from benchmarks.labels.labelling_heaps import Heap
from vlmsel_auto.planning.labelling import next_to_cover
from vlmsel_auto.ranking.label_belief import believe
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

_A_CLASS: Final = (1, 2, 4)  # labels
_MOST_CLASSES: Final = 12  # of tasks whose heads are compared: others would need hundreds of labels
_Way = Literal["chance", "information", "cover"]
_WAYS: Final[tuple[_Way, ...]] = ("chance", "information", "cover")


def heads_table(heaps: Sequence[Heap]) -> list[dict[str, object]]:
    """Accuracy of a head that learns from 1, 2, 4 labels a class; tasks of at most 12 classes."""
    print("\n| asked | " + " | ".join(f"{count} a class" for count in _A_CLASS) + " |\n|---" + "|---" * 3 + "|")
    rows: list[dict[str, object]] = []
    few = [one for one in heaps if one.votes.shape[2] <= _MOST_CLASSES]
    found = {way: np.array([_heads(one, way) for one in few]) for way in _WAYS}
    for way, accuracies in found.items():
        row: dict[str, object] = {"asked": way}
        for c, count in enumerate(_A_CLASS):
            gain = change(100 * (accuracies[:, c] - found["chance"][:, c]), digits=1)
            row[f"{count} a class"] = [round(100 * float(accuracies[:, c].mean()), 1), *gain]
        rows.append(row)
        print("| " + " | ".join(str(cell) for cell in row.values()) + " |", flush=True)
    return rows


def _heads(one: Heap, way: _Way) -> list[float]:
    rng = np.random.default_rng(2)
    order = rng.permutation(len(one.labels))
    pool, test = np.sort(order[::2]), np.sort(order[1::2])
    votes, truth, x = one.votes[:, pool], one.labels[pool], one.features[pool]
    most = min(_A_CLASS[-1] * votes.shape[2], len(pool) - 1)
    repeats = 5 if way == "chance" else 1
    scores = []
    for _ in range(repeats):
        labels, asked = np.full(len(pool), UNLABELLED), []
        shuffled = rng.permutation(len(pool))
        none = np.zeros(len(pool), dtype=np.bool_)
        for done in range(most):
            if way == "chance":
                place = int(shuffled[done])
            else:
                now = believe(votes, prior=one.prior, labels=labels)
                covered = way == "cover"
                place = (
                    next_to_cover(x, classes=now.classes, labels=labels, asked=none)
                    if covered
                    else int(now.information.argmax())
                )
            labels[place] = truth[place]
            asked.append(place)
        scores.append(
            [_head(one, x[rows], truth[rows], test) for rows in (asked[: c * votes.shape[2]] for c in _A_CLASS)]
        )
    return [float(each) for each in np.mean(scores, axis=0)]


def _head(one: Heap, x: FloatArray, y: IntArray, test: IntArray) -> float:
    if len(np.unique(y)) == 1:
        return float(np.mean(one.labels[test] == y[0]))
    fitted = LogisticRegression(C=10, max_iter=1_000).fit(x, y)
    return float(fitted.score(one.features[test], one.labels[test]))
