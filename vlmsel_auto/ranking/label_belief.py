"""What a few labels say of many candidates: classes of the other images, accuracies, and who is best.

Dawid & Skene (1979) infer classes and annotators' errors from each other. In their model with one accuracy a candidate
the log-odds of a class are a sum of the candidates' votes, each times a weight that its accuracy determines. Here the
vote is a candidate's log-probability, and the weights w are learned, with a normal prior:

    P(y_i = k) = q_ik = softmax_k(sum_m w_m v_mik),    w ~ N(prior), w given labels: Laplace's approximation.

Accuracy of candidate m is the share of images whose class is the one that it names: known where there is a label, else
q. Its errors are those of w, and those of classes drawn from q. Asking goes by the idea of CODA (Kay, Van Horn, Maji,
Sheldon, Beery, "Consensus-Driven Active Model Selection", ICCV 2025, arXiv 2507.23771): the image whose label is
expected to tell most about who is best. CODA keeps a confusion matrix a candidate and integrates on a grid for every
answer; here all answers are judged at once by a second-order expansion. docs/results/labelling.md compares the two.

Where all candidates are wrong together they agree as well, so how much their votes say at all is doubtful: the belief
is a mixture over `STRENGTHS` s of the votes, w ~ N(s * prior mean, prior sd). With s = 0 nobody knows these images.
`strength_chances` says how likely each is before any label; labels move them by their evidence (Laplace's).

M candidates, n images, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vlmsel_auto.ranking.evidence.zeroshot import top2_margin
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

# our own choices, measured by benchmarks/labels/labelling.py
_TOTAL: Final = 2.0  # sum of the weights before any label
_SD: Final = 0.3  # of a weight before any label
_FLOOR: Final = 0.1  # is added to P(best) before it becomes a weight
_STEPS: Final = 50  # of Newton's method, which needs about five
_CONVERGED: Final = 1e-8  # nats
_DRAWS: Final = 4_096
STRENGTHS: Final = (0.0, 0.5, 1.0, 1.5, 3.0)  # of the votes, against `_TOTAL`
_LEAST_KAPPA: Final = 0.003
_LEAST_CHANCE: Final = 1e-3
_GRID: Final = 1_001  # accuracies of which intervals are read off
_LEVELS: Final = (0.05, 0.95)
# fitted by benchmarks/labels/belief.py
_SIGNS_MEAN: Final = np.array([-3.132, 1.925, 0.866, 0.72, 0.792])
_SIGNS_SD: Final = np.array([1.689, 0.839, 0.193, 0.196, 0.552])
_SIGNS_WEIGHT: Final = np.array([0.327, -0.152, 10.923, -3.176, -4.16])
_CUTS: Final = np.array([5.715, 7.213, 10.157, 11.381])
_UNSAID: Final = 1.5  # times the model's variance of accuracies is the true one, by losses that came true


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Weights of the candidates' votes: independent normals."""

    mean: FloatArray  # (M,)
    sd: FloatArray  # (M,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Belief:
    """What is believed after some labels."""

    classes: FloatArray  # (n, K) probabilities of each image's class; 0 and 1 where it is labelled
    accuracy: FloatArray  # (M,) expected on these images
    covariance: FloatArray  # (M, M) of the accuracies
    p_best: FloatArray  # (M,) probability of the highest accuracy
    loss: FloatArray  # (M,) accuracy that taking a candidate is expected to cost: E[highest accuracy] - its own
    information: FloatArray  # (n,) nats about who is best that a label is expected to give; 0 where it is asked for
    interval: FloatArray  # (2, M) ends of the 90 % interval of the accuracies
    p_weak: float  # probability that the votes say less than usual: few or none of the candidates know these images


def prior_weights(p_best: FloatArray, alike: FloatArray) -> Weights:
    """Weights before any label, from a ranking's probabilities.

    Copies of one model have the weight, and the doubt, of one together.

    Args:
        p_best: (M,) the ranking's probability of being the best, which copies share.
        alike: (M, M) from `evidence.consensus.likeness`.
    """
    shared = 1.0 / alike.sum(axis=1)
    raw = p_best + _FLOOR * shared
    return Weights(mean=_TOTAL * raw / raw.sum(), sd=_SD * np.sqrt(shared))


def strength_chances(votes: FloatArray, alike: FloatArray) -> FloatArray:
    """How likely (S,) each of `STRENGTHS` is before any label: an ordered logistic regression on the votes alone.

    Told by Cohen's kappa between candidates that are not copies, the number of classes, how evenly the pooled votes
    spread over classes, how doubtful they are and how far a candidate's first class is from its second.
    `benchmarks/labels/belief.py` fits the coefficients on tasks that candidates know, on tasks that they do not know,
    on tasks under the class names of others, and on votes for other images.

    Args:
        votes: (M, n, K) as for `believe`.
        alike: (M, M) from `evidence.consensus.likeness`.
    """
    return strength_chances_by(float((strength_signs(votes, alike) - _SIGNS_MEAN) / _SIGNS_SD @ _SIGNS_WEIGHT), _CUTS)


def strength_chances_by(sign: float, cuts: FloatArray) -> FloatArray:
    """Chances (S,) of an ordered logistic regression with these ``cuts`` (S - 1,), none below .001."""
    chances = np.maximum(np.diff(np.concatenate([[0.0], special.expit(cuts - sign), [1.0]])), _LEAST_CHANCE)
    return np.asarray(chances / chances.sum(), dtype=np.float64)


def strength_signs(votes: FloatArray, alike: FloatArray) -> FloatArray:
    """What `strength_chances` goes by (5,): log kappa, log K, evenness and doubt of the pooled votes, margin."""
    k = votes.shape[2]
    named = votes.argmax(axis=2)
    share = np.stack([np.bincount(each, minlength=k) for each in named]) / named.shape[1]
    by_chance = share @ share.T
    kappa = ((named[:, None] == named[None]).mean(axis=2) - by_chance) / np.maximum(1.0 - by_chance, 1e-6)
    strangers = (1.0 - alike) * (1.0 - np.eye(len(alike)))
    agreement = float((kappa * strangers).sum() / max(float(strangers.sum()), 1e-9))
    pooled = special.softmax(_TOTAL * (votes - votes.mean(axis=2, keepdims=True)).mean(axis=0), axis=1)
    doubt, evenness = special.entr(pooled).sum(axis=1).mean(), special.entr(pooled.mean(axis=0)).sum()
    margin = np.mean([top2_margin(each) for each in votes])
    return np.array(
        [np.log(np.clip(agreement, _LEAST_KAPPA, 1.0)), np.log(k), *(np.array([evenness, doubt]) / np.log(k)), margin]
    )


def believe(
    votes: FloatArray,
    *,
    prior: Weights,
    labels: IntArray,
    asked: NDArray[np.bool_] | None = None,
    chances: FloatArray | None = None,
) -> Belief:
    """Classes, accuracies and who is best, given the labels that are known.

    Args:
        votes: (M, n, K) log-probabilities, up to a number for each candidate and image.
        prior: of the votes' weights, where the votes are as strong as usual (1).
        labels: (n,) classes 0..K-1, or `UNLABELLED`.
        asked: (n,) images whose labels will come: no longer doubtful, though nobody knows them yet. None: none.
        chances: (S,) from `strength_chances`; None: the votes are as strong as usual.

    Raises:
        ValueError: shapes that do not fit, or a label that is no class.
    """
    m, n, k = votes.shape
    fit = labels.shape == (n,) and prior.mean.shape == (m,)
    if not fit or labels.max(initial=UNLABELLED) >= k or labels.min(initial=0) < UNLABELLED:
        raise ValueError(
            f"labels must be {n} classes below {k} or {UNLABELLED}, and weights {m}, but got labels of shape "
            f"{labels.shape} up to {labels.max(initial=UNLABELLED)} and {prior.mean.shape} weights"
        )
    known = labels != UNLABELLED
    coming = np.zeros(n, dtype=np.bool_) if asked is None else asked & ~known
    said = _Said.of(votes)
    strengths = dict(zip(STRENGTHS, chances, strict=True)) if chances is not None else {1.0: 1.0}
    found = [
        _component(
            said, prior=Weights(mean=strength * prior.mean, sd=prior.sd), labels=labels, known=known, coming=coming
        )
        for strength in strengths
    ]
    share = special.softmax(np.log(list(strengths.values())) + np.array([each.evidence for each in found]))
    classes = _mean(share, [each.classes for each in found])
    accuracy = _mean(share, [each.accuracy for each in found])
    p_best = _mean(share, [each.p_best for each in found])
    apart = [np.outer(each.accuracy - accuracy, each.accuracy - accuracy) for each in found]
    # an answer k to image i moves each component, and their shares by how probable each held it
    after = _mean(share, [each.classes * (each.p_best[:, None, None] + each.moved) for each in found])
    moved = after / np.maximum(classes, 1e-12) - p_best[:, None, None]
    information = 0.5 * np.einsum("wik,ik,w->i", moved**2, classes, 1.0 / np.maximum(p_best, 1.0 / _DRAWS))
    return Belief(
        classes=classes,
        accuracy=accuracy,
        covariance=_mean(share, [each.covariance + more for each, more in zip(found, apart, strict=True)]),
        p_best=p_best,
        loss=_mean(share, [each.loss for each in found]),
        information=np.where(known | coming, 0.0, information),
        interval=_interval(share, found),
        p_weak=float(share[np.array(list(strengths)) < 1.0].sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Said:
    """The votes, and what every component makes of them."""

    centred: FloatArray  # (M, n, K) votes less their mean over classes
    named: IntArray  # (M, n) each candidate's class
    of_named: FloatArray  # (M, M, n) what the second thinks of the class that the first names
    agree: FloatArray  # (M, M, n) 1 where both name the same

    @staticmethod
    def of(votes: FloatArray) -> _Said:
        centred, named = votes - votes.mean(axis=2, keepdims=True), votes.argmax(axis=2)
        return _Said(
            centred=centred,
            named=named,
            of_named=np.stack([_at(centred, each) for each in named]),
            agree=(named[:, None] == named[None]).astype(np.float64),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Component:
    """What is believed if the votes have one strength."""

    classes: FloatArray  # (n, K)
    accuracy: FloatArray  # (M,)
    covariance: FloatArray  # (M, M)
    p_best: FloatArray  # (M,)
    loss: FloatArray  # (M,)
    moved: FloatArray  # (M, n, K) by how much P(best) moves with each answer
    evidence: float  # log-probability of the labels, up to a number that all components share


def _component(
    said: _Said, *, prior: Weights, labels: IntArray, known: NDArray[np.bool_], coming: NDArray[np.bool_]
) -> _Component:
    centred, named = said.centred, said.named
    _, n, k = centred.shape
    weights, doubt, evidence = _fit_weights(centred, prior=prior, labels=labels, known=known, coming=coming)
    classes = special.softmax(np.tensordot(weights, centred, axes=1), axis=1)
    classes[known] = np.eye(k)[labels[known]]
    right = _at(classes[None], named)  # (M, n)
    open_right = np.where(known | coming, 0.0, right)
    expected = np.einsum("mik,ik->mi", centred, classes)
    # how accuracies (a) move with weights (m)
    slope = ((said.of_named @ open_right[:, :, None])[:, :, 0] - open_right @ expected.T) / n
    drawn = (said.agree @ open_right[:, :, None])[:, :, 0] - open_right @ open_right.T
    covariance = slope @ doubt @ slope.T + drawn / n**2
    accuracy = right.mean(axis=1)
    p_best, loss, pull = _winner(accuracy, covariance)
    # what an answer k to image i moves: accuracies by weights, and the image itself
    moved = np.tensordot(pull @ slope @ doubt, centred - expected[:, :, None], axes=1)
    moved += np.tensordot(pull / n, (named[:, :, None] == np.arange(k)) - right[:, :, None], axes=1)
    return _Component(
        classes=classes,
        accuracy=accuracy,
        covariance=covariance,
        p_best=p_best,
        loss=loss,
        moved=moved,
        evidence=evidence,
    )


def _mean(share: FloatArray, of_each: Sequence[FloatArray]) -> FloatArray:
    return np.asarray(sum(one * each for one, each in zip(share, of_each, strict=True)), dtype=np.float64)


def _interval(share: FloatArray, found: Sequence[_Component]) -> FloatArray:
    """90 % intervals (2, M) of a mixture of normals, on a grid of accuracies."""
    grid = np.linspace(0.0, 1.0, _GRID)[:, None]
    sds = [np.sqrt(_UNSAID * np.diag(each.covariance) + 1e-9) for each in found]
    below = _mean(share, [special.ndtr((grid - each.accuracy) / sd) for each, sd in zip(found, sds, strict=True)])
    return np.stack([np.minimum((below < level).sum(axis=0), _GRID - 1) / (_GRID - 1) for level in _LEVELS])


def _fit_weights(
    centred: FloatArray, *, prior: Weights, labels: IntArray, known: NDArray[np.bool_], coming: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, float]:
    """Mean (M,) and covariance (M, M) of the weights, and the log evidence of the labels, by Laplace's approximation.

    Newton's method, then the curvature at its end. The evidence leaves out what does not depend on the prior's mean.
    """
    precision, weights = np.diag(prior.sd**-2), prior.mean.copy()
    seen = centred[:, known]
    said = _at(seen, labels[known])

    def cost(tried: FloatArray) -> float:
        logits = np.tensordot(tried, seen, axes=1)
        far = (tried - prior.mean) / prior.sd
        return float(special.logsumexp(logits, axis=1).sum() - tried @ said.sum(axis=1) + 0.5 * far @ far)

    for _ in range(_STEPS):
        information, expected = _curvature(seen, weights)
        slope = (said - expected).sum(axis=1) - precision @ (weights - prior.mean)
        step = np.linalg.solve(information + precision, slope)
        if slope @ step < _CONVERGED:
            break
        before = cost(weights)
        while cost(weights + step) > before and np.abs(step).max() > _CONVERGED:
            step = step / 2  # convex, but votes may be far apart
        weights = weights + step
    fitted = precision + _curvature(seen, weights)[0]
    evidence = -cost(weights) - 0.5 * float(np.linalg.slogdet(fitted)[1])
    total = fitted + _curvature(centred[:, coming], weights)[0]
    return weights, np.asarray(np.linalg.inv(total), dtype=np.float64), evidence


def _curvature(centred: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fisher information (M, M) about the weights in labels of images, and the votes (M, images) expected there."""
    classes = special.softmax(np.tensordot(weights, centred, axes=1), axis=1)
    expected = np.einsum("mik,ik->mi", centred, classes)
    return np.einsum("mik,ik,lik->ml", centred, classes, centred, optimize=True) - expected @ expected.T, expected


def _winner(mean: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """P(best) and expected loss (M,) of accuracies N(mean, covariance), and how P(best) moves (w, m) with the means."""
    size = len(mean)
    jitter = 1e-9 + 1e-6 * float(np.trace(covariance)) / size  # copies of one model have the same accuracy
    factor = np.linalg.cholesky(covariance + jitter * np.eye(size))
    noise = _noise(size)
    drawn = noise @ factor.T
    first = np.eye(size)[(mean + drawn).argmax(axis=1)]
    wider = mean + np.sqrt(_UNSAID) * drawn
    loss = wider.max(axis=1).mean() - wider.mean(axis=0)
    # gradient of an expectation over a normal: E[f(x) covariance^-1 (x - mean)]
    return first.mean(axis=0), loss, np.linalg.solve(factor.T, noise.T @ first / _DRAWS).T


@functools.cache
def _noise(size: int) -> FloatArray:
    """The same draws (_DRAWS, size) for every belief, so that only what is believed differs."""
    return np.random.default_rng(0).standard_normal((_DRAWS, size))


def _at(table: FloatArray, classes: IntArray) -> FloatArray:
    """Entries of ``table`` (1 or M, n, K) at ``classes`` (n,) or (M, n): (M, n)."""
    return np.take_along_axis(table, np.atleast_2d(classes)[:, :, None], axis=2)[:, :, 0]
