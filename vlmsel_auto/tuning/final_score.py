"""What a model that the user gets reaches on the test split: metric, interval and how honest its probabilities are."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from vlmsel_auto.intervals import wilson
from vlmsel_auto.records import FinalScore, FloatArray, Task
from vlmsel_auto.tuning.data import measure

_BINS: Final = 15
_DRAWS: Final = 200


def final_score(task: Task, logits: FloatArray | NDArray[np.float32]) -> FinalScore | None:
    """Score logits, or log-probabilities, (n, K) of the sorted test images; None without a test split.

    The interval is Wilson's for a share of n images, 95 %; other metrics than accuracy have none. The calibration error
    is the expected one of Guo et al. (ICML 2017, eq. 3) with 15 bins of the highest probability. On few images it is
    never 0: its floor is its mean where the same probabilities come true exactly as often as they say.
    """
    rows = np.sort(task.test)
    if not len(rows):
        return None
    scores, labels = torch.from_numpy(np.asarray(logits, dtype=np.float64)), torch.from_numpy(task.labels[rows])
    found = measure(task.metric, logits=scores, labels=labels).metric
    shares = scores.softmax(dim=1)
    error = multiclass_calibration_error(shares, labels, num_classes=task.n_classes, n_bins=_BINS)
    return FinalScore(
        metric=found,
        images=len(rows),
        interval=wilson(round(found * len(rows)), len(rows)) if task.metric == "accuracy" else None,
        calibration_error=float(error),
        calibration_floor=_floor(shares.max(dim=1).values.numpy()),
    )


def _floor(sure: FloatArray) -> float:
    """Mean calibration error of exact probabilities, by draws of which images they get right.

    Args:
        sure: (n,) highest probability of each image, in (0, 1].
    """
    places = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    drawn = np.random.default_rng(0).random((_DRAWS, len(sure))) < sure
    gaps = (sure - drawn) @ np.eye(_BINS)[places]  # (_DRAWS, _BINS) sums
    return float(np.abs(gaps).sum(axis=1).mean() / len(sure))
