"""Differences between two rows of a table, paired over tasks."""

from __future__ import annotations

from vlmsel_auto.ranking.agreement import mean_interval
from vlmsel_auto.records import FloatArray


def change(gaps: FloatArray, *, digits: int) -> list[float]:
    """Mean of the differences (tasks,) and its 95 % interval: [mean, low, high], rounded."""
    over = mean_interval(gaps, seed=0)
    return [round(float(each), digits) for each in (gaps.mean(), over.low, over.high)]
