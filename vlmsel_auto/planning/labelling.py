"""Which image to label next: for a head to learn most, or to find the best candidate.

For a head: classes in turn, and in each what is typical of many images.

With few labels typical images serve a classifier best, and doubtful ones worst (Hacohen, Dekel, Weinshall, "Active
learning on a budget: opposite strategies suit high and low budgets", ICML 2022). Theirs are dense points of k-means
clusters; here a class takes the cluster's place, and within it the image is taken that raises the cover most: the sum
over images of the similarity to the nearest chosen one (facility location).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

_DOUBTED: Final = 0.3  # probability of weak votes from which on images are asked for by chance; our own choice


def next_to_tell(information: FloatArray, *, p_weak: float, by_chance: FloatArray, chosen: NDArray[np.bool_]) -> int:
    """The image whose label tells most about the best candidate; by chance where the votes are doubted.

    Where candidates may all be wrong together, what they say of an image does not tell which label would show it.

    Args:
        information: (n,) expected of each label, as `label_belief.Belief` has it.
        p_weak: likewise.
        by_chance: (n,) drawn once: the highest is the next.
        chosen: (n,) images that have a label or are asked for; not all.
    """
    return int(np.where(chosen, -1.0, by_chance if p_weak > _DOUBTED else information).argmax())


def next_to_cover(features: FloatArray, *, classes: FloatArray, labels: IntArray, asked: NDArray[np.bool_]) -> int:
    """The image to label next: of the class with the fewest labels, the one that covers most.

    Args:
        features: (n, D) of unit length.
        classes: (n, K) probabilities of each image's class.
        labels: (n,) classes 0..K-1, or `UNLABELLED`.
        asked: (n,) images whose labels will come; each counts as one of its most probable class.

    Raises:
        ValueError: no image is left.
    """
    likely = classes.argmax(axis=1)
    known = labels != UNLABELLED
    chosen = known | asked
    if chosen.all():
        raise ValueError(f"one image at least must have no label, but got labels of all {len(labels)}")
    counts = np.bincount(np.where(known, labels, likely)[chosen], minlength=classes.shape[1])
    wanting = np.bincount(likely[~chosen], minlength=classes.shape[1])
    # of classes with equally few labels the one that is expected to be most frequent
    order = np.lexsort([-wanting, np.where(wanting > 0, counts, np.iinfo(np.int64).max)])
    places = np.flatnonzero(~chosen & (likely == order[0]))
    similar = np.clip(features @ features[places].T, 0.0, None)  # (n, places)
    near = np.clip(features @ features[chosen].T, 0.0, None).max(axis=1, initial=0.0)
    weight = classes[:, order[0]]
    gain = weight @ np.maximum(similar - near[:, None], 0.0)
    return int(places[gain.argmax()])
