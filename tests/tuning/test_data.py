import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from helpers.tuning_world import candidate, digits
from vlmsel_auto.records import Candidate, Metric
from vlmsel_auto.tasks.split import folds
from vlmsel_auto.tuning.data import MiniBatches, image_set, measure, splits

__all__ = ["candidate"]  # a fixture


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
    balanced = measure("balanced_accuracy", logits=logits, labels=torch.from_numpy(labels))
    assert balanced.metric == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)), rel=1e-12)
    assert balanced.soft == pytest.approx(np.mean([true[labels == k].mean() for k in range(4)]), rel=1e-6)
    macro = measure("macro_f1", logits=logits, labels=torch.from_numpy(labels))
    assert macro.metric == pytest.approx(f1_score(labels, probabilities.argmax(axis=1), average="macro"), rel=1e-12)
    of_class = [2 * true[labels == k].sum() / ((labels == k).sum() + probabilities[:, k].sum()) for k in range(4)]
    assert macro.soft == pytest.approx(np.mean(of_class), rel=1e-6)


@pytest.mark.parametrize("metric", get_args(Metric))
def test_the_soft_metric_of_a_classifier_that_never_doubts_is_the_metric(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    labels = torch.from_numpy(rng.choice(4, size=60, p=[0.6, 0.2, 0.1, 0.1]))
    sure = measure(metric, logits=torch.from_numpy(rng.normal(size=(60, 4))) * 1e4, labels=labels)
    assert sure.soft == pytest.approx(sure.metric, abs=1e-6)


def test_batches_cover_every_image_once_also_when_not_resident(candidate: Candidate) -> None:
    task = digits()
    for limit in (0, 2**30):
        images = image_set(task, view=candidate.view, indices=task.train, resident_bytes=limit)
        assert (images.resident is None) == (limit == 0)
        batches = MiniBatches(images=images, size=16, generator=torch.Generator().manual_seed(0))
        seen = [(pixels.shape[1:], labels) for pixels, labels in batches]
        assert len(seen) == len(batches) == 3
        assert all(shape == (64, 64, 3) for shape, _ in seen)
        labels = torch.cat([each for _, each in seen])
        assert torch.equal(labels.sort().values, torch.from_numpy(np.sort(task.labels[task.train])))
        assert not torch.equal(torch.cat([each for _, each in batches]), labels)  # shuffled anew


def test_splits_thin_large_validation_sets_and_refuse_empty_ones() -> None:
    task = digits()
    assert len(splits(task, max_val=7).val) == 7
    assert np.array_equal(splits(task, max_val=7).val, splits(task, max_val=7).val)
    assert np.bincount(task.labels[splits(task, train_shots=2).train]).tolist() == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="needs training and validation images"):
        splits(dataclasses.replace(task, val=task.val[:0]))


@given(st.integers(0, 4), st.integers(2, 5))
def test_a_fold_validates_and_the_others_train(fold: int, count: int) -> None:
    task = digits()
    rest = folds(task.labels[task.train], np.arange(len(task.train)), count=count - 1, seed=0)
    parts = (task.val, *(task.train[each] for each in rest))
    found = splits(dataclasses.replace(task, folds=parts), fold=fold)
    assert np.array_equal(found.val, np.sort(parts[fold % len(parts)]))
    assert np.array_equal(np.sort(np.concatenate([found.train, found.val])), found.labelled)
    assert np.array_equal(found.labelled, np.sort(np.concatenate([task.train, task.val])))
    assert not len(np.intersect1d(found.train, found.val))
    needed = splits(dataclasses.replace(task, folds=parts[:-1]), fold=fold)  # the last part is in no fold
    assert set(parts[-1]) <= set(needed.train)
    assert np.array_equal(needed.held_out, np.sort(np.concatenate(parts[:-1])))
    assert np.array_equal(needed.labelled, found.labelled)
    given_val = splits(task, fold=fold)  # a split that was given decides alone
    assert np.array_equal(given_val.val, np.sort(task.val))
