"""What a validation split says of a trial, and how far off that may be on new images. Pure arithmetic.

A metric counts an image as right or wrong. A classifier also says how probable it holds the true class, and the mean of
that, the soft metric, tells candidates apart on fewer images: where the metric jumps from 0 to 1 it moves a little. But
its level is another one, and how much surer than right a classifier is depends on candidate and hyperparameters. The
two are weighed as two measurements of one thing with known errors (generalised least squares; the model of their errors
is our own choice). On few images the soft metric leads, on thousands the metric alone counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Evidence", "soft_shift", "weigh"]

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
