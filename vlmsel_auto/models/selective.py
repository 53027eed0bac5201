"""Answers for a part of the images: above which probability so many are right, by images that were held out.

A classifier that may keep silent is a selective classifier (Geifman & El-Yaniv, NeurIPS 2017); the share of images that
get an answer is its coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.stats import beta

from vlmsel_auto.errors import InputError
from vlmsel_auto.records import AnswerLevel, FloatArray, IntArray
from vlmsel_auto.units import percent

WANTED: Final = (0.8, 0.9, 0.95, 0.98, 0.99)  # accuracies that cards and reports list
_CONFIDENCE: Final = 0.9
_MOST: Final = 100  # levels


def answer_levels(logs: FloatArray, labels: IntArray) -> tuple[AnswerLevel, ...]:
    """Levels of log-probabilities (n, K) of held-out images with labels (n,): at most 100, the surest first.

    The last answers all images. What a level assures is Clopper and Pearson's lower bound (Biometrika 1934).
    """
    highest, count = np.exp(logs.max(axis=1)), len(labels)
    order = np.argsort(-highest, kind="stable")
    sure, right = highest[order], np.cumsum(logs.argmax(axis=1)[order] == labels[order])
    ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], count > 0))  # last of each threshold
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, min(_MOST, len(ends))).round().astype(np.int64))]
    bounds = np.nan_to_num(beta.ppf(1 - _CONFIDENCE, right[kept], kept + 2 - right[kept]))  # NaN: none is right
    return tuple(
        AnswerLevel(threshold=threshold, coverage=images / count, images=images, right=known, at_least=bound)
        for threshold, images, known, bound in zip(
            sure[kept].tolist(), (kept + 1).tolist(), right[kept].tolist(), bounds.tolist(), strict=True
        )
    )


def find_level(levels: Sequence[AnswerLevel], accuracy: float) -> AnswerLevel | None:
    """The level that answers most images and assures the accuracy; None where none does."""
    return next((each for each in reversed(levels) if each.at_least >= accuracy), None)


def level_for(levels: Sequence[AnswerLevel], accuracy: float) -> AnswerLevel:
    """`find_level`, or an `InputError` that says what can be had."""
    if (found := find_level(levels, accuracy)) is not None:
        return found
    told = "this model knows of no held-out images, which alone can assure an accuracy"
    if levels:
        most = max(levels, key=lambda each: each.at_least)
        told = (
            f"{levels[-1].images} held-out images assure {percent(most.at_least)} at most, where the surest "
            f"{percent(most.coverage, digits=0)} get a class: ask for less, or label more images"
        )
    raise InputError(f"{told}, but got an accuracy of {percent(accuracy)}")
