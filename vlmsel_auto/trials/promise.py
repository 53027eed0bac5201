"""What one more trial of an arm promises: shared by the search and by the sampler of a user's own study. Pure."""

from __future__ import annotations

import numpy as np

from vlmsel_auto.trials.belief import expected_improvement

__all__ = ["LOCAL_SD", "promise"]

_LOCAL_LOSS = 0.01  # of the metric: what other hyperparameters of a tried arm lose on average
LOCAL_SD = 0.02  # how much their metrics vary
_AGAIN = 0.25  # what is left of an arm's promise after a trial that gave nothing


def promise(mean: float, sd: float, *, best: float, reached: float | None, tries: int) -> float:
    """Expected improvement over ``best``.

    Args:
        mean: believed of the arm.
        sd: likewise.
        best: metric to beat.
        reached: the arm's own best; hyperparameters are then all that can change, and less with every trial.
        tries: trials of the arm so far, those that failed or run elsewhere included.
    """
    if reached is not None:
        mean, sd = reached - _LOCAL_LOSS, LOCAL_SD / (1 + tries / 4) ** 0.5
    gain = float(expected_improvement(np.array([mean]), np.array([sd]), best=best)[0])
    return gain if reached is not None else gain * _AGAIN**tries
