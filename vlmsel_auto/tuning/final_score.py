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


def final_score(task: Task, logits: FloatArray | NDArray[np.float32]) -> FinalScore | None:
    """Score logits, or log-probabilities, (n, K) of the sorted test images; None without a test split.

    The interval is Wilson's for a share of n images, 95 %; other metrics than accuracy have none. The
    calibration error is the expected one of Guo et al. (ICML 2017, eq. 3) with 15 bins of the highest probability.
    """
    rows = np.sort(task.test)
    if not len(rows):
        return None
    scores, labels = torch.from_numpy(np.asarray(logits, dtype=np.float64)), torch.from_numpy(task.labels[rows])
    found = measure(task.metric, logits=scores, labels=labels).metric
    error = multiclass_calibration_error(scores.softmax(dim=1), labels, num_classes=task.n_classes, n_bins=_BINS)
    return FinalScore(
        metric=found,
        images=len(rows),
        interval=wilson(round(found * len(rows)), len(rows)) if task.metric == "accuracy" else None,
        calibration_error=float(error),
    )
