"""Differences between two rows of a table, paired over tasks or targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from vlmsel_auto.ranking.agreement import mean_interval
from vlmsel_auto.records import FloatArray


class _OfCandidate(Protocol):
    @property
    def far(self) -> bool: ...


C = TypeVar("C", bound=_OfCandidate)


def of_each_kind(cases: Sequence[C]) -> list[tuple[str, list[C]]]:
    """All cases, those of candidates that were pretrained on other things, and those of first candidates."""
    return [
        ("all", list(cases)),
        ("pretrained on other things", [each for each in cases if each.far]),
        ("first", [each for each in cases if not each.far]),
    ]


def change(gaps: FloatArray, *, digits: int) -> list[float]:
    """Mean of the differences (tasks,) and its 95 % interval: [mean, low, high], rounded."""
    over = mean_interval(gaps, seed=0)
    return [round(float(each), digits) for each in (gaps.mean(), over.low, over.high)]


def by_target(gaps: Iterable[tuple[str, float]]) -> FloatArray:
    """Mean difference (targets,) of each target over its cases."""
    found: dict[str, list[float]] = {}
    for target, gap in gaps:
        found.setdefault(target, []).append(gap)
    return np.array([np.mean(each) for each in found.values()])


def standard_error(gaps: FloatArray) -> float:
    """Of the mean of differences (targets,); NaN where there is one."""
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
