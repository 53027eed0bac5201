"""The metric of a trial weighed with its soft metric: what few validation images tell of a classifier.

A validation split says how many images are right; a classifier also says how probable it holds the true class, and the
mean of that, the soft metric, tells candidates apart on fewer images: where the metric jumps from 0 to 1 it moves a
little. But its level is another one, and how much surer than right a classifier is depends on candidate and settings.
The two are weighed as two measurements of one thing with known errors (generalised least squares). On few images the
soft metric leads, on thousands the metric alone counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmsel_auto.planning.curves import Estimate
from vlmsel_auto.planning.policy import POLICY, Policy


def soft_shift(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Mean of (metric - soft metric) over trials that have both: the level of the soft metric is put to the metric's.

    With one trial it leaves the metric as it is; with more only differences of the soft metric count.
    """
    gaps = [metric - soft for metric, soft in pairs if soft is not None]
    return float(np.mean(gaps)) if gaps else 0.0


def weigh(
    metric: float, soft: float | None, *, images: int | None, level: float = 0.5, policy: Policy = POLICY
) -> Estimate:
    """The metric weighed with the soft metric; its error is against new images, less what all candidates share.

    The binomial variance is p (1 - p) / n, p between the metric and the level of the trials so far: by their own
    metrics the lucky would seem the surest, and outweigh the others.

    Args:
        metric: on the validation split, in [0, 1].
        soft: the soft metric, shifted to the metric's level; None: not known.
        images: of the validation split; None: the metric is taken as exact.
        level: mean metric of the trials so far, in (0, 1); .5 where nothing is known.
        policy: shares of the variance.
    """
    if images is None:
        return Estimate(mean=metric, sd=0.0)
    known = min(1.0, max(0.0, metric)) * images + level * policy.level_images
    share = known / (images + policy.level_images)
    own = policy.own_variance * share * (1 - share) / images
    if soft is None:
        return Estimate(mean=metric, sd=float(np.sqrt(own)))
    sure, both = policy.soft_variance * own + policy.calibration_sd**2, policy.soft_covariance * own
    weight = float(np.clip((sure - both) / (own + sure - 2 * both), 0.0, 1.0))
    rest = 1 - weight
    variance = weight**2 * own + rest**2 * sure + 2 * weight * rest * both
    return Estimate(mean=weight * metric + rest * soft, sd=float(np.sqrt(variance)))
