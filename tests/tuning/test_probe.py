from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from helpers.tuning_world import Tune, candidate, digits, spec, store, tune
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.records import CLASSES_ALIKE, Candidate, Metric
from vlmsel_auto.tasks.split import folds
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.probe import fit

__all__ = ["candidate", "store", "tune"]  # fixtures


def probe(**changes: object) -> object:
    return spec(method="probe", settings={}, epochs=0, **changes)


def unit(candidate: Candidate, task: object, rows: np.ndarray, store: Store) -> np.ndarray:
    found = embed(candidate, task, rows, load=lambda: zoo.load(candidate), store=store).images
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def regression(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=5.0, max_iter=500).fit(features, labels)


def zero_shot(candidate: Candidate, task: object, rows: np.ndarray, store: Store) -> tuple[np.ndarray, np.ndarray]:
    found = embed(candidate, task, rows, load=lambda: zoo.load(candidate), store=store)
    weight = found.text * min(found.logit_scale, 100.0)
    return weight, unit(candidate, task, rows, store) @ weight.T


def weights_of(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logs = [log_probabilities(each) for each in (first, second)]
    return fit_weights(logs, labels, start=[1.0, 0.1], shrinkage=2.0)


def test_a_given_validation_split_weighs_a_regression_on_train_and_zero_shot(
    tune: Tune, tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    task = digits()
    train, val, test = (np.sort(each) for each in (task.train, task.val, task.test))
    result = tune(probe())
    model = regression(unit(candidate, task, train, store), task.labels[train])
    text, of_text = zero_shot(candidate, task, val, store)
    weights = weights_of(model.decision_function(unit(candidate, task, val, store)), of_text, task.labels[val])
    head = weights[0] * model.coef_ + weights[1] * text
    bias = weights[0] * model.intercept_
    kept = load_trial(tmp_path, result)
    assert np.allclose(kept.weight, head, atol=1e-2)
    assert np.allclose(kept.bias, bias, atol=1e-2)
    assert kept.scale == 1.0
    for rows, measured in ((val, result.validation), (test, result.test)):
        named = (unit(candidate, task, rows, store) @ head.T + bias).argmax(axis=1)
        assert (named == task.labels[rows]).mean() == pytest.approx(measured)
    assert result.validation_images == len(val)
    assert result.start == pytest.approx((of_text.argmax(axis=1) == task.labels[val]).mean())


def test_with_folds_every_labelled_image_is_scored_by_a_regression_that_never_saw_it(
    tune: Tune, tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    task = digits()
    rest = folds(task.labels[task.train], np.arange(len(task.train)), count=4, seed=0)
    parts = (task.val, *(task.train[each] for each in rest))
    result = tune(probe(), task=replace(task, folds=parts))
    labelled = np.sort(np.concatenate(parts))
    labels = task.labels[labelled]
    held_out = np.zeros((len(labelled), task.n_classes))
    for part in parts:
        others = np.setdiff1d(labelled, part)
        model = regression(unit(candidate, task, others, store), task.labels[others])
        at = np.searchsorted(labelled, np.sort(part))
        held_out[at] = model.decision_function(unit(candidate, task, np.sort(part), store))
    text, of_text = zero_shot(candidate, task, labelled, store)
    weights = weights_of(held_out, of_text, labels)
    together = weights[0] * held_out + weights[1] * of_text
    right = together.argmax(axis=1) == labels
    assert result.validation == pytest.approx(right.mean())
    assert result.validation_images == len(labelled) == 60
    of_parts = [right[np.isin(labelled, part)].mean() for part in parts]
    assert result.fold_validation == pytest.approx(of_parts)
    assert result.soft_validation == pytest.approx(np.average(result.fold_soft, weights=[len(part) for part in parts]))
    kept = load_trial(tmp_path, result)
    whole = regression(unit(candidate, task, labelled, store), labels)
    assert np.allclose(kept.weight, weights[0] * whole.coef_ + weights[1] * text, atol=1e-2)
    assert np.allclose(kept.held_out_logits, together, atol=1e-2)


@pytest.mark.parametrize("classes", [2, 10])
def test_fit_is_scikit_learns(classes: int) -> None:
    data = load_digits()
    rows = np.flatnonzero(data.target < classes)[:300]
    values = torch.nn.functional.normalize(torch.from_numpy(data.data[rows]), dim=1).numpy()
    kept = fit(values, data.target[rows], classes=classes, inverse_penalty=2.0, metric="accuracy")
    model = LogisticRegression(C=2.0, max_iter=500).fit(values, data.target[rows])
    shares = torch.from_numpy(values @ kept.weight.T + kept.bias).softmax(dim=1).numpy()
    assert np.allclose(shares, model.predict_proba(values), atol=1e-5)


@pytest.mark.parametrize("metric", sorted(CLASSES_ALIKE))
def test_absent_classes_never_win_and_metrics_that_weigh_classes_alike_do_so_in_the_fit(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 5))
    labels = np.array([1] * 36 + [3] * 4)
    kept = fit(values, labels, classes=5, inverse_penalty=1.0, metric="accuracy")
    assert set((values @ kept.weight.T + kept.bias).argmax(axis=1)) <= {1, 3}
    balanced = fit(values, labels, classes=5, inverse_penalty=1.0, metric=metric)
    logits = values @ balanced.weight.T + balanced.bias
    assert (logits.argmax(axis=1) == 3).sum() > ((values @ kept.weight.T + kept.bias).argmax(axis=1) == 3).sum()
    alone = fit(values, np.full(40, 2), classes=5, inverse_penalty=1.0, metric="accuracy")
    assert set((values @ alone.weight.T + alone.bias).argmax(axis=1)) == {2}
