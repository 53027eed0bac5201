"""What a search has tried so far, and what that says: the posterior over candidates and the ranking made anew.

What a validation split says of a trial, and how far off that may be on new images. Pure arithmetic.

A metric counts an image as right or wrong. A classifier also says how probable it holds the true class, and the mean of
that, the soft metric, tells candidates apart on fewer images: where the metric jumps from 0 to 1 it moves a little. But
its level is another one, and how much surer than right a classifier is depends on candidate and hyperparameters. The
two are weighed as two measurements of one thing with known errors (generalised least squares; the model of their errors
is our own choice). On few images the soft metric leads, on thousands the metric alone counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.planning.curves import Curve, Forecast, forecast
from vlmsel_auto.planning.plan import METHODS, Plan
from vlmsel_auto.planning.posterior import LOCAL_SD, Observation, Posterior, posterior
from vlmsel_auto.planning.space import Point
from vlmsel_auto.records import Interval, Method, Ranking, TrialOrigin, TrialState

__all__ = [
    "MIN_GAIN",
    "Arm",
    "Evidence",
    "History",
    "Left",
    "Tried",
    "best_value",
    "expectations",
    "expected_end",
    "known_ends",
    "observe",
    "paused",
    "soft_shift",
    "stalled",
    "updated_ranking",
    "weigh",
    "whole_curves",
]

# shares of the binomial variance, measured on fine-tuned and probed members (benchmarks/choice.py, docs/trials.md)
_OWN = 0.6  # of the metric: a candidate's own; the rest all have in common, being measured on the same images
_SOFT = 0.4  # of the soft metric's own variance, in units of that
_BOTH = 0.53  # of the covariance of both, likewise
_CALIBRATION_SD = 0.03  # of how much surer than right trials are: .013 to .042 at default settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a trial reached, as far as its validation images tell."""

    value: float  # in units of the metric
    sd: float  # against new images, less what all candidates have in common


def soft_shift(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Mean of (metric - soft metric) over trials that have both: the level of the soft metric is put to the metric's.

    With one trial it leaves the metric as it is; with more only differences of the soft metric count.
    """
    gaps = [metric - soft for metric, soft in pairs if soft is not None]
    return float(np.mean(gaps)) if gaps else 0.0


def weigh(metric: float, soft: float | None, *, images: int | None) -> Evidence:
    """The metric weighed with the soft metric.

    The binomial variance is that of the share of right images after k of n under a flat prior, Beta(k + 1, n - k + 1).

    Args:
        metric: on the validation split, in [0, 1].
        soft: the soft metric, shifted to the metric's level; None: not known.
        images: of the validation split; None: the metric is taken as exact.
    """
    if images is None:
        return Evidence(value=metric, sd=0.0)
    share = min(1.0, (metric * images + 1) / (images + 2))
    own = _OWN * share * (1 - share) / (images + 3)
    if soft is None:
        return Evidence(value=metric, sd=float(np.sqrt(own)))
    sure, both = _SOFT * own + _CALIBRATION_SD**2, _BOTH * own
    weight = float(np.clip((sure - both) / (own + sure - 2 * both), 0.0, 1.0))
    rest = 1 - weight
    variance = weight**2 * own + rest**2 * sure + 2 * weight * rest * both
    return Evidence(value=weight * metric + rest * soft, sd=float(np.sqrt(variance)))


_GAINS = (0.0, 0.03)  # fine-tuning over probing, before either was seen on this task
MIN_GAIN = 1e-4  # a better result is better by this much
_TOP = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What the plan needs to know of one trial, in the order in which they were begun."""

    candidate: str
    method: Method
    origin: TrialOrigin
    state: TrialState
    validation: float | None
    seconds: float
    point: Point
    number: int  # no other complete trial has it
    soft: float | None = None  # validation with each image counted by the probability of its true class
    curve: Curve | None = None  # of fine-tuning, the epochs of the trial that it continues included
    share: float = 1.0  # of the planned epochs that this trial itself ran
    resumable: bool = False  # it is paused, and the state of its training is there
    continues: int | None = None  # number of the paused trial that it took up


History = Sequence[Tried]
Arm = tuple[str, Method]  # candidate and method


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is left of the budget; None: unlimited."""

    trials: int | None = None
    seconds: float | None = None


def whole_curves(history: History) -> tuple[Curve, ...]:
    """Learning curves of trials that reached their end."""
    return tuple(each.curve for each in history if each.curve is not None and each.curve.whole)


def paused(history: History) -> tuple[Tried, ...]:
    """Trials that can be continued, and were not yet."""
    taken_up = {each.continues for each in history}
    return tuple(each for each in history if each.resumable and each.curve is not None and each.number not in taken_up)


def expected_end(trial: Tried, *, whole: Sequence[Curve]) -> Forecast | None:
    """What the trial's arm reached, or would reach at its end; None: it says nothing."""
    if trial.state == "complete":
        return None if trial.validation is None else Forecast(mean=trial.validation, sd=0.0)
    if trial.state == "pruned" and trial.curve is not None and trial.curve.values:
        return forecast(trial.curve, others=whole)
    return None


def _shift(history: History) -> float:
    complete = (trial for trial in history if trial.state == "complete")
    return soft_shift([(trial.validation, trial.soft) for trial in complete if trial.validation is not None])


def _weighed(metric: float, trial: Tried, *, shift: float, images: int | None) -> Evidence:
    """``metric`` of a trial, with its soft metric where it is complete: a paused one may yet become surer."""
    known = trial.state == "complete" and trial.soft is not None
    return weigh(metric, (trial.soft or 0.0) + shift if known else None, images=images)


def known_ends(history: History, *, images: int | None) -> dict[Arm, Forecast]:
    """What is known of each arm: its best complete trial, or else where its most promising paused one would end.

    Args:
        history: trials so far.
        images: of the validation split; None takes metrics as exact.
    """
    whole, shift = whole_curves(history), _shift(history)
    best: dict[Arm, tuple[bool, Forecast]] = {}  # whether it is complete, and its end
    for trial in history:
        arm, end = (trial.candidate, trial.method), expected_end(trial, whole=whole)
        if end is None:
            continue
        done, known = trial.state == "complete", best.get(arm)
        seen = _weighed(end.mean, trial, shift=shift, images=images)
        if known is None or (done, seen.value) > (known[0], known[1].mean):
            best[arm] = done, Forecast(mean=seen.value, sd=float(np.hypot(end.sd, seen.sd)))
    return {arm: end for arm, (_, end) in best.items()}


def observe(plan: Plan, history: History) -> Posterior:
    """The belief after the trials so far; methods in the order of ``plan.methods``.

    What is known of an arm counts as much as the validation images allow.
    """
    gains = tuple(_GAINS[METHODS.index(method)] for method in plan.methods)
    observations = [
        Observation(
            candidate=plan.belief.candidates.index(name),
            method=plan.methods.index(method),
            value=end.mean,
            sd=end.sd,
        )
        for (name, method), end in known_ends(history, images=plan.validation_images).items()
    ]
    return posterior(plan.belief, observations, gains=gains)


def expectations(plan: Plan, history: History, *, now: Posterior | None = None) -> dict[int, float]:
    """What the complete trials would reach on new images, by number.

    Few validation images tell candidates apart badly, and the best of many lucky ones the worst: the posterior weighs
    what was measured with what the ranking and the trials of kin say. With many images it is the measured value. It is
    the best trial of an arm (candidate and method) that it speaks of; others of the arm fall short of that by as much
    as they were measured to, so far as such differences outlast their noise.
    """
    images, shift = plan.validation_images, _shift(history)
    seen = {
        trial.number: (trial, _weighed(trial.validation, trial, shift=shift, images=images))
        for trial in history
        if trial.state == "complete" and trial.validation is not None and trial.method in plan.methods
    }
    if not seen:
        return {}
    top: dict[Arm, float] = {}
    for trial, found in seen.values():
        top[trial.candidate, trial.method] = max(top.get((trial.candidate, trial.method), -1.0), found.value)
    mean = (observe(plan, history) if now is None else now).mean
    places = {name: place for place, name in enumerate(plan.belief.candidates)}
    return {
        number: float(mean[places[trial.candidate], plan.methods.index(trial.method)])
        - (top[trial.candidate, trial.method] - found.value) * LOCAL_SD**2 / (LOCAL_SD**2 + found.sd**2)
        for number, (trial, found) in seen.items()
    }


def stalled(history: History) -> int:
    """Trials since the last better result."""
    best, since = -1.0, 0
    for trial in history:
        if trial.validation is not None and trial.state == "complete" and trial.validation > best + MIN_GAIN:
            best, since = trial.validation, 0
        else:
            since += 1
    return since


def best_value(history: History) -> float:
    """The best metric of a complete trial; -1 before there is one."""
    done = (trial.validation for trial in history if trial.state == "complete" and trial.validation is not None)
    return max(done, default=-1.0)


def updated_ranking(plan: Plan, ranking: Ranking, history: History) -> Ranking:
    """The ranking after the trials so far: candidates by their posterior under the last method of the plan.

    Scores and standard deviations are again in standard units: metric over the task's spread, centred.
    """
    now = observe(plan, history)
    mean, cov = now.mean[:, -1], now.cov[-1]
    draws = np.random.default_rng(plan.seed).multivariate_normal(mean, cov, size=1_024, check_valid="ignore")
    places = (-draws).argsort(axis=1).argsort(axis=1) + 1
    low, high = np.quantile(places, [0.025, 0.975], axis=0)
    scores = (mean - mean.mean()) / now.spread
    sd = now.sd[:, -1] / now.spread
    lines = {line.candidate: line for line in ranking.ranked}
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    ranked = [
        replace(
            line,
            score=float(scores[index[name]]),
            sd=float(sd[index[name]]),
            p_best=float((places[:, index[name]] == 1).mean()),
            p_top5=float((places[:, index[name]] <= _TOP).mean()),
            rank_interval=Interval(low=float(low[index[name]]), high=float(high[index[name]])),
        )
        for name, line in lines.items()
        if name in index
    ]
    return replace(ranking, ranked=tuple(sorted(ranked, key=lambda line: -line.score)))
