from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from helpers.tuning_world import candidate, digits, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.split import folds
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.probe import fit

__all__ = ["candidate", "store"]  # fixtures


def probe(**changes: object) -> object:
    return spec(method="probe", settings={}, epochs=0, **changes)


def unit(candidate: Candidate, task: object, rows: np.ndarray, store: Store) -> np.ndarray:
    found = embed(candidate, task, rows, load=lambda: zoo.load(candidate), store=store).images
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_given_validation_split_decides_and_the_head_learns_from_train(
    tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    task = digits()
    result = run(tmp_path, candidate, store, probe())
    model = LogisticRegression(C=5.0, max_iter=500).fit(
        unit(candidate, task, np.sort(task.train), store), task.labels[np.sort(task.train)]
    )
    for rows, measured in ((task.val, result.validation), (task.test, result.test)):
        assert model.score(unit(candidate, task, rows, store), task.labels[rows]) == pytest.approx(measured)
    assert result.validation_images == len(task.val)
    assert np.allclose(load_trial(tmp_path, 5).weight, model.coef_, atol=1e-3)


def test_with_folds_every_labelled_image_is_scored_by_a_head_that_never_saw_it(
    tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    task = digits()
    rest = folds(task.labels[task.train], np.arange(len(task.train)), count=4, seed=0)
    parts = (task.val, *(task.train[each] for each in rest))
    result = run(tmp_path, candidate, store, probe(), task=replace(task, folds=parts))
    labelled = np.concatenate(parts)
    of_parts = []
    for part in parts:
        others = np.setdiff1d(labelled, part)
        model = LogisticRegression(C=5.0, max_iter=500).fit(unit(candidate, task, others, store), task.labels[others])
        of_parts.append(model.score(unit(candidate, task, part, store), task.labels[part]))
    assert result.fold_validation == pytest.approx(of_parts)
    assert result.validation == pytest.approx(np.average(of_parts, weights=[len(part) for part in parts]))
    assert result.soft_validation == pytest.approx(np.average(result.fold_soft, weights=[len(part) for part in parts]))
    assert result.validation_images == len(labelled) == 60
    whole = LogisticRegression(C=5.0, max_iter=500).fit(
        unit(candidate, task, np.sort(labelled), store), task.labels[np.sort(labelled)]
    )
    kept = load_trial(tmp_path, 5)
    assert np.allclose(kept.weight, whole.coef_, atol=1e-3)
    assert kept.held_out_logits is not None
    named = kept.held_out_logits.argmax(axis=1)
    assert (named == task.labels[np.sort(labelled)]).mean() == pytest.approx(result.validation)
    of_val = np.searchsorted(np.sort(labelled), np.sort(task.val))
    held_out = (named[of_val] == task.labels[np.sort(task.val)]).mean()
    first = LogisticRegression(C=5.0, max_iter=500).fit(
        unit(candidate, task, np.sort(task.train), store), task.labels[np.sort(task.train)]
    )
    assert held_out == first.score(unit(candidate, task, np.sort(task.val), store), task.labels[np.sort(task.val)])


@pytest.mark.parametrize("classes", [2, 10])
def test_fit_is_scikit_learns(classes: int) -> None:
    data = load_digits()
    rows = np.flatnonzero(data.target < classes)[:300]
    values = torch.nn.functional.normalize(torch.from_numpy(data.data[rows]), dim=1).numpy()
    kept = fit(values, data.target[rows], classes=classes, inverse_penalty=2.0, metric="accuracy")
    model = LogisticRegression(C=2.0, max_iter=500).fit(values, data.target[rows])
    shares = torch.from_numpy(values @ kept.weight.T + kept.bias).softmax(dim=1).numpy()
    assert np.allclose(shares, model.predict_proba(values), atol=1e-5)


def test_absent_classes_never_win_and_balanced_metrics_weigh_classes() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 5))
    labels = np.array([1] * 36 + [3] * 4)
    kept = fit(values, labels, classes=5, inverse_penalty=1.0, metric="accuracy")
    assert set((values @ kept.weight.T + kept.bias).argmax(axis=1)) <= {1, 3}
    balanced = fit(values, labels, classes=5, inverse_penalty=1.0, metric="balanced_accuracy")
    logits = values @ balanced.weight.T + balanced.bias
    assert (logits.argmax(axis=1) == 3).sum() > ((values @ kept.weight.T + kept.bias).argmax(axis=1) == 3).sum()
    alone = fit(values, np.full(40, 2), classes=5, inverse_penalty=1.0, metric="accuracy")
    assert set((values @ alone.weight.T + alone.bias).argmax(axis=1)) == {2}
