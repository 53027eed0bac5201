"""Published figures about real pretrained VLMs: what a candidate that no library knows can be ranked by.

Shipped: zero-shot accuracies of 121 open_clip models on 35 classification data sets, from docs/openclip_results.csv of
github.com/mlfoundations/open_clip (MIT).

Of a model that has no figures, its accuracy on each data set is expected by ridge regression on the logarithms of
parameters, operations an image, side of the image, and pairs of image and text that it was trained on.
``docs/results/screening.md`` says how far off that is for a whole line of models whose figures are hidden.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.models.catalogue import package_file
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.sources.open_clip_tags import published
from vlmsel_auto.records import Candidate, FloatArray

IMAGENET: Final = "ImageNet 1k"  # the column of the ImageNet prior
SHIPPED: Final = package_file("data") / "openclip_zeroshot.csv"
SOURCE: Final = "mlfoundations/open_clip docs/openclip_results.csv (MIT)"

# columns of models, and scores of retrieval and composition
_NO_ACCURACY: Final = frozenset({
    "name", "pretrained", "params (M)", "FLOPs (B)", "Average perf. on 38 datasets", "model_class", "dataset", "Flickr",
    "MSCOCO", "WinoGAViL",
})  # fmt: skip
_PENALTIES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # chosen from by leave-one-out error
_FEWEST: Final = 8  # models that a regression takes


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PublishedFigures:
    """Zero-shot accuracies of N models on J classification data sets."""

    models: tuple[str, ...]  # (N,) ids, "arch/tag" as in open_clip
    datasets: tuple[str, ...]  # (J,)
    accuracy: FloatArray  # (N, J) in [0, 1]; NaN: not told


@lru_cache(maxsize=1)
def _shipped() -> PublishedFigures:
    return read_open_clip(SHIPPED)


def datasets() -> tuple[str, ...]:
    """Names of the 35 classification data sets of the shipped table: the columns of `zero_shot`."""
    return _shipped().datasets


def models() -> tuple[str, ...]:
    """Ids ("arch/tag") of the models of the shipped table."""
    return _shipped().models


def zero_shot(candidate_ids: Sequence[str]) -> FloatArray:
    """Published zero-shot accuracies of M candidates by id ("arch/tag"): (M, 35) in [0, 1], columns as in `datasets`.

    Rows of candidates without published figures are NaN.
    """
    known = dict(zip(models(), _shipped().accuracy, strict=True))
    nothing = np.full(len(datasets()), np.nan)
    return np.array([known.get(name, nothing) for name in candidate_ids]).reshape(len(candidate_ids), len(nothing))


def read_open_clip(path: Path) -> PublishedFigures:
    """Read a copy of open_clip's docs/openclip_results.csv."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = tuple(name for name in rows[0] if name not in _NO_ACCURACY)
    told = [[float(row[name] or np.nan) for name in names] for row in rows]
    return PublishedFigures(
        models=tuple(f"{row['name']}/{row['pretrained']}" for row in rows),
        datasets=names,
        accuracy=np.array(told),
    )


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

    Rows of which too little is known are NaN. Columns as in `datasets`.
    """
    figures = zero_shot([one.id for one in candidates])
    unknown = np.flatnonzero(~np.isfinite(figures).any(axis=1))
    if len(unknown):
        wanted = np.array([features_of(candidates[place]) for place in unknown.tolist()])
        figures[unknown] = regress(*_known(), wanted=wanted)
    return figures


@lru_cache(maxsize=1)
def _known() -> tuple[FloatArray, FloatArray]:
    """Features (N, 4) and accuracies (N, 35) of the models that have figures."""
    found = [published(*name.split("/")) for name in models()]
    named = [one for one in found if one is not None]
    return np.array([features_of(one) for one in named]), zero_shot([one.id for one in named])
