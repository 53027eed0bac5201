"""Parts of the labelled images that trials are scored on: all on one level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlmsel_auto.planning.tried import FoldScore, History, Tried


def fold_ease(history: History) -> tuple[FoldScore, ...]:
    """By part of the labelled images: what cross-validated trials reach on it less what they reach on all, on average.

    Parts differ in difficulty, and with few images by more than candidates do. Empty while there is no such trial.
    """
    measured = [trial for trial in history if trial.folds and trial.validation is not None]
    if not measured:
        return ()
    metric = np.mean([[each.metric - (trial.validation or 0.0) for each in trial.folds] for trial in measured], axis=0)
    soft = np.mean([[each.soft - (trial.soft or 0.0) for each in trial.folds] for trial in measured], axis=0)
    return tuple(FoldScore(metric=float(m), soft=float(s)) for m, s in zip(metric, soft, strict=True))


def level_folds(history: History) -> list[Tried]:
    """The history with trials of one part of the images put on the level of all of them."""
    ease = fold_ease(history)
    return [trial if trial.fold is None or not ease else _less(trial, ease[trial.fold]) for trial in history]


def _less(trial: Tried, ease: FoldScore) -> Tried:
    """The trial with so much less of both metrics."""
    curve = trial.curve
    return replace(
        trial,
        validation=None if trial.validation is None else trial.validation - ease.metric,
        soft=None if trial.soft is None else trial.soft - ease.soft,
        curve=None if curve is None else replace(curve, values=tuple(value - ease.metric for value in curve.values)),
    )
