"""Finished trials of a search and the files that they leave: what was best, what counts, what can go on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.trials import FoldScore, Tried
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import (
    drop_weights,
    has_weights,
    keep_held_out_alone,
    save_result,
    size_of_weights,
)
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.paused import drop_paused, has_paused, load_paused
from vlmsel_auto.tuning.runner import TrialRunner

_WEIGHTS_KEPT = 3  # finished trials whose weights are kept: what similar candidates do later may change who leads
MOST_MEMBERS = 10  # candidates whose best trial of each kind keeps its weights: an ensemble may want them
_TIE = 0.005  # of the metric: trials that are expected to be so close are not told apart
_MOST_BYTES = 8 * 2**30  # of the weights of one search: beyond that further fits of a tower leave no weights


@dataclass(kw_only=True, eq=False)
class Results:
    """Results by number."""

    workdir: Path
    results: dict[int, TrialResult] = field(default_factory=dict)
    _weights: set[int] = field(default_factory=set)  # trials whose weights are there
    _paused: set[int] = field(default_factory=set)  # trials that can go on

    def adopt(self, result: TrialResult) -> None:
        """Take a result that is on file."""
        self.results[result.number] = result
        for there, kind in ((has_weights, self._weights), (has_paused, self._paused)):
            (kind.add if there(self.workdir, result.number) else kind.discard)(result.number)

    def keep(self, result: TrialResult) -> None:
        """Write a result and take it."""
        save_result(self.workdir, result)
        self.adopt(result)
        # what it came to replaces the state of the trial that it continued; the clock may leave it nothing
        if result.continues is not None and not self._left_nothing(result):
            drop_paused(self.workdir, result.continues)
            self._paused.discard(result.continues)

    def interrupted(self) -> list[TrialResult]:
        """Trials that the clock cut short and that can go on, by number."""
        return [each for each in self.all() if _cut_short(each) and each.number in self._paused]

    def without_weights(self, number: int) -> None:
        """Know of a trial that its weights, if there are any, cannot be used."""
        self._weights.discard(number)

    def all(self) -> tuple[TrialResult, ...]:
        """By number."""
        return tuple(result for _, result in sorted(self.results.items()))

    def curve_of(self, number: int) -> tuple[float, ...]:
        """Validation after each epoch of a trial; one whose process was killed has no result, but a state."""
        if number in self.results:
            return self.results[number].curve
        try:
            return load_paused(self.workdir, number).progress.curve
        except TrialUnavailable:  # what goes on from there begins anew
            return ()

    def counted(self) -> list[TrialResult]:
        """Trials that used the budget: all but the baseline, which is free, and those that the clock cut short."""
        return [each for each in self.all() if not _cut_short(each) and each.origin is not TrialOrigin.ZERO_SHOT]

    def leaders(self, expected: Mapping[int, float]) -> list[TrialResult]:
        """Complete trials, the one to choose first.

        By what they are expected to reach, then by validation, then by how well their last epochs did, then the
        earlier. Those whose weights are gone come last. Of those that the evidence cannot tell from the first, those
        whose fits have seen all labels come before it, and of these the one that was trained longest.
        """
        complete = [
            each for each in self.results.values() if each.state is TrialState.COMPLETE and each.validation is not None
        ]
        ordered = sorted(complete, key=lambda each: self._merit(each, expected), reverse=True)
        least = max((expected.get(each.number, -math.inf) for each in ordered[:1]), default=0.0) - _TIE
        tied = [
            each for each in ordered if each.number in self._weights and expected.get(each.number, -math.inf) > least
        ]
        longest = max(tied, key=self._training, default=None)
        return ordered if longest is None else [longest, *(each for each in ordered if each is not longest)]

    def _training(self, result: TrialResult) -> tuple[bool, int]:
        """Whether fits by these settings have together seen all labels, and epochs of all where they are several."""
        others = other_folds(result, self.all())
        leaves_out = method_of(result.spec.method).trains is Trains.TOWER and any(
            len(each.fold_validation) > 1 for each in self.results.values()
        )  # where heads are cross-validated, each fit of a tower misses a fold
        epochs = sum(each.epochs_run for each in (result, *others)) if others else 0
        return bool(others) or not leaves_out, epochs

    def members(self, expected: Mapping[int, float]) -> list[TrialResult]:
        """What an ensemble may be made of: the best trials of the first candidates by heads, and of those by towers."""
        found: dict[Trains, dict[str, TrialResult]] = {Trains.HEAD: {}, Trains.TOWER: {}}
        leaders = self.leaders(expected)
        for each in leaders:
            kind = found.get(method_of(each.spec.method).trains)
            if kind is not None and each.number in self._weights and each.number in expected:
                kind.setdefault(each.spec.candidate, each)
        chosen = {each.number for kind in found.values() for each in list(kind.values())[:MOST_MEMBERS]}
        return [each for each in leaders if each.number in chosen]

    def _merit(self, result: TrialResult, expected: Mapping[int, float]) -> tuple[bool, float, float, float, int]:
        tail = result.curve[-3:]
        return (
            result.number in self._weights,
            expected.get(result.number, -math.inf),  # by an objective others may be below 0
            result.validation or 0.0,
            sum(tail) / len(tail) if tail else 0.0,
            -result.number,
        )

    def history(self, runner: TrialRunner) -> list[Tried]:
        """What the plan needs to know, in order."""
        shown = [each for each in self.all() if not self._left_nothing(each)]
        continued = {each.continues for each in shown}
        return [
            Tried(
                candidate=each.spec.candidate,
                method=each.spec.method,
                origin=each.origin,
                state=each.state,
                validation=each.validation,
                seconds=each.seconds,
                point=runner.space(each.spec.method, each.spec.candidate).point(each.spec),
                number=each.number,
                # how sure a start is says little: zero-shot, or not far from it, by a logit scale of pretraining
                soft=each.soft_validation if each.kept_epoch else None,
                images=each.validation_images,
                curve=_curve(each) if _trains(runner, each) is Trains.TOWER else None,
                share=self._share(each),
                fold=each.spec.fold if runner.folds > 1 and _trains(runner, each) is Trains.TOWER else None,
                folds=tuple(
                    FoldScore(metric=metric, soft=soft)
                    for metric, soft in zip(each.fold_validation, each.fold_soft, strict=True)
                ),
            )
            for each in shown
            if each.spec.method in runner.methods and each.number not in continued
        ]

    def _share(self, result: TrialResult) -> float:
        """Of the planned epochs that the trial ran itself."""
        before = self.results.get(result.continues) if result.continues is not None else None
        if result.continues is not None and before is None and result.cost and result.fidelity:
            # what it goes on from was killed and has no result, but its seconds are part of the cost
            return result.fidelity * result.seconds / result.cost
        return (_epochs(result) - (_epochs(before) if before else 0)) / max(1, result.spec.epochs)

    def _left_nothing(self, result: TrialResult) -> bool:
        """Whether all is as if the trial had never begun: the clock ended it too early for weights or a state."""
        return _cut_short(result) and result.number not in self._paused

    def tidy(self, expected: Mapping[int, float]) -> None:
        """Keep the weights of the trials that may yet be chosen."""
        leaders = self.leaders(expected)
        kept = {each.number for each in (*leaders[:_WEIGHTS_KEPT], *self.members(expected))}
        further = sorted({each.number for number in kept for each in other_folds(self.results[number], self.all())})
        room = _MOST_BYTES - sum(size_of_weights(self.workdir, number) for number in kept)
        for number in further:  # fits of the same tower: the mean of their weights is what the user gets
            room -= size_of_weights(self.workdir, number)
            if room >= 0:
                kept.add(number)
        for number in self._weights - kept:
            if number in further:
                keep_held_out_alone(self.workdir, self.results[number])
            else:
                drop_weights(self.workdir, number)
            self._weights.discard(number)


def other_folds(trial: TrialResult, results: Iterable[TrialResult]) -> list[TrialResult]:
    """Whole trials of the same settings that were scored on other folds; of a whole trial."""
    whole = [] if trial.out_of_time else [each for each in results if not each.out_of_time]
    return [each for each in whole if each.state is TrialState.COMPLETE and each.spec.differs_by_fold_alone(trial.spec)]


def over_folds(trial: TrialResult, results: Iterable[TrialResult]) -> TrialResult:
    """The trial with its validation over all images that its settings were scored on: the mean, weighed by images.

    The first fold alone flatters: whoever leads is asked for others, and part of its lead was luck.
    """
    scored = [each for each in (trial, *other_folds(trial, results)) if each.validation is not None]
    images = [each.validation_images or 0 for each in scored]
    if len(scored) < 2 or not all(images):  # noqa: PLR2004 - its own fold alone
        return trial
    mean = sum(count * (each.validation or 0.0) for each, count in zip(scored, images, strict=True)) / sum(images)
    return replace(trial, validation=mean, validation_images=sum(images))


def _trains(runner: TrialRunner, result: TrialResult) -> Trains:
    return runner.methods[result.spec.method].trains


def _curve(result: TrialResult) -> Curve | None:
    if not result.curve:
        return None
    return Curve(values=result.curve, epochs=max(result.spec.epochs, len(result.curve)))


def _epochs(result: TrialResult) -> float:
    """That were trained; of one that time cut short only a part."""
    if result.fidelity is None or not result.spec.epochs:
        return result.epochs_run
    return result.fidelity * result.spec.epochs


def _cut_short(result: TrialResult) -> bool:
    return result.state is TrialState.PRUNED and result.out_of_time
