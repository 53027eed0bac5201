"""Sentences of a report that the page and the terminal share."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.ranking.agreement import TOO_FEW_FOR_NDCG, TOO_FEW_FOR_TAU
from vlmsel_auto.records import Agreement, BestModel, ExpectedAccuracy, FinalScore, Interval, StoppedBy, TrialResult
from vlmsel_auto.reporting import formatting
from vlmsel_auto.reporting.report import UNKNOWN, SearchReport, best_trials
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import DASH, percent

TOO_FEW: Final = "too few to say"
_NO_GAIN: Final = 0.0005  # accuracy: would be shown as 0.0 points
STOPPED: Final[Mapping[StoppedBy, str]] = {
    StoppedBy.EXHAUSTED: "no further trial promised enough for its time (--price)",
    StoppedBy.BUDGET: "the budget was spent",
    StoppedBy.INTERRUPTED: "it was interrupted; the same command with the same work directory goes on",
    StoppedBy.ALL_FAILED: "every trial failed",
    StoppedBy.NO_LABELS: "without labels nothing can be tuned or checked",
}


def figure_text(found: Agreement, name: Literal["tau_b", "weighted_tau", "ndcg5"]) -> str:
    """A figure of agreement with its interval, where it has one; a dash where it is undefined."""
    value: float | None = getattr(found, name)
    if value is None:
        return TOO_FEW if found.n < (TOO_FEW_FOR_NDCG if name == "ndcg5" else TOO_FEW_FOR_TAU) else DASH
    bounds: Interval | None = getattr(found, f"{name}_interval", None)
    between = "" if bounds is None else f" ({formatting.number(bounds.low)} to {formatting.number(bounds.high)})"
    return formatting.number(value) + between


def points_text(share: float | None) -> str:
    """A difference of accuracies in percentage points."""
    return TOO_FEW if share is None else f"{100 * share:.1f} points"


def expected_text(expected: ExpectedAccuracy) -> str:
    """What a model is expected to reach without a label that checked it, and how sure that is."""
    low, high = expected.interval.low, expected.interval.high
    return f"accuracy about {percent(expected.value, digits=0)} ({percent(low, digits=0)} to {percent(high, digits=0)})"


def warned_text(expected: ExpectedAccuracy) -> str:
    """The same, with a warning where candidates may not know the images."""
    return f"{expected_text(expected)}; {UNKNOWN}" if expected.is_unknown else expected_text(expected)


def gain_text(loss: float) -> str:
    """What labels can still gain, where taking the leader is expected to cost so much accuracy."""
    if loss < _NO_GAIN:
        return "further labels can hardly gain anything"
    return f"further labels can gain about {points_text(loss)}"


def calibration_text(score: FinalScore) -> str:
    """A calibration error beside what exact probabilities would show, where that is known."""
    return percent(score.calibration_error) + floor_text(score)


def floor_text(score: FinalScore) -> str:
    """What exact probabilities would show, in brackets; empty where that is not known."""
    floor = score.calibration_floor
    return "" if floor is None else f" (exact probabilities: {percent(floor)})"


def mixed_text(report: SearchReport) -> str:
    """That the actual order mixes methods, where it does; else empty."""
    methods = Counter(line.trial.spec.method for line in report.outcomes)
    if len(methods) <= 1:
        return ""
    total = sum(methods.values())
    (rarest, count), *others = reversed(methods.most_common())
    first = f"{count} of {total} by {label_of(rarest)}"
    rest = ", ".join(f"{count} by {label_of(method)}" for method, count in others)
    return (
        f"Each candidate counts by its best trial: {first}, {rest}, so part of the actual order is the method's doing."
    )


def pruning_text(report: SearchReport) -> str:
    """How many candidates have no finished trial, and that nothing is known of them."""
    count = report.unfinished
    if count == 0:
        return "Every candidate has a finished trial."
    have, they = ("has", "it") if count == 1 else ("have", "they")
    return (
        f"{formatting.plural(count, 'candidate')} {have} no finished trial: what {they} would have reached is unknown."
    )


def saved_text(report: SearchReport) -> str:
    """Time saved, with how it was estimated."""
    saved = report.saved_seconds
    if saved is None:
        return "unknown: no candidate was tuned"
    if saved <= 0:
        return "none: every candidate was tried"
    return f"about {formatting.duration(saved)} (the untried candidates at the median time of the tuned ones)"


def predict_command(report: SearchReport) -> str:
    """The command that classifies an image with the best model; empty when there is none."""
    if report.best is None or report.best.model_dir is None:
        return ""
    return f"vlmsel-auto predict {shlex.quote(str(report.best.model_dir))} IMAGE..."


def without_best(report: SearchReport) -> str:
    """Why there is no best model."""
    if any(trial.state == "failed" for trial in report.trials):
        return "No trial succeeded: the reasons are in the report."
    return "No trial was finished: the same command with more time goes on from here."


def choice_notes(
    best: BestModel | None, trials: Sequence[TrialResult], *, images: int, objective: Objective
) -> list[str]:
    """Why the chosen trial is not the one with the highest validation, measured on so many images."""
    chosen = next((each for each in trials if best is not None and each.number == best.trial), None)
    others = [each for each in trials if chosen is None or not each.spec.differs_by_fold_alone(chosen.spec)]
    tops = best_trials(others).values()
    top = max(tops, key=lambda each: (each.validation or 0.0, -each.number), default=None)
    if best is None or best.validation is None or top is None or (top.validation or 0.0) <= best.validation:
        return []
    why = (
        f"trial {top.number} ({top.spec.candidate}) had a higher validation than the chosen trial {best.trial} "
        f"({percent(top.validation)} against {percent(best.validation)}); "
    )
    if objective:
        why += f"the objective {objective} weighs that against what its candidate costs"
    else:
        why += (
            f"on {formatting.plural(images, 'image')} that may be chance, and the ranking, the trials of kindred "
            f"candidates and how sure the classifiers are of the right classes speak for the chosen one"
        )
    return [why]
