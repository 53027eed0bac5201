"""What the trials of a search say: the posterior over candidates, and the ranking made anew."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from vlmsel_auto.planning.curves import Estimate, forecast
from vlmsel_auto.planning.folds import by_settings
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.soft_metric import soft_shift, weigh
from vlmsel_auto.planning.trial_posterior import Observation, TrialPosterior, trial_posterior
from vlmsel_auto.planning.trials import Arm, History, Tried
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Interval, Ranking, TrialState


class TrialEvidence:
    """What the trials of a history say, by the plan that they follow."""

    def __init__(self, plan: Plan, history: History) -> None:
        self._plan = plan
        self._rows = {name: m for m, name in enumerate(plan.belief.candidates)}
        self._columns = {method.name: j for j, method in enumerate(plan.methods)}
        # of the methods that train; those of the same settings on several folds are one
        self.trials = [trial for trial in by_settings(history) if trial.method in self._columns]
        self._complete = [
            (trial, trial.validation)
            for trial in self.trials
            if trial.state is TrialState.COMPLETE and trial.validation is not None
        ]
        metrics = [metric for _, metric in self._complete]
        self._level = float(np.clip(np.mean(metrics), 0.01, 0.99)) if metrics else 0.5
        # how much surer than right a classifier is depends on what trained it more than on anything else
        self._shifts = {
            name: soft_shift([(metric, trial.soft) for trial, metric in self._complete if trial.method == name])
            for name in self._columns
        }

    @cached_property
    def ends(self) -> dict[Arm, Estimate]:
        """What is known of each arm: its best complete trial, or else where its best pruned one would have ended."""
        best: dict[Arm, tuple[bool, Estimate]] = {}  # whether it is complete, and its end
        for trial in self.trials:
            end = self._end(trial)
            if end is None:
                continue
            arm, done = (trial.candidate, trial.method), trial.state is TrialState.COMPLETE
            if arm not in best or (done, end.mean) > (best[arm][0], best[arm][1].mean):
                best[arm] = done, end
        return {arm: end for arm, (_, end) in best.items()}

    @cached_property
    def posterior(self) -> TrialPosterior:
        """The belief after the trials; methods in the order of the plan.

        What is known of an arm counts as much as the validation images allow.
        """
        observations = [
            Observation(candidate=self._rows[name], method=self._columns[method], value=end.mean, sd=end.sd)
            for (name, method), end in self.ends.items()
        ]
        gains = [each.gain for each in self._plan.methods]
        return trial_posterior(self._plan.belief, observations, gains=gains, policy=self._plan.policy)

    def of(self, arm: Arm) -> Estimate | None:
        """What one more trial of the arm would reach; None: of a method that trains nothing."""
        name, method = arm
        if method not in self._columns:
            return None
        place = self._rows[name], self._columns[method]
        return Estimate(mean=float(self.posterior.mean[place]), sd=float(self.posterior.sd[place]))

    def expectations(self) -> dict[int, float]:
        """What the complete trials would reach on new images, by number; the zero-shot baseline is not among them.

        Less what the objective takes off their candidates, so that they can be compared.

        Few validation images tell candidates apart badly, and the best of many lucky ones the worst: the posterior
        weighs what was measured with what the ranking and the trials of similar candidates say. With many images it is
        the measured value. It is the best trial of an arm (candidate and method) that it speaks of; others of the arm
        fall short of that by as much as they were measured to, so far as such differences outlast their noise.
        """
        local = self._plan.policy.local_sd**2
        found = {}
        for trial, metric in self._complete:
            own, arm = self._weighed(trial, metric), (trial.candidate, trial.method)
            mean = float(self.posterior.mean[self._rows[trial.candidate], self._columns[trial.method]])
            short = (self.ends[arm].mean - own.mean) * local / (local + own.sd**2)
            found[trial.number] = mean - self._plan.charge(trial.candidate) - short
        return found

    def error(self, *, folds: int) -> float:
        """Standard error of a metric that so many folds of the labelled images say; 0 where it is taken as exact."""
        plan = self._plan
        if plan.validation_images is None:
            return 0.0
        level, images = self._level, folds * plan.validation_images
        return weigh(level, None, images=images, level=level, policy=plan.policy).sd

    def updated(self, ranking: Ranking) -> Ranking:
        """The ranking after the trials: candidates by their posterior under the last method of the plan.

        Scores and standard deviations are again in standard units: metric over the task's spread, centred.
        """
        if not self._columns:
            return ranking
        now = self.posterior
        mean = now.mean[:, -1]
        chances = simulate_ranks(mean, now.cov[-1], seed=self._plan.seed)
        scores = (mean - mean.mean()) / now.spread
        sd = now.sd[:, -1] / now.spread
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
            if (m := self._rows.get(line.candidate)) is not None
        ]
        return replace(ranking, ranked=tuple(sorted(ranked, key=lambda line: -line.score)))

    def _end(self, trial: Tried) -> Estimate | None:
        """What the trial reached, or would have reached at its end; None: it says nothing."""
        if trial.state is TrialState.COMPLETE:
            return None if trial.validation is None else self._weighed(trial, trial.validation)
        if trial.state is not TrialState.PRUNED or trial.curve is None or not trial.curve.values:
            return None
        end = forecast(trial.curve, policy=self._plan.policy)
        seen = self._weighed(trial, end.mean)
        return Estimate(mean=seen.mean, sd=float(np.hypot(end.sd, seen.sd)))

    def _weighed(self, trial: Tried, metric: float) -> Estimate:
        """``metric`` of a trial, with its soft metric where it is complete."""
        plan, soft = self._plan, None
        if trial.state is TrialState.COMPLETE and trial.soft is not None:
            soft = trial.soft + self._shifts[trial.method]
        images = None if plan.validation_images is None else trial.images or plan.validation_images
        return weigh(metric, soft, images=images, level=self._level, policy=plan.policy)
