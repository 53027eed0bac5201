"""benchmarks/ranking/compared_scores.py: formulas in loops, scikit-learn's and SciPy's."""

import math

import numpy as np
import pytest
from scipy import special, stats
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.ranking import compared_scores
from helpers.blobs import blobs, texts_and_images
from vlmsel_auto.ranking.evidence.zeroshot import cosines


def captions(classes=4, templates=3, width=16, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(classes, 1, width)) + spread * rng.normal(size=(classes, templates, width))
    return made / np.linalg.norm(made, axis=2, keepdims=True)


def test_closeness_in_loops():
    texts = captions()
    found = compared_scores.text_scores(texts)
    assert tuple(found) == compared_scores.TEXT_SCORES
    weights = [one.mean(axis=0) / np.linalg.norm(one.mean(axis=0)) for one in texts]
    own, other, between = [], [], []
    for c, weight in enumerate(weights):
        rest = [w for i, w in enumerate(weights) if i != c]
        between.append(max(weight @ w for w in rest))
        for caption in texts[c]:
            own.append(caption @ weight)
            other.append(max(caption @ w for w in rest))
    assert found["text_inter_close"] == pytest.approx(np.mean(own))
    assert found["text_intra_close"] == pytest.approx(np.mean(other))
    assert found["text_intraclass"] == pytest.approx(np.mean(between))


def test_classes_far_apart_are_told_apart_and_equal_ones_are_not():
    apart = np.eye(32)[:4][:, None, :].repeat(3, axis=1)
    assert compared_scores.text_scores(apart)["text_accuracy"] > 0.95
    same = apart[:1].repeat(4, axis=0)
    assert compared_scores.text_scores(same)["text_accuracy"] == pytest.approx(
        0.25
    )  # the first of equals is always chosen
    assert compared_scores.text_scores(same)["text_f1"] == pytest.approx(0.1)  # F1 of .4 on one class of four
    assert compared_scores.text_scores(apart, seed=1) == compared_scores.text_scores(apart, seed=1)


def test_scores_do_not_hang_on_the_order_of_templates():
    texts = captions()
    one, two = compared_scores.text_scores(texts), compared_scores.text_scores(texts[:, ::-1])
    for name in ("text_inter_close", "text_intra_close", "text_intraclass"):
        assert one[name] == pytest.approx(two[name])


def test_hscore_is_the_formula_over_sklearns_ledoit_wolf():
    features, labels = blobs()
    centred = features - features.mean(axis=0)
    fit = LedoitWolf(assume_centered=False).fit(centred)
    means = np.stack([centred[labels == labels[i]].mean(axis=0) for i in range(len(labels))])
    expected = np.trace(np.linalg.pinv(fit.covariance_) @ ((1 - fit.shrinkage_) * np.cov(means, rowvar=False)))
    assert compared_scores.hscore(features, labels) == pytest.approx(expected, rel=1e-9)


def test_one_label_a_class_and_rotations_tell_hscore_nothing():
    features, labels = blobs()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    assert compared_scores.hscore(features @ rotation, labels) == pytest.approx(
        compared_scores.hscore(features, labels), rel=1e-6
    )
    assert compared_scores.hscore(*blobs(spread=0.2)) > compared_scores.hscore(*blobs(spread=2.0))
    assert math.isnan(compared_scores.hscore(*blobs(n=4, classes=4)))


def test_nleep_prefers_separated_clusters_and_wants_enough_images():
    near, labels, _ = texts_and_images(n=120, spread=2.0)
    far, _, _ = texts_and_images(n=120, spread=0.1)
    assert compared_scores.nleep(far, labels) > compared_scores.nleep(near, labels)
    assert compared_scores.nleep(far, labels) <= 0.0
    assert math.isnan(compared_scores.nleep(far[:20], labels[:20]))


def test_logistic_is_sklearns_cross_validation():
    features, labels, _ = texts_and_images()
    x = (features - features.mean(axis=0)) / features.std(axis=0) / math.sqrt(8)
    folds = StratifiedKFold(n_splits=4, shuffle=True, random_state=0)
    predicted = cross_val_predict(LogisticRegression(C=8.0, max_iter=200), x, labels, cv=folds)
    assert compared_scores.logistic(features, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert math.isnan(compared_scores.logistic(features[:3], labels[:3]))


def test_confidence_and_entropy_are_scipys():
    features, _, texts = texts_and_images()
    cosine = cosines(features, texts)
    p = special.softmax(7.0 * cosine, axis=1)
    assert compared_scores.confidence(cosine, logit_scale=7.0) == pytest.approx(p.max(axis=1).mean())
    assert compared_scores.entropy(cosine, logit_scale=7.0) == pytest.approx(
        -np.mean([stats.entropy(row) for row in p])
    )


def test_iimm_is_its_definition_in_loops():
    features, _, texts = texts_and_images(n=9)
    f = features / np.linalg.norm(features, axis=1, keepdims=True)
    predicted = (f @ texts.T).argmax(axis=1)
    pairs = np.mean([f[i] @ f[j] for i in range(9) for j in range(i)])
    wrong = np.mean([[f[i] @ texts[c] for c in range(3) if c != predicted[i]] for i in range(9)])
    assert compared_scores.iimm(features, texts) == pytest.approx((pairs + wrong) / 2)
