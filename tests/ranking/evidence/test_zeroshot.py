"""zeroshot.py: formulas and invariances."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence import zeroshot as zs


def test_scores_are_their_formulas():
    features, labels, texts = texts_and_images()
    cosine = zs.cosines(features, texts)
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
