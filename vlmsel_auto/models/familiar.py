"""Whether an image is like those that a head learned from: how far its embedding is from the nearest mean of a class.

The limit comes from the training images: each is measured with its own class's mean made of the others. That holds
where the tower did not learn from them, so tuned towers have no limit (docs/results/answers.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from vlmsel_auto.records import IntArray

UNLIKE: Final = "unlike what this model learned"
_WITHIN: Final = 0.99  # of the training images


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiar:
    """What a head's training images look like to its tower. C classes have at least two."""

    means: NDArray[np.float32]  # (C, D) unit-norm
    limit: float  # of 1 - cosine to the nearest mean; positive


def familiar(embeddings: NDArray[np.float32], labels: IntArray) -> Familiar | None:
    """Means and limit of embeddings (n, D), of any norm, with labels (n,); None where no class has two images."""
    several = np.bincount(labels)[labels] > 1
    if not several.any():
        return None
    rows = normalize(embeddings[several])
    _, places = np.unique(labels[several], return_inverse=True)
    sums = np.zeros((places.max() + 1, rows.shape[1]), dtype=np.float32)
    np.add.at(sums, places, rows)
    means = normalize(sums)
    cosines = rows @ means.T
    cosines[np.arange(len(rows)), places] = (rows * normalize(sums[places] - rows)).sum(axis=1)
    limit = float(np.quantile(1 - cosines.max(axis=1), _WITHIN, method="higher"))
    return Familiar(means=means, limit=max(limit, 1e-6))
