"""Scores without labels, LEEP and its kin, probes, SWAB and the data-blind rankings: formulas and invariances."""

import math

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from vlmsel_auto.bench.blind import average_rank, calibrated_total, source_ceiling
from vlmsel_auto.bench.swab import borda, class_plan, class_rank_score, gap_score, similar_classes
from vlmsel_auto.ranking.evidence import zeroshot as zs
from vlmsel_auto.ranking.evidence.leep import leep, nleep
from vlmsel_auto.ranking.evidence.linear import logistic, ridge


def data(*, n=60, d=8, classes=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(classes, d))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    labels = np.arange(n) % classes
    return texts[labels] + spread * rng.normal(size=(n, d)), labels, texts


def test_leep_is_its_definition_in_loops():
    features, labels, texts = data()
    p = special.softmax(5 * features @ texts.T, axis=1)
    total = 0.0
    for i in range(len(labels)):
        inner = 0.0
        for z in range(3):
            joint = sum(p[k, z] for k in range(len(labels)) if labels[k] == labels[i])
            inner += joint / p[:, z].sum() * p[i, z]
        total += math.log(inner)
    assert leep(p, labels) == pytest.approx(total / len(labels))
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0.0)


def test_nleep_prefers_separated_clusters_and_wants_enough_images():
    near, labels, _ = data(n=120, spread=2.0)
    far, _, _ = data(n=120, spread=0.1)
    assert nleep(far, labels) > nleep(near, labels)
    assert nleep(far, labels) <= 0.0
    assert math.isnan(nleep(far[:20], labels[:20]))


def test_ridge_is_sklearns_ridge_left_out_one_by_one():
    features, labels, _ = data(n=24)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    alpha = 0.1 * np.sum(centred**2) / 8
    right = []
    for i in range(24):
        rest = np.arange(24) != i
        # the mean of all images is kept, as in the closed form
        x, y = centred[rest], np.eye(3)[labels[rest]]
        model = Ridge(alpha=alpha, fit_intercept=True).fit(x, y)
        right.append(model.predict(centred[i : i + 1]).argmax() == labels[i])
    assert ridge(features, labels) == pytest.approx(np.mean(right), abs=1 / 24)


def test_ridge_starts_from_the_class_texts():
    features, labels, texts = data(n=6, spread=0.4)
    assert ridge(features, labels, text_features=texts, penalty=1e6) == zs.zeroshot(zs.cosines(features, texts), labels)


def test_logistic_is_sklearns_cross_validation():
    features, labels, _ = data()
    x = (features - features.mean(axis=0)) / features.std(axis=0) / math.sqrt(8)
    folds = StratifiedKFold(n_splits=4, shuffle=True, random_state=0)
    predicted = cross_val_predict(LogisticRegression(C=8.0, max_iter=200), x, labels, cv=folds)
    assert logistic(features, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert math.isnan(logistic(features[:3], labels[:3]))


def test_label_free_scores_are_their_formulas():
    features, labels, texts = data()
    cosine = zs.cosines(features, texts)
    p = special.softmax(7.0 * cosine, axis=1)
    assert zs.confidence(cosine, logit_scale=7.0) == pytest.approx(p.max(axis=1).mean())
    assert zs.entropy(cosine, logit_scale=7.0) == pytest.approx(-np.mean([stats.entropy(row) for row in p]))
    assert zs.zeroshot(cosine, labels) == pytest.approx(accuracy_score(labels, cosine.argmax(axis=1)))
    assert zs.margin(cosine) == pytest.approx(np.mean(cosine.max(axis=1) - cosine.mean(axis=1)))
    ordered = np.sort(cosine, axis=1)
    assert zs.top2_margin(cosine) == pytest.approx(np.mean(ordered[:, -1] - ordered[:, -2]))
    own = cosine[np.arange(60), labels]
    assert zs.true_class_zscore(cosine, labels) == pytest.approx((own - cosine.mean(axis=1)).mean() / cosine.std())


def test_iimm_is_its_definition_in_loops():
    features, labels, texts = data(n=9)
    f = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = np.mean([f[i] @ f[j] for i in range(9) for j in range(i)])
    wrong = np.mean([[f[i] @ texts[c] for c in range(3) if c != labels[i]] for i in range(9)])
    assert zs.iimm(features, texts, labels) == pytest.approx((pairs + wrong) / 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rotation_scale_and_order_change_nothing(seed):
    rng = np.random.default_rng(seed)
    features, labels, texts = data(seed=seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    order, names = rng.permutation(60), rng.permutation(3)
    inverse = np.argsort(names)
    for score in (
        lambda f, y, t: zs.margin(zs.cosines(f, t)),
        lambda f, y, t: zs.true_class_zscore(zs.cosines(f, t), y),
        lambda f, y, t: zs.iimm(f, t, y),
        lambda f, y, t: ridge(f, y, text_features=t),
        lambda f, y, t: leep(special.softmax(5 * zs.cosines(f, t), axis=1), y),
    ):
        plain = score(features, labels, texts)
        moved = score(3.0 * (features @ rotation)[order], names[labels[order]], (texts @ rotation)[inverse])
        assert moved == pytest.approx(plain, abs=1e-9)


def test_average_rank_is_scipys_ranks():
    accuracy = np.random.default_rng(0).random((7, 5))
    expected = -np.mean([stats.rankdata(-column) for column in accuracy.T], axis=0)
    order = average_rank(accuracy)
    np.testing.assert_allclose(7 * order, expected - expected.mean(), atol=1e-12)


def test_totals_in_own_units_forget_the_logit_scale():
    rng = np.random.default_rng(1)
    target, sources, factor = rng.random(6), rng.random((6, 4)), 10.0 ** rng.uniform(-1, 1, 6)
    plain = calibrated_total(target, sources)
    np.testing.assert_allclose(calibrated_total(target * factor, sources * factor[:, None]), plain)
    assert np.isnan(calibrated_total(target, np.full((6, 4), np.nan))).all()


def test_source_ceiling_follows_the_source_that_is_the_target():
    rng = np.random.default_rng(2)
    target = rng.random(20)
    sources = np.column_stack([target, rng.random((20, 5))])
    assert stats.spearmanr(source_ceiling(target, sources), target).statistic > 0.9


def test_swab_plans_are_pots_and_carry_ranks_and_gaps():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(9, 6)), rng.normal(size=(4, 6))
    exact, partial = class_plan(source, target, kind="exact"), class_plan(source, target, kind="partial")
    np.testing.assert_allclose(exact.sum(axis=0), 0.25)
    assert partial.sum() == pytest.approx(0.9)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (source, target)]
    cost = np.exp(1 - unit[0] @ unit[1].T)
    assert np.sum(exact * cost) == pytest.approx(ot.emd2(np.full(9, 1 / 9), np.full(4, 1 / 4), cost))
    ranks = np.arange(9.0)
    assert class_rank_score(exact, ranks) == pytest.approx(np.mean(ranks))
    perfect = gap_score(
        exact, source_gaps=np.zeros((9, 6)), target_text=target, text_mean=np.zeros(6), text_sd=np.ones(6)
    )
    own = unit[1] @ unit[1].T
    assert perfect == pytest.approx(np.mean(1 - (own - 2 * np.eye(4)).max(axis=1)))
    assert similar_classes(target, target).all()
    np.testing.assert_array_equal(borda(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])), [2.0, 2.0, 2.0])
