"""k-nearest-neighbour accuracy on a candidate's own embeddings: the strongest cheap evidence when labels are few."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

KNN: Final = "knn"  # its name among the scores of a library


def knn(features: FloatArray, labels: IntArray, *, k: int = 5) -> float:
    """Leave-one-out accuracy in [0, 1] of a cosine vote of the k, at most n - 1, nearest neighbours.

    A vote that is tied goes to the tied class with the larger sum of cosines, since with 4 or 8 labels a class ties are
    common and a fixed class order would bias the figure. NaN when no class has two images, as then no image can be
    right.
    """
    n, n_classes = len(labels), int(labels.max(initial=-1)) + 1
    if n < 2 or np.bincount(labels).max() < 2:  # noqa: PLR2004 - a pair is the least that can agree
        return math.nan
    unit = unit_rows(features)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    k = min(k, n - 1)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    votes = np.zeros((n, n_classes))
    rows = np.repeat(np.arange(n), k)
    # 1 a vote; the cosine, in [-1, 1], only ever breaks ties
    weight = 1.0 + np.take_along_axis(cosine, nearest, axis=1).ravel() / (4.0 * k)
    np.add.at(votes, (rows, labels[nearest].ravel()), weight)
    return float(np.mean(votes.argmax(axis=1) == labels))
