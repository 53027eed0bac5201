"""Whether a candidate seems to have seen the labelled images in its pretraining.

Zero-shot predictions learn from no label of the task. So a candidate that saw neither is as good on the labelled images
as on the test images, and one that remembers the labelled ones is better on them. No cross-validation shows that: all
its folds are remembered alike. The test images must be others than those of the pretraining; where the labelled images
and the test images were drawn from one remembered folder, nothing shows. docs/results/tuning.md says how
often it is right. The form is our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import softmax

from vlmsel_auto.ranking.evidence.zeroshot import zeroshot
from vlmsel_auto.records import FloatArray, IntArray

SURE: Final = 3.0  # standard errors; of candidates that remember nothing 1 in 20 at most may pass
LEAST: Final = 0.05  # of accuracy: with thousands of images differences that matter to nobody are sure


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """A candidate's zero-shot predictions on labelled images beside those on test images."""

    labelled: float  # accuracy in [0, 1] on the classes that both have, each counted as in z
    test: float  # likewise
    z: float  # how much more probable the true class is on labelled images, in standard errors

    @property
    def shows(self) -> bool:
        """Whether the difference is more than chance, and matters."""
        return self.z >= SURE and self.labelled - self.test >= LEAST


def memory(
    labelled: FloatArray, labels: IntArray, *, test: FloatArray, test_labels: IntArray, logit_scale: float
) -> Memory | None:
    """Compare the probabilities of the true classes on labelled images and on test images.

    Args:
        labelled: cosines (n, K) of the labelled images and the class texts.
        labels: (n,) in 0..K-1.
        test: cosines (m, K) of the test images.
        test_labels: (m,) likewise.
        logit_scale: factor on the cosines in the candidate's softmax.

    Returns:
        None where no class has images of both, or none has two of either.
    """
    known, fresh = (
        softmax(logit_scale * cosine, axis=1)[np.arange(len(names)), names]
        for cosine, names in ((labelled, labels), (test, test_labels))
    )
    z = gap_within_classes(known, labels, others=fresh, other_labels=test_labels)
    if z is None:
        return None
    kinds = np.intersect1d(labels, test_labels)
    weights = _weights(labels, test_labels, kinds=kinds)
    found = (
        float(np.average([zeroshot(cosine[names == k], names[names == k]) for k in kinds], weights=weights))
        for cosine, names in ((labelled, labels), (test, test_labels))
    )
    return Memory(labelled=next(found), test=next(found), z=z)


def gap_within_classes(
    values: FloatArray, labels: IntArray, *, others: FloatArray, other_labels: IntArray
) -> float | None:
    """How much larger values (n,) are than others (m,) within the same classes, in standard errors.

    The difference of each class counts by the inverse of its variance, n m / (n + m) with n and m values, so that
    shares of classes do not matter; the variance within a class is pooled. None where it cannot be told.
    """
    kinds = np.intersect1d(labels, other_labels)
    pairs = [(values[labels == k], others[other_labels == k]) for k in kinds]
    freedom = sum(len(n) + len(m) - 2 for n, m in pairs)
    if not freedom:
        return None
    squares = sum(float(((each - each.mean()) ** 2).sum()) for pair in pairs for each in pair)
    weights = _weights(labels, other_labels, kinds=kinds)
    gaps = np.array([n.mean() - m.mean() for n, m in pairs])
    error = math.sqrt(squares / freedom * float(weights.sum()))
    return float(weights @ gaps) / error if error > 0 else 0.0


def _weights(labels: IntArray, other_labels: IntArray, *, kinds: IntArray) -> FloatArray:
    """(F,) of the F classes that both have: n m / (n + m) with n images and m others."""
    here, there = ((names == kinds[:, None]).sum(axis=1) for names in (labels, other_labels))
    return np.asarray(here * there / (here + there), dtype=np.float64)
