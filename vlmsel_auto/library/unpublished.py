"""What the published figures of others say of a model that has none.

Its accuracy on each published data set is expected by ridge regression on the logarithms of parameters, operations an
image, side of the image, and pairs of image and text that it was trained on. ``docs/looking.md`` says how far off that
is for a whole line of models whose figures are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from vlmsel_auto.library import published
from vlmsel_auto.models import catalogue
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.records import Candidate, FloatArray

_PENALTIES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # chosen from by leave-one-out error
_FEWEST: Final = 8  # models that a regression takes


def features_of(candidate: Candidate) -> FloatArray:
    """(4,) what the regression goes by; NaN: not known."""
    facts = facts_of(candidate)
    values = (facts.params, facts.flops, facts.image_size, facts.training_pairs)
    return np.array([np.log10(each) if each else np.nan for each in values])


def regress(features: FloatArray, figures: FloatArray, *, wanted: FloatArray) -> FloatArray:
    """Expected accuracies of models by those of others.

    Args:
        features: (N, F) of models with figures; NaN: not known, and the model tells nothing.
        figures: (N, J) their accuracies on J data sets, likewise.
        wanted: (M, F) of models without figures.

    Returns:
        (M, J), on each data set within the range of ``figures``; NaN where a feature is not known, or everywhere where
        fewer than eight models tell anything.
    """
    known = np.isfinite(features).all(axis=1) & np.isfinite(figures).all(axis=1)
    found = np.full((len(wanted), figures.shape[1]), np.nan)
    asked = np.isfinite(wanted).all(axis=1)
    if known.sum() >= _FEWEST and asked.any():
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(features[known], figures[known])
        found[asked] = np.clip(model.predict(wanted[asked]), figures[known].min(axis=0), figures[known].max(axis=0))
    return found


def expected_figures(candidates: Sequence[Candidate]) -> FloatArray:
    """(M, 35) accuracies on the published data sets, as published or, where a candidate has none, as expected.

    Rows of which too little is known are NaN. Columns as in `published.datasets`.
    """
    figures = published.zero_shot([one.id for one in candidates])
    unknown = np.flatnonzero(~np.isfinite(figures).any(axis=1))
    if len(unknown):
        wanted = np.array([features_of(candidates[place]) for place in unknown.tolist()])
        figures[unknown] = regress(*_known(), wanted=wanted)
    return figures


@lru_cache(maxsize=1)
def _known() -> tuple[FloatArray, FloatArray]:
    """Features (N, 4) and accuracies (N, 35) of the models that have figures."""
    models = [catalogue.published(*name.split("/")) for name in published.models()]
    named = [one for one in models if one is not None]
    return np.array([features_of(one) for one in named]), published.zero_shot([one.id for one in named])
