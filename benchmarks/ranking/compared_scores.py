"""Scores of a candidate on a task that the ranking is compared with and does not fuse; higher is better.

H-score: Bao et al., "An Information-Theoretic Approach to Transferability", ICIP 2019; regularised form of Ibrahim et
al., "Newer is not always better", 2021 (arXiv 2110.06893): Ledoit-Wolf covariance, between-class covariance times
(1 - a). NLEEP: Li et al., CVPR 2021 (arXiv 2011.11200). IIMM: "Inter-Intra Modal Measure", ICCV 2025 (arXiv
2407.15731). Text scores: Zohar et al., "LOVM: Language-Only Vision Model Selection", NeurIPS 2023 (arXiv 2306.08893),
section 4; their captions come from a language model, here the captions of a class are its name in the task's own
templates, and the score of synonyms is left out, as no language model is at hand offline.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from scipy import special
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold

from vlmsel_auto.ranking.evidence import linear, zeroshot
from vlmsel_auto.ranking.evidence.knn import knn
from vlmsel_auto.ranking.evidence.leep import leep
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranking.signals import Embedded
from vlmsel_auto.records import FloatArray, IntArray

TEXT_SCORES: Final = ("text_accuracy", "text_f1", "text_inter_close", "text_intra_close", "text_intraclass")
_NOISE: Final = 0.1  # LOVM's standard deviation, a dimension, of what is added to captions
_DRAWS: Final = 10  # of the noise; LOVM has hundreds of captions a class, templates are few
_FOLDS: Final = 4  # of logistic regression; fewer when a class has fewer images
_ENERGY: Final = 0.8  # of the variance that NLEEP's PCA keeps
_PER_CLASS: Final = 5  # mixture components a class


def confidence(cosine: FloatArray, *, logit_scale: float) -> float:
    """Mean highest softmax probability over images, in [1 / K, 1]."""
    return float(np.mean(special.softmax(logit_scale * cosine, axis=1).max(axis=1)))


def entropy(cosine: FloatArray, *, logit_scale: float) -> float:
    """Minus the mean entropy of the softmax, in nats: higher is surer, in [-ln K, 0]."""
    return -float(np.mean(special.entr(special.softmax(logit_scale * cosine, axis=1)).sum(axis=1)))


def iimm(features: FloatArray, text_features: FloatArray) -> float:
    """Inter-intra modal measure: mean of image-image cosines and of image to wrong-class-text cosines, in [-1, 1].

    "Inter-Intra Modal Measure", ICCV 2025 (arXiv 2407.15731), with zero-shot predictions in the labels' place. High
    values predict large gains from tuning. NaN with fewer than two images or classes.
    """
    n, n_classes = len(features), len(text_features)
    if n < 2 or n_classes < 2:
        return math.nan
    unit = unit_rows(features)
    pairs = (float(np.sum(unit.sum(axis=0) ** 2)) - float(np.sum(unit**2))) / (n * (n - 1))
    cosine = zeroshot.cosines(features, text_features)
    wrong = float(np.mean((cosine.sum(axis=1) - cosine.max(axis=1)) / (n_classes - 1)))
    return 0.5 * (pairs + wrong)


def hscore(features: FloatArray, labels: IntArray) -> float:
    """Return tr(pinv(Sigma_a) (1 - a) cov(class means)) >= 0, a = the Ledoit-Wolf shrinkage.

    NaN when no class has two images: class means are then the images.
    """
    features = np.asarray(features, dtype=np.float64)
    count = np.bincount(labels)
    if count.max(initial=0) < 2:
        return math.nan
    centred = features - features.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    sums = np.zeros((len(count), centred.shape[1]))
    np.add.at(sums, labels, centred)
    means = sums / np.maximum(count, 1)[:, None]
    # np.cov with n - 1, over images whose row is their class mean
    between = (means * count[:, None]).T @ means / (len(labels) - 1)
    return float((1.0 - shrinkage) * np.trace(np.linalg.pinv(covariance, hermitian=True) @ between))


def nleep(features: FloatArray, labels: IntArray, *, seed: int = 0) -> float:
    """LEEP over the responsibilities of a Gaussian mixture in the leading principal components.

    The score depends on the mixture's start, which ``seed`` draws. NaN when there are fewer than 10 images per class on
    average, as five components a class would then explain single images.
    """
    n, n_classes = len(labels), int(labels.max(initial=-1)) + 1
    if n_classes < 1 or n < 2 * _PER_CLASS * n_classes:
        return math.nan
    scale = float(np.std(features))
    if scale == 0.0:
        return math.nan
    low = PCA(n_components=_ENERGY, svd_solver="full").fit_transform(np.asarray(features, dtype=np.float64) / scale)
    mixture = GaussianMixture(
        n_components=_PER_CLASS * n_classes, covariance_type="diag", reg_covar=1e-4, max_iter=50, tol=1e-2,
        random_state=seed,
    )  # fmt: skip
    mixture.fit(low)
    return leep(np.asarray(mixture.predict_proba(low), dtype=np.float64), labels)


def logistic(features: FloatArray, labels: IntArray, *, seed: int = 0) -> float:
    """Accuracy in [0, 1] of multinomial logistic regression on standardised features, cross-validated.

    NaN when fewer than two classes have two images or some class has a single one.
    """
    count = np.bincount(labels)
    count = count[count > 0]
    if len(count) < 2 or count.min() < 2:
        return math.nan
    spread = np.std(features, axis=0)
    x = (features - np.mean(features, axis=0)) / np.where(spread > 0.0, spread, 1.0) / math.sqrt(features.shape[1])
    splitter = StratifiedKFold(n_splits=int(min(_FOLDS, count.min())), shuffle=True, random_state=seed)
    right = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps rank as well as convergence does
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")  # few labels
        for train, test in splitter.split(x, labels):
            model = LogisticRegression(C=features.shape[1], max_iter=200).fit(x[train], labels[train])
            right += int(np.sum(model.predict(x[test]) == labels[test]))
    return right / len(labels)


def text_scores(captions: FloatArray, *, seed: int = 0) -> dict[str, float]:
    """The scores of `TEXT_SCORES` from what the text tower says of captions (LOVM, section 4).

    Args:
        captions: (K, T, D) unit-norm embeddings of T captions for each of K >= 2 classes.
        seed: of the noise that stands for images.

    Returns:
        Accuracy and macro F1 in [0, 1] of classifying noisy captions by class weights; mean cosine of captions to
        their own weight, to the nearest other weight, and of weights to their nearest other, in [-1, 1].
    """
    weights = captions.mean(axis=1)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    n_classes, n_captions, width = captions.shape
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((_DRAWS, *captions.shape))
    noisy = (captions + _NOISE * noise).reshape(-1, width)
    predicted = (noisy @ weights.T).argmax(axis=1)
    labels = np.tile(np.repeat(np.arange(n_classes), n_captions), _DRAWS)
    cosine = captions @ weights.T  # (K, T, K)
    own = cosine[np.arange(n_classes), :, np.arange(n_classes)]
    others = np.where(np.eye(n_classes, dtype=np.bool_)[:, None, :], -np.inf, cosine)
    between = weights @ weights.T
    np.fill_diagonal(between, -np.inf)
    return {
        "text_accuracy": float(np.mean(predicted == labels)),
        "text_f1": float(f1_score(labels, predicted, average="macro")),
        "text_inter_close": float(own.mean()),
        "text_intra_close": float(others.max(axis=2).mean()),
        "text_intraclass": float(between.max(axis=1).mean()),
    }


UNLABELLED: Final[Mapping[str, Callable[[Embedded, float], float]]] = {  # of a candidate's logit scale too
    "confidence": lambda e, scale: confidence(e.cosine, logit_scale=scale),
    "entropy": lambda e, scale: entropy(e.cosine, logit_scale=scale),
    "iimm": lambda e, _: iimm(e.features, e.texts),
}
LABELLED: Final[Mapping[str, Callable[[Embedded], float]]] = {
    "zeroshot": lambda e: zeroshot.zeroshot(e.cosine, e.classes),
    "knn1": lambda e: knn(e.features, e.classes, k=1),
    "hscore": lambda e: hscore(e.features, e.classes),
    "nleep": lambda e: nleep(e.features, e.classes),
    "logistic": lambda e: logistic(e.features, e.classes),
    "ridge": lambda e: linear.ridge(e.features, e.classes),
    "ridge_text": lambda e: linear.ridge(e.features, e.classes, text_features=e.texts),
}
