"""likelihood.py: scikit-learn's log loss; no logit scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import log_loss

from vlmsel_auto.ranking.evidence.likelihood import fitted_log_likelihood, zeroshot_log_likelihood


def test_the_likelihood_is_scikit_learns_log_loss_at_the_best_sharpness():
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 4
    scores = 0.6 * np.eye(4)[labels] + rng.normal(size=(40, 4))
    losses = [log_loss(labels, special.softmax(a * scores, axis=1)) for a in (1, 2, 4, 8, 16, 32)]
    assert fitted_log_likelihood(scores, labels) == pytest.approx(-min(losses))
    assert math.isnan(fitted_log_likelihood(np.zeros((0, 4)), labels[:0]))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 10.0), shift=st.floats(-1.0, 1.0))
def test_zero_shot_likelihood_knows_no_logit_scale(scale, shift):
    rng = np.random.default_rng(5)
    labels = np.arange(24) % 3
    cosine = 0.1 * np.eye(3)[labels] + 0.1 * rng.normal(size=(24, 3))
    expected = zeroshot_log_likelihood(cosine, labels)
    assert zeroshot_log_likelihood(scale * cosine + shift, labels) == pytest.approx(expected, rel=1e-9)
    assert -math.log(3) < expected < 0.0
    assert math.isnan(zeroshot_log_likelihood(cosine, labels[:0]))
