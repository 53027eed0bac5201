"""measurement.py: embeddings as signals want them."""

import numpy as np

from vlmsel_auto.ranking.measurement import Measurement


def test_a_measurement_without_embeddings_has_nothing_to_score():
    assert Measurement(candidate="a").embedded() is None


def test_embeddings_come_with_labels_and_a_baseline_of_zeros_where_there_is_none():
    one = Measurement(candidate="a", features=np.ones((2, 3)), text_features=np.eye(3)[:2])
    seen = one.embedded(np.array([0, 1]))
    assert (seen.labels.tolist(), seen.baseline.tolist()) == ([0, 1], [0.0, 0.0, 0.0])
