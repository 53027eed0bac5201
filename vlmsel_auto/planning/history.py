"""What a search has tried so far, and what that says: the posterior over candidates and the ranking made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vlmsel_auto.planning.curves import Estimate, forecast
from vlmsel_auto.planning.folds import by_settings
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.soft_metric import soft_shift, weigh
from vlmsel_auto.planning.trial_posterior import Observation, TrialPosterior, trial_posterior
from vlmsel_auto.planning.trials import Arm, History, Tried
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Interval, Ranking, TrialState


def expected_end(trial: Tried, *, policy: Policy = POLICY) -> Estimate | None:
    """What the trial reached, or would have reached at its end; None: it says nothing."""
    if trial.state is TrialState.COMPLETE:
        return None if trial.validation is None else Estimate(mean=trial.validation, sd=0.0)
    if trial.state is TrialState.PRUNED and trial.curve is not None and trial.curve.values:
        return forecast(trial.curve, policy=policy)
    return None


def _complete(plan: Plan, history: History) -> list[tuple[Tried, float]]:
    """Complete trials of the methods that train, with their metric."""
    names = {each.name for each in plan.methods}
    return [
        (trial, trial.validation)
        for trial in by_settings(history)
        if trial.state is TrialState.COMPLETE and trial.validation is not None and trial.method in names
    ]


def _level(plan: Plan, history: History) -> float | None:
    """Mean metric of the complete trials; None while there is none."""
    metrics = [metric for _, metric in _complete(plan, history)]
    return float(np.clip(np.mean(metrics), 0.01, 0.99)) if metrics else None


def _weighed(plan: Plan, metric: float, trial: Tried, *, shifts: Mapping[str, float], level: float | None) -> Estimate:
    """``metric`` of a trial, with its soft metric where it is complete."""
    soft = trial.soft + shifts[trial.method] if trial.state is TrialState.COMPLETE and trial.soft is not None else None
    exact = plan.validation_images is None
    images = None if exact else trial.images or plan.validation_images
    return weigh(metric, soft, images=images, level=level, policy=plan.policy)


def _shifts(plan: Plan, history: History) -> dict[str, float]:
    """By method: how much surer than right a classifier is depends on what trained it more than on anything else."""
    complete = _complete(plan, history)
    return {
        method.name: soft_shift([(metric, trial.soft) for trial, metric in complete if trial.method == method.name])
        for method in plan.methods
    }


def known_ends(plan: Plan, history: History) -> dict[Arm, Estimate]:
    """What is known of each arm: its best complete trial, or else where its best pruned one would have ended."""
    shifts, level = _shifts(plan, history), _level(plan, history)
    names = {each.name for each in plan.methods}
    best: dict[Arm, tuple[bool, Estimate]] = {}  # whether it is complete, and its end
    for trial in by_settings(history):
        arm, end = (trial.candidate, trial.method), expected_end(trial, policy=plan.policy)
        if end is None or trial.method not in names:
            continue
        done, known = trial.state is TrialState.COMPLETE, best.get(arm)
        seen = _weighed(plan, end.mean, trial, shifts=shifts, level=level)
        if known is None or (done, seen.mean) > (known[0], known[1].mean):
            best[arm] = done, Estimate(mean=seen.mean, sd=float(np.hypot(end.sd, seen.sd)))
    return {arm: end for arm, (_, end) in best.items()}


def observe(plan: Plan, history: History) -> TrialPosterior:
    """The belief after the trials so far; methods in the order of ``plan.methods``.

    What is known of an arm counts as much as the validation images allow.
    """
    observations = [
        Observation(candidate=plan.belief.candidates.index(name), method=plan.column(method), value=end.mean, sd=end.sd)
        for (name, method), end in known_ends(plan, history).items()
    ]
    return trial_posterior(plan.belief, observations, gains=[each.gain for each in plan.methods], policy=plan.policy)


def believed(plan: Plan, history: History, arm: Arm) -> Estimate | None:
    """What one more trial of the arm would reach, by the trials so far; None: of a method that trains nothing."""
    name, method = arm
    if method not in {each.name for each in plan.methods}:
        return None
    now, row, column = observe(plan, history), plan.belief.candidates.index(name), plan.column(method)
    return Estimate(mean=float(now.mean[row, column]), sd=float(now.sd[row, column]))


def expectations(plan: Plan, history: History, *, now: TrialPosterior | None = None) -> dict[int, float]:
    """What the complete trials would reach on new images, by number; the zero-shot baseline is not among them.

    Less what the objective takes off their candidates, so that they can be compared.

    Few validation images tell candidates apart badly, and the best of many lucky ones the worst: the posterior weighs
    what was measured with what the ranking and the trials of similar candidates say. With many images it is the
    measured value. It is the best trial of an arm (candidate and method) that it speaks of; others of the arm fall
    short of that by as much as they were measured to, so far as such differences outlast their noise.
    """
    shifts, level = _shifts(plan, history), _level(plan, history)
    seen = [
        (trial, _weighed(plan, metric, trial, shifts=shifts, level=level)) for trial, metric in _complete(plan, history)
    ]
    if not seen:
        return {}
    top: dict[Arm, float] = {}
    for trial, found in seen:
        top[trial.candidate, trial.method] = max(top.get((trial.candidate, trial.method), -1.0), found.mean)
    mean = (observe(plan, history) if now is None else now).mean
    rows = {name: m for m, name in enumerate(plan.belief.candidates)}
    local = plan.policy.local_sd**2
    return {
        trial.number: float(mean[rows[trial.candidate], plan.column(trial.method)])
        - plan.charge(trial.candidate)
        - (top[trial.candidate, trial.method] - found.mean) * local / (local + found.sd**2)
        for trial, found in seen
    }


def measuring_error(plan: Plan, history: History, *, folds: int) -> float:
    """Standard error of a metric that so many folds of the labelled images say; 0 where it is taken as exact."""
    if plan.validation_images is None:
        return 0.0
    level = _level(plan, history)
    at = 0.5 if level is None else level
    return weigh(at, None, images=folds * plan.validation_images, level=at, policy=plan.policy).sd


def updated_ranking(plan: Plan, ranking: Ranking, history: History) -> Ranking:
    """The ranking after the trials so far: candidates by their posterior under the last method of the plan.

    Scores and standard deviations are again in standard units: metric over the task's spread, centred.
    """
    if not plan.methods:
        return ranking
    now = observe(plan, history)
    mean = now.mean[:, -1]
    chances = simulate_ranks(mean, now.cov[-1], seed=plan.seed)
    scores = (mean - mean.mean()) / now.spread
    sd = now.sd[:, -1] / now.spread
    rows = {name: m for m, name in enumerate(plan.belief.candidates)}
    ranked = [
        replace(
            line,
            score=float(scores[m]),
            sd=float(sd[m]),
            p_best=float(chances.p_best[m]),
            p_top5=float(chances.p_top5[m]),
            rank_interval=Interval(low=float(chances.low[m]), high=float(chances.high[m])),
        )
        for line in ranking.ranked
        if (m := rows.get(line.candidate)) is not None
    ]
    return replace(ranking, ranked=tuple(sorted(ranked, key=lambda line: -line.score)))
