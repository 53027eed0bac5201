"""Classifiers that no label made: zero-shot heads, pools of them, and adaptations to the unlabelled images.

All are in closed form. M candidates, n unlabelled images, t test images, K classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import ot
from scipy.special import log_softmax, softmax

from vlmsel_auto.ranking.evidence.zeroshot import CLARITY
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

_PSEUDO = 3.0  # log-odds for one standard deviation of a class's cosines, of labels that are learned from
_CONFIDENT = 0.5  # share of each class's images that prototypes are made of
_BLEND = 0.5  # of a prototype in a head
_ROUNDS, _STEPS, _NEIGHBOURS, _TEMPERATURE = 10, 5, 3, 50.0  # of StatA, as its authors have them


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """What every candidate makes of one task; rows of unit length."""

    unlabelled: Sequence[FloatArray]  # of each candidate (n, D)
    test: Sequence[FloatArray]  # (t, D)
    texts: Sequence[FloatArray]  # (K, D)

    def logits(self, m: int, *, centre: float = 0.0) -> tuple[FloatArray, FloatArray]:
        """Scale-free logits of unlabelled (n, K) and test images (t, K).

        ``centre`` times a class's mean over the unlabelled images is taken away.
        """
        seen, new = self.unlabelled[m] @ self.texts[m].T, self.test[m] @ self.texts[m].T
        spread, mean = float(np.std(seen - seen.mean(axis=0))), centre * seen.mean(axis=0)
        return CLARITY * (seen - mean) / spread, CLARITY * (new - mean) / spread


def pooled(views: Views, weights: Mapping[int, float], *, centre: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Weighted sums of the members' logits on unlabelled and test images."""
    each = [views.logits(m, centre=centre) for m in weights]
    shares = np.array(list(weights.values()))
    return np.tensordot(shares, [seen for seen, _ in each], axes=1), np.tensordot(
        shares, [new for _, new in each], axes=1
    )


def pseudo_labels(logits: FloatArray, *, balanced: bool) -> FloatArray:
    """Soft labels (n, K); balanced: the nearest in which all classes are as frequent (entropic transport by POT)."""
    logs = log_softmax(_PSEUDO / CLARITY * logits, axis=1)
    if not balanced:
        return np.exp(logs)
    n, k = logs.shape
    plan = ot.sinkhorn(np.full(n, 1 / n), np.full(k, 1 / k), -logs, reg=1.0, method="sinkhorn_log", warn=False)
    return np.asarray(n * plan, dtype=np.float64)


def gaussian(views: Views, m: int, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log-posteriors of a Gaussian mixture with one covariance on unlabelled and test images.

    Wang et al., "A hard-to-beat baseline for training-free CLIP-based adaptation" (ICLR 2024), eq. 4 to 6, with soft
    labels in the labels' place and a class mean that counts the mean of all images as one more image.
    """
    x = views.unlabelled[m]
    n, width = x.shape
    mass = labels.sum(axis=0)
    means = (labels.T @ x + x.mean(axis=0)) / (mass + 1.0)[:, None]
    within = (x.T @ x - (means.T * mass) @ means) / n
    precision = width * np.linalg.inv((n - 1) * within + np.trace(within) * np.eye(width))
    head = means @ precision
    bias = -0.5 * np.sum(head * means, axis=1)
    return log_softmax(x @ head.T + bias, axis=1), log_softmax(views.test[m] @ head.T + bias, axis=1)


def with_gaussians(
    views: Views, weights: Mapping[int, float], *, balanced: bool, rounds: int, centre: float = 0.0
) -> FloatArray:
    """The pool's test logits plus those of mixtures that learn from the pool's labels, ``rounds`` times."""
    seen, new = pooled(views, weights, centre=centre)
    logits, found = seen, new
    for _ in range(rounds):
        labels = pseudo_labels(logits, balanced=balanced)
        each = [(weight, *gaussian(views, m, labels)) for m, weight in weights.items()]
        logits = _PSEUDO / CLARITY * seen + sum(w * one for w, one, _ in each)
        found = _PSEUDO / CLARITY * new + sum(w * one for w, _, one in each)
        logits, found = logits * CLARITY / _PSEUDO, found * CLARITY / _PSEUDO
    return found


def with_prototypes(views: Views, weights: Mapping[int, float], *, balanced: bool) -> FloatArray:
    """The pool's test logits, each text halfway to the mean of the class's most confident half."""
    seen, _ = pooled(views, weights)
    labels = pseudo_labels(seen, balanced=balanced)
    chosen = np.zeros_like(labels)
    for k in range(labels.shape[1]):
        members = np.flatnonzero(labels.argmax(axis=1) == k)
        best = members[np.argsort(-labels[members, k])][: max(1, round(_CONFIDENT * len(members)))]
        chosen[best, k] = labels[best, k]
    total = 0.0
    for m, weight in weights.items():
        sums = chosen.T @ (views.unlabelled[m] - views.unlabelled[m].mean(axis=0))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        texts = views.texts[m] - views.texts[m].mean(axis=0)
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        heads = np.where(lengths > 0, (1 - _BLEND) * texts + _BLEND * sums / np.maximum(lengths, 1e-12), texts)
        raw = views.unlabelled[m] @ heads.T
        total = total + weight * (views.test[m] @ heads.T) / float(np.std(raw - raw.mean(axis=0)))
    return np.asarray(total, dtype=np.float64)


def with_anchors(views: Views, weights: Mapping[int, float], *, transductive: bool) -> FloatArray:
    """Log-posteriors (t, K) of test images by StatA, which begins at the pool's probabilities.

    Zanella, Fuchs, De Vleeschouwer, Ben Ayed, "Realistic test-time adaptation of vision-language models" (CVPR 2025),
    with its constants: diagonal Gaussians that begin at the class texts; these, the anchor, count as one image of each
    class where means and variances are updated; a Laplacian over the three nearest images. Log-likelihoods and
    Laplacians of several members are summed by their weights. Transductive: of the test images among themselves, as
    many at a time as there are unlabelled ones; otherwise new images have no neighbours.
    """
    seen, new = (log_softmax(_PSEUDO / CLARITY * each, axis=1) for each in pooled(views, weights))
    shares = {m: weight / sum(weights.values()) for m, weight in weights.items()}
    if not transductive:
        _, learned = _anchored({m: views.unlabelled[m] for m in shares}, views.texts, seen, shares)
        return new + _likelihood(learned, views.test, shares)
    parts = np.array_split(np.arange(len(new)), -(-len(new) // len(seen)))
    return np.concatenate(
        [_anchored({m: views.test[m][at] for m in shares}, views.texts, new[at], shares)[0] for at in parts]
    )


def _anchored(
    images: Mapping[int, FloatArray], texts: Sequence[FloatArray], prior: FloatArray, shares: Mapping[int, float]
) -> tuple[FloatArray, dict[int, _Gaussians]]:
    """Log-posteriors (n, K) of the images, and what was learned from them."""
    labels = np.exp(prior)
    graph = np.sum([share * _nearest(images[m]) for m, share in shares.items()], axis=0)
    now = anchors = {m: _Gaussians.anchor(images[m], texts[m], labels) for m in shares}
    for _ in range(_ROUNDS):
        labels = _smoothed(prior + _likelihood(now, images, shares), labels, graph)
        now = {m: one.updated(images[m], labels) for m, one in anchors.items()}
    labels = _smoothed(prior + _likelihood(now, images, shares), labels, graph)
    return np.log(np.maximum(labels, 1e-300)), now


def _likelihood(
    now: Mapping[int, _Gaussians], images: Mapping[int, FloatArray] | Sequence[FloatArray], shares: Mapping[int, float]
) -> FloatArray:
    each = [share * now[m].likelihood(images[m]) for m, share in shares.items()]
    return np.asarray(np.sum(each, axis=0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gaussians:
    """One of each class, with diagonal covariances."""

    mean: FloatArray  # (K, D) of unit length
    variance: FloatArray  # (K, D)

    @staticmethod
    def anchor(x: FloatArray, texts: FloatArray, labels: FloatArray) -> _Gaussians:
        """At the texts, with one covariance."""
        within = _spread(x, texts, labels).sum(axis=0) / len(x)
        return _Gaussians(mean=texts, variance=np.tile(within, (len(texts), 1)))

    def likelihood(self, x: FloatArray) -> FloatArray:
        """Minus half of the squared Mahalanobis distances (n, K), over the temperature."""
        precision = 1.0 / np.maximum(self.variance, 1e-12)
        squares = x**2 @ precision.T - 2.0 * x @ (self.mean * precision).T + (self.mean**2 * precision).sum(axis=1)
        return np.asarray(-0.5 / _TEMPERATURE * squares, dtype=np.float64)

    def updated(self, x: FloatArray, labels: FloatArray) -> _Gaussians:
        """By soft labels (n, K); this anchor weighs 1 / (1 + images that the class is the first of)."""
        count = np.bincount(labels.argmax(axis=1), minlength=labels.shape[1])[:, None]
        share, mass = count / (1.0 + count), np.maximum(labels.sum(axis=0), 1e-12)[:, None]
        mean = unit_rows(share * unit_rows(labels.T @ x / mass) + (1.0 - share) * self.mean)
        anchored = self.variance + (self.mean - mean) ** 2
        return _Gaussians(mean=mean, variance=share * _spread(x, mean, labels) / mass + (1.0 - share) * anchored)


def _spread(x: FloatArray, means: FloatArray, labels: FloatArray) -> FloatArray:
    """Sums (K, D) of squared distances to the means, by soft labels."""
    found: FloatArray = labels.T @ x**2 - 2.0 * means * (labels.T @ x) + means**2 * labels.sum(axis=0)[:, None]
    return found


def _nearest(x: FloatArray) -> FloatArray:
    """Cosines (n, n) with the nearest images and of those to whom one is near, over twice their number."""
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    kept = np.argpartition(-cosines, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    graph = np.zeros_like(cosines)
    np.put_along_axis(graph, kept, np.take_along_axis(cosines, kept, axis=1), axis=1)
    return np.asarray((graph + graph.T) / (2 * _NEIGHBOURS), dtype=np.float64)


def _smoothed(logs: FloatArray, labels: FloatArray, graph: FloatArray) -> FloatArray:
    for _ in range(_STEPS):
        labels = np.asarray(softmax(logs + graph @ labels, axis=1), dtype=np.float64)
    return labels


def methods(
    views: Views, *, first: int, leaders: Mapping[int, float], everyone: Mapping[int, float]
) -> dict[str, FloatArray]:
    """Test logits (t, K) by method."""
    one = {first: 1.0}
    labels = {balanced: pseudo_labels(pooled(views, leaders)[0], balanced=balanced) for balanced in (False, True)}
    found = {
        "ranked first": pooled(views, one)[1],
        "pool": pooled(views, leaders)[1],
        "pool of all by P(best)": pooled(views, everyone)[1],
        "pool, all weighed alike": pooled(views, dict.fromkeys(leaders, 1 / len(leaders)))[1],
        "ranked first, class means halved": pooled(views, one, centre=0.5)[1],
        "pool, class means halved": pooled(views, leaders, centre=0.5)[1],
        "pool, class means taken away": pooled(views, leaders, centre=1.0)[1],
        "pool, prototypes": with_prototypes(views, leaders, balanced=False),
        "pool, prototypes, balanced": with_prototypes(views, leaders, balanced=True),
    }
    for rounds in (1, 4):
        for balanced in (False, True):
            name = (
                f"pool, Gaussian mixture, {rounds} round{'s' if rounds > 1 else ''}{', balanced' if balanced else ''}"
            )
            found[name] = with_gaussians(views, leaders, balanced=balanced, rounds=rounds)
    for name, members in (("ranked first", one), ("pool", leaders)):
        found[f"{name}, StatA"] = with_anchors(views, members, transductive=False)
        found[f"{name}, StatA of the test images"] = with_anchors(views, members, transductive=True)
    for balanced in (False, True):
        name = f"ranked first, Gaussian mixture of the pool's labels{', balanced' if balanced else ''}"
        own = log_softmax(_PSEUDO / CLARITY * pooled(views, one)[1], axis=1)
        found[name] = own + gaussian(views, first, labels[balanced])[1]
    return found


def log_loss(logits: FloatArray, labels: IntArray) -> float:
    """Mean over images, nats."""
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
