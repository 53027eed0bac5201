"""How a search shares out a budget of time: screenings, trials, and what export and report need at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vlmsel_auto.records import Budget
from vlmsel_auto.tasks.unlabelled_pool import SECONDS

_SCREENING_SHARE: Final = 0.4  # of a time budget, at most, for looking at candidates before the first trial
_SAMPLE_SHARE: Final = 0.2  # for images without labels, as predicted: it may take twice as long, and more comes after
_CLOSING_SECONDS: Final = 2.5  # export, report and the end of the process take 1.4 on one core; no more than the share
_CLOSING_SHARE: Final = 0.16
_JOINING_SECONDS: Final = 0.3  # to read the fits of one tower, and write their mean
_JOINING_SHARE: Final = 0.1  # of a time budget, at most, for joining fits


def seconds_for_screening(seconds: float, *, labelled: bool) -> float:
    """Of a budget, at most, for looking at candidates: without labels nothing but the export comes after."""
    return _SCREENING_SHARE * seconds if labelled else seconds - closing_seconds(seconds)


def sample_seconds(seconds: float | None) -> float:
    """Of a budget, at most, for reading and embedding a sample of a heap by all candidates; None: no budget."""
    return SECONDS if seconds is None else min(SECONDS, _SAMPLE_SHARE * seconds)


def left_for_trials(budget: Budget, *, spent: float, joining: float = 0.0) -> Budget:
    """What trials may take: the budget less what is spent and what joining fits, export and report will need."""
    if budget.seconds is None:
        return budget
    kept = closing_seconds(budget.seconds) + min(joining, _JOINING_SHARE * budget.seconds)
    return replace(budget, seconds=max(0.01, budget.seconds - spent - kept))


def joining_seconds(latencies: Sequence[float], *, images: int, members: int) -> float:
    """What it takes to join the fits of so many towers and to measure each on ``images``.

    Args:
        latencies: seconds an image, of candidates that were loaded.
        images: labelled and test images.
        members: towers.
    """
    each = float(np.mean(latencies)) if latencies else 0.0
    return members * (_JOINING_SECONDS + each * images)


def closing_seconds(seconds: float) -> float:
    """What export and report may need of a budget."""
    return min(_CLOSING_SECONDS, _CLOSING_SHARE * seconds)
