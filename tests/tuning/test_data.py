import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss

from vlmsel_auto.tuning.data import measure


def test_measured_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (
        torch.from_numpy(rng.normal(size=(60, 4))).float() * 3,
        rng.choice(4, size=60, p=[0.6, 0.2, 0.1, 0.1]),
    )
    probabilities = logits.double().softmax(dim=1).numpy()
    true = probabilities[np.arange(60), labels]
    plain = measure("accuracy", logits=logits, labels=torch.from_numpy(labels))
    assert plain.metric == (probabilities.argmax(axis=1) == labels).mean()
    assert plain.soft == pytest.approx(true.mean(), rel=1e-6)
    assert plain.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    assert plain.order == (plain.metric, -plain.loss)
    balanced = measure("balanced_accuracy", logits=logits, labels=torch.from_numpy(labels))
    assert balanced.metric == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)), rel=1e-12)
    assert balanced.soft == pytest.approx(np.mean([true[labels == k].mean() for k in range(4)]), rel=1e-6)
    sure = measure("accuracy", logits=1e4 * logits, labels=torch.from_numpy(labels))
    assert sure.soft == pytest.approx(sure.metric, abs=1e-6)  # a classifier that never doubts
