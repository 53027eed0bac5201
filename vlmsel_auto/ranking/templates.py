"""The choice of prompt templates without labels: class names are spoken so that different candidates agree.

Candidates that are right agree with each other, those that are wrong err each in its own way (`evidence.consensus`);
words that suit the images make more of them right. Agreement beyond chance is Cohen's kappa (1960) over all pairs of
candidates. That it chooses templates is our own idea: docs/without-labels.md compares it with the sureness of the
predictions, by which Allingham et al. choose ("A simple zero-shot prompt weighting technique", ICML 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.evidence.zeroshot import cosines, top2_margin
from vlmsel_auto.ranking.scaling import standardise, unit_rows
from vlmsel_auto.records import FloatArray, IntArray

LEAST_VOTERS: Final = 8  # candidates: fewer agree by accident
LEAST_IMAGES: Final = 20  # likewise
_MOST: Final = 5  # templates whose texts are averaged
_SURE, _TIED = 2.0, 1.0  # standard errors: to leave the first template, and to stand beside the best; our own choice


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateChoice:
    """Templates to average, and how far candidates agree in them."""

    places: tuple[int, ...]  # of those that were tried, the best first
    kappa: float  # in the best of them, at most 1
    before: float  # in the first that was tried


def choose_by_agreement(features: Sequence[FloatArray], captions: Sequence[FloatArray]) -> TemplateChoice:
    """The templates under which M candidates agree most on n images.

    Args:
        features: M arrays (n, D) of image embeddings, any scale; D may differ between candidates.
        captions: M arrays (T, K, D) of class names in T templates; the first template is the one to use if nothing
            speaks against it.

    Raises:
        ValueError: fewer than eight candidates or twenty images.
    """
    if len(features) < LEAST_VOTERS or len(features[0]) < LEAST_IMAGES:
        raise ValueError(
            f"templates are chosen by {LEAST_VOTERS} candidates and {LEAST_IMAGES} images or more, "
            f"but got {len(features)} and {len(features[0])}"
        )
    images = [unit_rows(one) for one in features]
    plain = [cosines(image, caption[0]) for image, caption in zip(images, captions, strict=True)]
    weights = voters(np.array([top2_margin(one) for one in plain]), likeness(plain))
    n_templates, n_classes, _ = captions[0].shape
    found = []
    for place in range(n_templates):
        predicted = [(image @ caption[place].T).argmax(axis=1) for image, caption in zip(images, captions, strict=True)]
        found.append(agreement(np.stack(predicted), weights, n_classes=n_classes))
    places = agreed_templates(found)
    return TemplateChoice(places=places, kappa=float(found[places[0]].mean()), before=float(found[0].mean()))


def voters(margins: FloatArray, alike: FloatArray) -> FloatArray:
    """Weights (M, M) of pairs of candidates, which sum to 1: how much it says that the two agree.

    Args:
        margins: (M,) how clearly each candidate decides, larger is clearer: a pair counts by exp(z) of both, z being a
            standardised margin, since half of a zoo may be at chance.
        alike: (M, M) in [0, 1] from `consensus.likeness`: copies agree whatever the words are.
    """
    clear = np.exp(standardise(margins))
    weights = (1.0 - alike) * np.outer(clear, clear)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights / max(float(weights.sum()), 1e-12), dtype=np.float64)


def agreement(predicted: IntArray, weights: FloatArray, *, n_classes: int) -> FloatArray:
    """Agreement of candidates beyond chance (n,), image by image; the mean over images is kappa, at most 1.

    Args:
        predicted: (M, n) class 0..K-1 that each candidate gives to each image.
        weights: (M, M) of pairs, from `voters`.
        n_classes: K.
    """
    m, n = predicted.shape
    shares = np.stack([np.bincount(row, minlength=n_classes) / n for row in predicted])
    by_chance = float(np.sum(weights * (shares @ shares.T)))
    agreed = np.zeros(n)
    for i, j in combinations(range(m), 2):
        agreed += 2.0 * weights[i, j] * (predicted[i] == predicted[j])
    return np.asarray((agreed - by_chance) / max(1.0 - by_chance, 1e-9), dtype=np.float64)


def agreed_templates(agreements: Sequence[FloatArray]) -> tuple[int, ...]:
    """Which of T templates to average, the best first: those under which candidates agree most.

    Args:
        agreements: T arrays (n,) from `agreement`, of the same images; the first is of the template to use if nothing
            speaks against it.

    Returns:
        Places of at most five templates: the best, and those within one standard error of it. The first alone, where
        the best is not two standard errors above it. Errors are of the differences, image by image.
    """
    means = [float(one.mean()) for one in agreements]
    order = sorted(range(len(means)), key=lambda place: -means[place])
    best = agreements[order[0]]
    if not _above(best, agreements[0], errors=_SURE):
        return (0,)
    return tuple(place for place in order if not _above(best, agreements[place], errors=_TIED))[:_MOST]


def _above(one: FloatArray, other: FloatArray, *, errors: float) -> bool:
    difference = one - other
    return bool(difference.mean() > errors * difference.std() / np.sqrt(len(difference)))
