"""Every hand-set constant of the planner in one record, so that a benchmark can sweep them.

All are our own choice; docs/choices.md says what measured them. Metrics lie in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmsel_auto.records import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a search plans. The defaults are what every search uses."""

    # which candidates are active before the first trial
    covered: float = 0.95  # probability of the best that the active candidates hold together
    fewest_active: int = 3  # bounds on their number when the caller sets none
    most_active: int = 8

    # prior over candidates and how trials change it (posterior)
    smallest_spread: float = 0.01  # s: metric per standard unit of the ranking, on a geometric grid
    largest_spread: float = 0.32
    spreads: int = 11  # points of the grid
    typical_spread: float = 0.06  # median of the log-normal prior of s
    spread_log_sd: float = 1.0
    misled: float = 0.05  # probability that the ranking has the order the wrong way round
    level_sd: float = 1.0  # of the task's level: nothing is known
    method_sd: float = 0.05  # of the difference between methods
    arm_share: float = 0.35  # standard deviation of an arm's own part, as a share of s
    noise_sd: float = 0.008  # of a metric: one split, one seed
    unranked_score: float = -0.5  # of candidates that the ranking lacks, in standard units
    unranked_sd: float = 1.5
    least_sd: float = 0.05  # of a ranked candidate, in standard units

    # worth of one more trial of an arm (acquisition)
    local_loss: float = 0.01  # of the metric: what other settings of a tried arm lose on average
    local_sd: float = 0.02  # how much their metrics vary
    repeat: float = 0.25  # what is left of an arm's worth after a trial that gave nothing
    measuring: float = 10.0  # times what one measurement is believed to be worth (benchmarks/choice_parts.py)

    # what validation images tell: shares of the binomial variance (benchmarks/choice.py)
    own_variance: float = 0.6  # a candidate's own; the rest all have in common, being measured on the same images
    soft_variance: float = 0.4  # of the soft metric, in units of the candidate's own
    soft_covariance: float = 0.53  # of metric and soft metric, likewise
    calibration_sd: float = 0.03  # of how much surer than right trials are: .013 to .042 at default settings
    level_images: float = 20.0  # images that the mean metric of all trials counts for in a trial's binomial variance
    min_gain: float = 1e-4  # a better result is better by this much

    # learning curves
    growth: float = 0.03  # of the metric over a whole trial, before any curve of this task is known
    growth_weight: float = 2.0  # of that, in curves
    forecast_sd: float = 0.003  # least standard deviation of a forecast
    handicap: float = 0.02  # what the least likely candidate must show beyond the others at a rung
    slack: float = 0.05  # a candidate's first trial is paused only when it is worse by more than this
    rung_errors: float = 1.0  # and every trial by more than so many standard errors of a difference

    # soft pruning
    bound: float = 1.64  # standard deviations of the bounds that a postponed candidate must beat
    patience: int = 5  # trials without a better result after which the leaders count as stalled
    fewest_tuned: int = 3  # complete trials of the last method before a search may end: an ensemble weighs methods
    least_gain: float = 0.003  # of the metric, which one more trial must promise (benchmarks/choice.py)
    price: float = 0.001  # of the metric for each minute of a trial, on top of that
    trials_per_audit: int = 3
    audit_time: float = 0.05  # of a time budget, at most, for audits
    late_model: float = 30.0  # seconds beyond the budget for the floor, where a search has no model yet

    # settings of later trials
    step: float = 0.17  # standard deviation of a move near the best point, in the unit cube

    # cost
    too_short: float = 0.25  # there must be time for this share of a whole trial
    hopeless: float = 0.01  # what is left of an arm's worth otherwise
    in_vain: float = 0.1  # with less no tower is begun: a third of the shortest schedule, which gives no model
    screening_share: int = 3  # at most one trial in so many goes to the first probes, when trials are counted
    screening_time: float = 0.25  # at most this share of the time, when that is limited
    untimed_cost: float = 20.0  # of a trial that trains a tower against one of a head, where the plan was told none
    pace_power: float = 0.5  # seconds of candidates go with this power of their operations
    least_share: float = 0.05  # of a trial's epochs: shorter ones say little of its speed

    # defaults learned from past trials
    near_best: float = 0.02  # of the metric: a past trial that is worse by this weighs 1 / e
    shrink_votes: float = 4.0  # votes that the mean above counts for

    def bar(self, seconds: float) -> float:
        """What a trial of so many seconds must promise: a share of the metric."""
        return self.least_gain + self.price * seconds / 60

    @property
    def slopes(self) -> FloatArray:
        """Grid of s, the ranking's order first and then its reverse (negative values)."""
        grid = np.geomspace(self.smallest_spread, self.largest_spread, self.spreads)
        return np.concatenate([grid, -grid])


POLICY = Policy()
