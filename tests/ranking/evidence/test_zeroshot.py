"""zeroshot.py: formulas and invariances."""

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import accuracy_score

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence import zeroshot as zs


def test_label_free_scores_are_their_formulas():
    features, labels, texts = texts_and_images()
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


def test_gain_over_the_baseline_is_the_margin_of_each_minus_the_baselines():
    features, _, texts = texts_and_images(n=7)
    cosine, start = zs.cosines(features, texts), np.array([0.3, -0.1, 0.2])
    expected = [row.max() - row.mean() - (start[row.argmax()] - start.mean()) for row in cosine]
    assert zs.margin_gain(cosine, start) == pytest.approx(np.mean(expected))
    assert zs.margin_gain(cosine, np.zeros(3)) == pytest.approx(zs.margin(cosine))


def test_iimm_is_its_definition_in_loops():
    features, _, texts = texts_and_images(n=9)
    f = features / np.linalg.norm(features, axis=1, keepdims=True)
    predicted = (f @ texts.T).argmax(axis=1)
    pairs = np.mean([f[i] @ f[j] for i in range(9) for j in range(i)])
    wrong = np.mean([[f[i] @ texts[c] for c in range(3) if c != predicted[i]] for i in range(9)])
    assert zs.iimm(features, texts) == pytest.approx((pairs + wrong) / 2)
