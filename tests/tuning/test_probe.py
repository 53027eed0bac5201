from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.records import TrialSpec
from vlmsel_auto.tuning.data import score
from vlmsel_auto.tuning.probe import Fitted, fit_head


def spec(**changes: object) -> TrialSpec:
    settings = {"learning_rate": 5e-3, "weight_decay": 0.03}
    settings |= {name: changes.pop(name) for name in tuple(changes) if name in settings}
    fields = {"candidate": "a", "method": "probe", "settings": settings, "epochs": 60, "seed": 0}
    return TrialSpec(**{**fields, **changes})


def digits() -> tuple[torch.Tensor, np.ndarray]:
    data = load_digits()
    values = torch.from_numpy(data.data[:900].astype(np.float32))
    return torch.nn.functional.normalize(values, dim=-1), data.target[:900].astype(np.int64)


def text(values: torch.Tensor, labels: np.ndarray, noise: float) -> torch.Tensor:
    means = torch.stack([values[torch.from_numpy(labels == each)].mean(dim=0) for each in range(10)])
    noisy = means + noise * torch.randn(means.shape, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(noisy, dim=-1)


def fit(noise: float = 0.15, *, scale: float = 30.0, centre: bool = True, **changes: object) -> Fitted:
    values, labels = digits()
    return fit_head(
        train=values[:500],
        train_labels=torch.from_numpy(labels[:500]),
        val=values[500:700],
        val_labels=labels[500:700],
        text=text(values, labels, noise),
        scale=scale,
        spec=spec(**changes),
        metric="accuracy",
        centre=centre,
    )


def test_a_probe_comes_near_logistic_regression() -> None:
    values, labels = digits()
    found = fit(learning_rate=2e-2, weight_decay=1e-3, epochs=200)
    predicted = (30.0 * values[700:] @ found.weight.T + found.bias).argmax(dim=1).numpy()
    ours = score("accuracy", labels=labels[700:], predicted=predicted)
    oracle = LogisticRegression(C=100, max_iter=2000).fit(values[:500], labels[:500]).score(values[700:], labels[700:])
    assert ours > oracle - 0.03
    assert found.validation.metric > found.start
    assert len(found.curve) == 200


def test_no_epochs_are_the_zero_shot_classifier() -> None:
    values, labels = digits()
    found = fit(epochs=0)
    classes = text(values, labels, 0.15)
    assert torch.allclose(found.weight, classes)
    assert torch.allclose(found.bias, torch.zeros(10), atol=1e-5)
    predicted = (values[500:700] @ classes.T).argmax(dim=1).numpy()
    assert found.start == found.validation.metric == score("accuracy", labels=labels[500:700], predicted=predicted)
    assert found.kept == 0


def test_the_folded_bias_gives_the_measured_validation() -> None:
    values, labels = digits()
    for centre in (True, False):
        found = fit(centre=centre)
        predicted = (30.0 * values[500:700] @ found.weight.T + found.bias).argmax(dim=1).numpy()
        assert score("accuracy", labels=labels[500:700], predicted=predicted) == found.validation.metric


def test_a_trial_never_ends_below_its_start() -> None:
    found = fit(noise=0.0, learning_rate=3.0, weight_decay=0.0, epochs=5)
    assert found.validation.metric >= found.start
    assert min(found.curve) < found.start  # although training did harm


def test_weight_decay_pulls_towards_the_text() -> None:
    values, labels = digits()
    classes = text(values, labels, 0.15)
    free, held = (fit(weight_decay=decay, epochs=100) for decay in (1e-3, 30.0))
    assert float((held.weight - classes).norm()) < 0.5 * float((free.weight - classes).norm())


def test_a_hook_ends_the_training() -> None:
    values, labels = digits()
    seen: list[int] = []

    def hook(epoch: int, validation: float, loss: float) -> bool:
        assert 0 <= validation <= 1
        assert loss > 0
        seen.append(epoch)
        return epoch == 7

    found = fit_head(
        train=values[:100],
        train_labels=torch.from_numpy(labels[:100]),
        val=values[500:600],
        val_labels=labels[500:600],
        text=text(values, labels, 0.1),
        scale=30.0,
        spec=spec(),
        metric="balanced_accuracy",
        hook=hook,
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert found.stopped
    assert len(found.curve) == 7


def test_divergence_is_an_error_of_the_trial() -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate, but got"):
        fit(learning_rate=1e30)


@pytest.mark.parametrize("seed", range(5))
def test_scores_have_sklearn_as_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    found = score("balanced_accuracy", labels=labels, predicted=predicted)
    assert found == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert score("accuracy", labels=labels, predicted=predicted) == (labels == predicted).mean()
    with pytest.raises(ValueError, match="at least one"):
        score("accuracy", labels=labels[:0], predicted=predicted[:0])


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    from vlmsel_auto.errors import TrialUnavailable
    from vlmsel_auto.tuning.checkpoints import Checkpoint, drop_weights, load_trial, save_weights

    shared = torch.ones(3, 3)
    kept = Checkpoint(
        visual={"a": shared, "b": shared}, weight=np.eye(2, dtype=np.float32), bias=np.ones(2, np.float32), scale=29.7
    )
    path = save_weights(tmp_path, 3, kept)
    found = load_trial(tmp_path, 3)
    assert found.scale == kept.scale
    assert found.visual is not None
    assert torch.equal(found.visual["b"], shared)
    assert np.array_equal(found.weight, kept.weight)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TrialUnavailable, match="Trial 3 has no weights"):
        load_trial(tmp_path, 3)
    drop_weights(tmp_path, 3)
    with pytest.raises(TrialUnavailable, match="Trial 3 has no weights"):
        load_trial(tmp_path, 3)
