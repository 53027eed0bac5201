"""Every constant of the planner in one record, so that a benchmark can sweep them.

docs/choices.md says what measured each. Metrics lie in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a search plans. The defaults are what every search uses."""

    # prior over candidates and how trials change it (posterior)
    typical_spread: float = 0.06  # median of the log-normal prior of s: metric per standard unit of the ranking
    reversed_order: float = 0.05  # probability that the ranking has the order the wrong way round
    method_sd: float = 0.065  # of the difference between methods (benchmarks/tuning/fits_worth.py)
    arm_share: float = 0.35  # standard deviation of an arm's own part, as a share of s
    noise_sd: float = 0.008  # of a metric: one split, one seed

    # what other settings of a tried arm promise
    local_loss: float = 0.01  # of the metric: what they lose on average
    local_sd: float = 0.02  # how much their metrics vary
    step: float = 0.17  # standard deviation of a move near the best point, in the unit cube
    repeat: float = 0.25  # what is left of an arm's worth after a trial that gave nothing

    # what validation images tell: shares of the binomial variance (docs/results/planning.md)
    own_variance: float = 0.6  # a candidate's own; the rest all have in common, being measured on the same images
    soft_variance: float = 0.4  # of the soft metric, in units of the candidate's own
    soft_covariance: float = 0.53  # of metric and soft metric, likewise
    calibration_sd: float = 0.03  # of how much surer than right trials are
    level_images: float = 20.0  # images that the mean metric of all trials counts for in a trial's binomial variance

    # what the mean of several fits is better than one (benchmarks/tuning/fits_worth.py)
    member_gain: float = 0.075  # of the metric, by very many candidates
    fit_gain: float = 0.016  # of the metric, by very many fits of one candidate

    # learning curves
    growth: float = 0.03  # of the metric over a whole trial
    slack: float = 0.05  # a candidate's first trial is pruned only when it is worse by more than this

    # what must be promised, and cost
    cost_power: float = 0.5  # gains are divided by this power of their share of the budget; 1: plain gain per cost
    # of the metric, that other settings of a tried arm must promise (docs/results/planning.md)
    least_gain: float = 0.002
    price: float = 0.001  # of the metric for each minute of a trial, on top of that
    screening: float = 0.25  # at most this share of a budget goes to first trials of heads
    pace_power: float = 0.5  # seconds of candidates go with this power of their operations
    late_model: float = 30.0  # seconds beyond the budget for the zero-shot baseline, where a search has no model yet


POLICY = Policy()
