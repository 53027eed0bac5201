"""Means of classes and the limit that the training images set, against loops over images."""

import numpy as np

from vlmsel_auto.models.familiar import familiar


def distance(row: np.ndarray, others: np.ndarray, labels: np.ndarray) -> float:
    means = [others[labels == label].sum(axis=0) for label in np.unique(labels)]
    return min(1 - row @ mean / np.linalg.norm(row) / np.linalg.norm(mean) for mean in means)


def test_the_limit_is_set_by_images_that_their_own_mean_does_not_hold() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2, 5], 40)
    images = (rng.normal(size=(6, 8))[labels] + 0.5 * rng.normal(size=(120, 8))).astype(np.float32)
    found = familiar(3 * images, labels)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    held_out = [distance(unit[row], np.delete(unit, row, 0), np.delete(labels, row)) for row in range(120)]
    assert np.isclose(found.limit, np.quantile(held_out, 0.99, method="higher"), atol=1e-5)
    assert np.allclose(np.linalg.norm(found.means, axis=1), 1, atol=1e-5)
    within = [(1 - found.means @ row).min() <= found.limit for row in unit]
    assert np.mean(within) >= 0.98
    strange = rng.normal(size=(200, 8))
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    assert np.mean((1 - strange @ found.means.T).min(axis=1) > found.limit) > 0.5


def test_classes_of_one_image_have_no_mean() -> None:
    rows = np.eye(5, dtype=np.float32)
    assert familiar(rows[:3], np.array([0, 1, 2])) is None
    found = familiar(rows[[0, 0, 1]], np.array([1, 1, 0]))
    assert found.means.tolist() == [rows[0].tolist()]
    assert found.limit > 0
