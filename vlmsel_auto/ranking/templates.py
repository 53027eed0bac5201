"""The choice of prompt templates without labels: class names are spoken so that different candidates agree.

Candidates that are right agree with each other, those that are wrong err each in its own way (`evidence.consensus`);
words that suit the images make more of them right. Agreement beyond chance is Cohen's kappa (1960) over all pairs of
candidates. Words that have nothing to do with the images can make them agree, too, on something else. So only templates
count in which class names lie nearer to these images than to others, by more than in the plain template; that is how
Allingham et al. weigh templates ("A simple zero-shot prompt weighting technique", ICML 2023). To choose by agreement is
our own idea; docs/results/without-labels.md has the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.ranking.evidence.consensus import compared, likeness
from vlmsel_auto.ranking.evidence.zeroshot import cosines, top2_margin
from vlmsel_auto.ranking.scaling import standardise, unit_rows
from vlmsel_auto.records import FloatArray, IntArray

LEAST_VOTERS: Final = 6  # candidates: fewer agree by accident
LEAST_IMAGES: Final = 20  # likewise
_ROUNDING: Final = 1e-9
_MOST: Final = 5  # templates whose texts are averaged
_SURE, _TIED = 2.0, 1.0  # standard errors: to leave the first template, and to stand beside the best; our own choice


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateChoice:
    """Templates to average, and how far candidates agree in them."""

    places: tuple[int, ...]  # of those that were tried, the best first
    kappa: float  # in the best of them, at most 1
    before: float  # in the first that was tried


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What one candidate makes of images, of any scale, and of class names in T templates, of unit length."""

    images: FloatArray  # (n, D)
    elsewhere: FloatArray  # (R, D) of pictures that have nothing to do with the task
    captions: NDArray[np.float32]  # (T, K, D); the first template is the one to use if nothing speaks against it


def choose_by_agreement(heard: Sequence[Heard]) -> TemplateChoice:
    """The templates in which candidates agree most, of those that are about the images.

    Raises:
        ValueError: fewer than six candidates or twenty images.
    """
    if len(heard) < LEAST_VOTERS or len(heard[0].images) < LEAST_IMAGES:
        raise ValueError(
            f"templates are chosen by {LEAST_VOTERS} candidates and {LEAST_IMAGES} images or more, "
            f"but got {len(heard)} and {len(heard[0].images) if heard else 0}"
        )
    n_templates, n_classes, _ = heard[0].captions.shape
    rows = compared(len(heard[0].images))
    margins, shown, near, named = [], [], [], []
    for one in heard:  # one by one: cosines with all classes in all templates are large
        plain = cosines(one.images, one.captions[0])
        margins.append(top2_margin(plain))
        shown.append(plain[rows])
        near.append(nearness(one))
        unit = unit_rows(one.images)
        named.append([(unit @ caption.astype(np.float64).T).argmax(axis=1) for caption in one.captions])
    weights, nearer = voters(np.array(margins), likeness(shown)), np.mean(near, axis=0)
    predicted = np.array(named)  # (M, T, n)
    places = [place for place in range(n_templates) if place == 0 or nearer[place] > nearer[0]]
    found = [agreement(predicted[:, place], weights, n_classes=n_classes) for place in places]
    best = agreed_templates(found)
    return TemplateChoice(
        places=tuple(places[each] for each in best),
        kappa=float(found[best[0]].mean()),
        before=float(found[0].mean()),
    )


def nearness(heard: Heard) -> FloatArray:
    """How much nearer an image lies to its nearest class name than other pictures lie to that name, by template (T,).

    Mean over images of max over classes of the cosine less that class's mean cosine with the other pictures, in units
    of the spread of the images' cosines in the first template.
    """
    images, elsewhere = unit_rows(heard.images), unit_rows(heard.elsewhere)
    spread = max(float(np.std(images @ heard.captions[0].astype(np.float64).T)), 1e-12)
    beyond = images - elsewhere.mean(axis=0)
    each = [(beyond @ one.astype(np.float64).T).max(axis=1).mean() for one in heard.captions]
    return np.array(each) / spread


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
    if by_chance > 1.0 - _ROUNDING:  # all name one class
        return np.zeros(n)
    agreed = np.zeros(n)
    for i, j in combinations(range(m), 2):
        agreed += 2.0 * weights[i, j] * (predicted[i] == predicted[j])
    return np.asarray((agreed - by_chance) / (1.0 - by_chance), dtype=np.float64)


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
