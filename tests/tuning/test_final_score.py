"""The figures on the test split against their formulas."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.tuning_world import digits
from vlmsel_auto.intervals import wilson
from vlmsel_auto.tuning.final_score import final_score


def expected_calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((sure * 15).astype(int), 14)
    return sum(
        (bins == each).mean() * abs(sure[bins == each].mean() - right[bins == each].mean()) for each in np.unique(bins)
    )


def test_interval_and_calibration_are_those_of_the_papers() -> None:
    task = digits()
    labels = task.labels[np.sort(task.test)]
    logits = np.random.default_rng(0).normal(0, 1, (len(labels), task.n_classes)) + 2 * np.eye(task.n_classes)[labels]
    found = final_score(task, logits)
    right = int((logits.argmax(axis=1) == labels).sum())
    assert (found.metric, found.images) == (right / len(labels), len(labels))
    assert found.interval is not None
    assert found.interval == wilson(right, len(labels))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure, correct = shares.max(axis=1), shares.argmax(axis=1) == labels
    assert found.calibration_error == pytest.approx(expected_calibration_error(sure, correct), abs=1e-5)
    flat = final_score(task, 0.01 * logits)
    assert flat.calibration_error > found.calibration_error  # right far more often than it says


def test_exact_probabilities_show_the_floor_on_average_and_surer_ones_more() -> None:
    task = digits()
    labels, rng = task.labels[np.sort(task.test)], np.random.default_rng(0)
    logits = rng.normal(0, 2, (len(labels), task.n_classes))
    found = final_score(task, logits)
    assert found.calibration_floor is not None
    sure = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1)
    exact = [expected_calibration_error(sure, rng.random(len(sure)) < sure) for _ in range(300)]
    assert found.calibration_floor == pytest.approx(np.mean(exact), rel=0.05)
    assert found.calibration_error > 1.5 * found.calibration_floor  # these logits know nothing of the labels


def test_other_metrics_have_no_such_interval_and_no_test_split_no_score() -> None:
    task = digits()
    logits = np.eye(task.n_classes)[task.labels[np.sort(task.test)]]
    for metric in ("balanced_accuracy", "macro_f1"):
        found = final_score(replace(task, metric=metric), logits)
        assert (found.metric, found.interval) == (1.0, None)
    assert final_score(replace(task, test=task.test[:0]), logits[:0]) is None
