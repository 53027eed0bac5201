import numpy as np
import pytest
import torch

from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.errors import ConductanceError


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(5, 7))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return torch.from_numpy(rng.normal(size=(4, 7))), torch.from_numpy(text)


def _cosines(embedding, text):
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    return unit @ text.T


def test_margin_is_the_predicted_logit_minus_the_mean_logit(case):
    embedding, text = case
    logits = 30 * _cosines(embedding.numpy(), text.numpy())
    scalar = make_scalar("margin", text_features=text, logit_scale=30.0)
    target = scalar.target(embedding)
    np.testing.assert_array_equal(target, logits.argmax(1))
    np.testing.assert_allclose(scalar.value(embedding, target), logits.max(1) - logits.mean(1), rtol=1e-12)


def test_norm_needs_no_classes(case):
    embedding, _ = case
    scalar = make_scalar("norm")
    np.testing.assert_allclose(scalar.value(embedding, scalar.target(embedding)), embedding.norm(dim=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "margin"}, "needs text_features"),
        ({"name": "margin", "text_features": torch.eye(3)[:1]}, "constant.*got 1 with"),
        ({"name": "margin", "text_features": torch.eye(3)[[0, 0]]}, "constant.*got 2 with spread 0"),
        ({"name": "margin", "text_features": 3 * torch.eye(3)}, "unit length, but got 3 to 3"),
        ({"name": "margin", "text_features": torch.eye(3) * torch.nan}, "finite"),
        ({"name": "margin", "text_features": torch.ones(3)}, r"\(classes, width\), but got shape \(3,\)"),
        ({"name": "margin", "text_features": torch.eye(3), "logit_scale": 0.0}, "logit_scale must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConductanceError, match=message):
        make_scalar(**settings)
