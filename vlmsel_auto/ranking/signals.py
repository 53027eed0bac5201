"""Statistics of a candidate on a task from its embeddings: one definition for library cells and for new targets.

Pure arrays. Scores themselves are in `evidence`; this module names them and adds a few label-free ones that need no
conductance. Features are unnormalised image embeddings (n, D), texts unit-norm class weights (K, D).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np
from scipy import special

from vlmsel_auto.ranking.evidence import hscore, knn, leep, likelihood, logme, probe, zeroshot
from vlmsel_auto.records import FloatArray, IntArray

__all__ = [
    "EVIDENCE",
    "SLOW_EVIDENCE",
    "class_statistics",
    "evidence_scores",
    "image_number",
    "label_free_signals",
    "predictions",
]

EVIDENCE = (
    "hscore",
    "knn",
    "knn1",
    "leep",
    "logistic",
    "logme",
    "nleep",
    "ridge",
    "ridge_likelihood",
    "ridge_text",
    "ridge_text_likelihood",
    "standing",
    "zeroshot",
    "zeroshot_likelihood",
)
SLOW_EVIDENCE = frozenset({"logistic", "nleep"})  # seconds where classes are many


def label_free_signals(
    features: FloatArray, texts: FloatArray, *, baseline: FloatArray, logit_scale: float
) -> dict[str, float]:
    """What unlabelled images and class names say, by name.

    ``total`` is the conductance total by completeness: mean of F(x) - F(x0), F = margin (see scalars.py), which needs
    no path. Names that end in _cosine or _spread do not depend on the logit scale. Those that start with pseudo_ are
    evidence scores with the zero-shot predictions in the labels' place: our own choice.

    Args:
        features: (n, D) image embeddings, n >= 1.
        texts: (K, D) unit-norm class weights, K >= 2.
        baseline: (D,) embedding of the baseline image (zeros after normalisation).
        logit_scale: factor of the cosine.
    """
    cosine = zeroshot.cosines(features, texts)
    predicted = cosine.argmax(axis=1)
    start = zeroshot.cosines(baseline[None, :], texts)[0]
    top = cosine.max(axis=1)
    ordered = np.sort(cosine, axis=1)
    gains = (top - cosine.mean(axis=1)) - (start[predicted] - start.mean())
    spread = max(float(np.std(cosine - cosine.mean(axis=0))), 1e-12)  # between images, class by class
    chances = special.softmax(logit_scale * cosine, axis=1)
    mean_chance = chances.mean(axis=0)
    return {
        "total": logit_scale * float(gains.mean()),
        "total_cosine": float(gains.mean()),
        "total_spread": float(gains.mean()) / spread,
        "margin_cosine": zeroshot.margin(cosine),
        "margin_spread": zeroshot.margin(cosine) / spread,
        "lead_cosine": float(np.mean(ordered[:, -1] - ordered[:, -2])),
        "lead_spread": float(np.mean(ordered[:, -1] - ordered[:, -2])) / spread,
        "confidence": zeroshot.confidence(cosine, logit_scale=logit_scale),
        "entropy": zeroshot.entropy(cosine, logit_scale=logit_scale),
        "information": float(special.entr(mean_chance).sum() - special.entr(chances).sum(axis=1).mean()),
        "diversity": zeroshot.diversity(cosine),
        "iimm": zeroshot.iimm(features, texts),
        "logit_scale": logit_scale,
        "pseudo_knn": knn.knn(features, predicted),
        "pseudo_logme": logme.logme(features, predicted),
        "pseudo_hscore": hscore.hscore(features, predicted),
    }


def predictions(features: FloatArray, texts: FloatArray) -> FloatArray:
    """Zero-shot class (n,) of each image, from embeddings (n, D) and class weights (K, D); floats as a library's."""
    return np.asarray(zeroshot.cosines(features, texts).argmax(axis=1), dtype=np.float64)


def image_number(indices: IntArray) -> float:
    """A number for these images of a task in this order: predictions may be compared where it is the same."""
    return float(zlib.crc32(np.ascontiguousarray(indices, dtype=np.int64).tobytes()))


def evidence_scores(
    features: FloatArray, labels: IntArray, texts: FloatArray, *, leave_out: Collection[str] = (), seed: int = 0
) -> dict[str, float]:
    """Every score of `EVIDENCE` on labelled images; NaN where it is not defined.

    Args:
        features: (n, D) image embeddings.
        labels: (n,) classes 0..K-1.
        texts: (K, D) unit-norm class weights.
        leave_out: names of scores that are not wanted.
        seed: of the folds of the logistic regression.
    """
    cosine = zeroshot.cosines(features, texts)
    sharp = 2.0 / max(float(np.std(cosine)), 1e-12)  # LEEP's softmax without the model's own logit scale
    makers = {
        "hscore": lambda: hscore.hscore(features, labels),
        "knn": lambda: knn.knn(features, labels, k=5),
        "knn1": lambda: knn.knn(features, labels, k=1),
        "leep": lambda: leep.leep(special.softmax(sharp * cosine, axis=1), labels),
        "logistic": lambda: probe.logistic(features, labels, seed=seed),
        "logme": lambda: logme.logme(features, labels),
        "nleep": lambda: leep.nleep(features, labels, seed=seed),
        "ridge": lambda: probe.ridge(features, labels),
        "ridge_likelihood": lambda: probe.ridge_log_likelihood(features, labels),
        "ridge_text": lambda: probe.ridge(features, labels, text_features=texts),
        "ridge_text_likelihood": lambda: probe.ridge_log_likelihood(features, labels, text_features=texts),
        "standing": lambda: zeroshot.standing(cosine, labels),
        "zeroshot": lambda: zeroshot.zeroshot(cosine, labels),
        "zeroshot_likelihood": lambda: likelihood.zeroshot_log_likelihood(cosine, labels),
    }
    return {name: makers[name]() for name in EVIDENCE if name not in leave_out}


def class_statistics(
    features: FloatArray, labels: IntArray, texts: FloatArray
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """Zero-shot accuracy, recall of every class, mean unit-norm embedding of every class, deviation of all.

    Args:
        features: (n, D) embeddings of the test images.
        labels: (n,) classes 0..K-1.
        texts: (K, D) unit-norm class weights.

    Returns:
        Accuracy in [0, 1], recalls (K,), class means (K, D) and standard deviation (D,); NaN for classes without image.
    """
    unit = knn.unit_rows(features)
    right = (unit @ texts.T).argmax(axis=1) == labels
    count = np.bincount(labels, minlength=len(texts)).astype(np.float64)
    sums = np.zeros((len(texts), unit.shape[1]))
    np.add.at(sums, labels, unit)
    known = np.where(count > 0, count, np.nan)
    recall = np.bincount(labels, weights=right, minlength=len(texts)) / known
    return float(right.mean()), recall, sums / known[:, None], np.std(unit, axis=0)
