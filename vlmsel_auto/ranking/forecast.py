"""What published figures and screenings say of candidates that no library knows, in a ranking's standard units.

The forecast is that of `planning.screening_posterior`: candidates that were not screened have a place in it because
models rise and fall together. Those that were screened are ordered among themselves by the forecast and by the
evidence of their labels, or else of their unlabelled images, in equal shares: the forecast knows their published
figures, the evidence sees more than an accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.ranking.evidence import linear, zeroshot
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.signals import Embedded
from vlmsel_auto.records import FloatArray

_EVIDENCE: Final = 0.5  # share of the evidence among those screened; our own choice
_EXPLAINED: Final = 0.5  # of the variance, by evidence that is news; our own choice
_OWN_VARIANCE: Final = 0.6  # of the binomial variance; the rest all candidates share, seeing the same images
_LEAST_UNIT: Final = 0.01  # accuracy: candidates that hardly differ are not blown up to a full unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """Expected accuracies of M candidates."""

    mean: FloatArray  # (M,)
    sd: FloatArray  # (M,) without the level, which all share
    screened: NDArray[np.bool_]  # (M,) whether its own images and labels took part
    published: NDArray[np.bool_]  # (M,) whether there are published figures of it

    def of(self, places: Sequence[int]) -> Forecast:
        """The forecast of some of the candidates, in this order."""
        at = np.asarray(places, dtype=np.int64)
        return Forecast(mean=self.mean[at], sd=self.sd[at], screened=self.screened[at], published=self.published[at])


def screening_accuracy(seen: Embedded) -> tuple[float, float]:
    """Accuracy on the labelled images, and its standard error between candidates.

    Of a ridge classifier that starts at the class texts, each image left out once; where no class has two images, of
    the zero-shot classifier, or chance without a text tower. The standard error comes from the candidates' own part of
    the binomial variance.
    """
    found, count = linear.ridge(seen.features, seen.classes, text_features=seen.start), len(seen.classes)
    named = seen.start is not None
    guess = zeroshot.zeroshot(seen.cosine, seen.classes) if named else 1.0 / (1 + int(seen.classes.max()))
    accuracy = found if np.isfinite(found) else guess
    smoothed = (accuracy * count + 1) / (count + 2)
    return accuracy, float(np.sqrt(_OWN_VARIANCE * smoothed * (1 - smoothed) / count))


def in_standard_units(
    forecast: Forecast, evidence: FloatArray | None, *, news: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Scores (M,) and standard deviations (M,) as a ranking has them.

    The unit is the standard deviation over candidates of what is believed of them, their own uncertainty included.

    Args:
        forecast: of M candidates.
        evidence: (M,) score of labels and images where a candidate was screened, any unit; None: there is none.
        news: the forecast knows nothing of what the evidence is made of, as where screenings saw no labels: the
            evidence then widens the scores and narrows what is uncertain.
    """
    away = forecast.mean - forecast.mean.mean()
    unit = max(float(np.sqrt(np.mean(away**2 + forecast.sd**2))), _LEAST_UNIT)
    score, sd = away / unit, forecast.sd / unit
    screened = forecast.screened
    if evidence is not None and screened.sum() > 1:
        own = score[screened]
        both = (1 - _EVIDENCE) * standardise(own) + _EVIDENCE * standardise(evidence[screened])
        spread = own.std()
        if news:
            spread = np.sqrt(own.var() + _EXPLAINED * np.mean(sd[screened] ** 2))
            sd[screened] *= np.sqrt(1 - _EXPLAINED)
        score[screened] = own.mean() + spread * standardise(both)
    return score, sd
