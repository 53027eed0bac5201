"""Intervals of shares of images."""

from __future__ import annotations

from scipy.stats import binomtest

from vlmsel_auto.records import Interval


def wilson(right: int, images: int) -> Interval:
    """Wilson's interval (JASA 1927), 95 %, of a share of ``images``, of which there is at least one."""
    found = binomtest(right, images).proportion_ci(method="wilson")
    return Interval(low=float(found.low), high=float(found.high))
