"""Folds that trials are scored on: all on one level, and the same settings on several as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from vlmsel_auto.planning.space import Point
from vlmsel_auto.planning.trials import FoldScore, History, Tried
from vlmsel_auto.records import TrialState, settings_key

Settings: TypeAlias = tuple[str, str, frozenset[tuple[str, float]]]


def fold_ease(history: History) -> tuple[FoldScore, ...]:
    """By fold: what cross-validated trials reach on it less what they reach on all, on average.

    Folds differ in difficulty, and with few images by more than candidates do. Empty while there is no such trial.
    """
    measured = [trial for trial in history if trial.folds and trial.validation is not None]
    if not measured:
        return ()
    metric = np.mean([[each.metric - (trial.validation or 0.0) for each in trial.folds] for trial in measured], axis=0)
    soft = np.mean([[each.soft - (trial.soft or 0.0) for each in trial.folds] for trial in measured], axis=0)
    return tuple(FoldScore(metric=float(m), soft=float(s)) for m, s in zip(metric, soft, strict=True))


def level_folds(history: History) -> list[Tried]:
    """The history with trials of one fold put on the level of all images."""
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


def settings_of(candidate: str, method: str, point: Point) -> Settings:
    """What trials that differ by their fold alone have in common."""
    return candidate, method, settings_key(point)


def _scored_on_a_fold(history: History) -> dict[Settings, list[Tried]]:
    found: dict[Settings, list[Tried]] = {}
    for trial in history:
        if trial.state is TrialState.COMPLETE and trial.validation is not None and trial.fold is not None:
            found.setdefault(settings_of(trial.candidate, trial.method, trial.point), []).append(trial)
    return found


def folds_of(history: History, candidate: str, method: str, point: Point) -> set[int]:
    """Folds that complete trials of these settings were scored on."""
    same = _scored_on_a_fold(history).get(settings_of(candidate, method, point), [])
    return {each.fold for each in same if each.fold is not None}


def by_settings(history: History) -> list[Tried]:
    """Complete trials of the same settings on several folds as one: the first, with the means over all their images."""
    same = [trials for trials in _scored_on_a_fold(history).values() if len(trials) > 1]
    together = {trials[0].number: _together(trials) for trials in same}
    later = {each.number for trials in same for each in trials[1:]}
    return [together.get(trial.number, trial) for trial in history if trial.number not in later]


def _together(trials: Sequence[Tried]) -> Tried:
    first = trials[0]
    images = [each.images or first.images or 1 for each in trials]  # of a trial that still runs none are known
    softs = [each.soft for each in trials if each.soft is not None]
    return replace(
        first,
        validation=float(np.average([each.validation or 0.0 for each in trials], weights=images)),
        soft=float(np.average(softs, weights=images)) if len(softs) == len(trials) else first.soft,
        images=None if first.images is None else sum(images),
    )
