"""knn.py: scikit-learn's neighbours left out one by one."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from helpers.blobs import blobs
from vlmsel_auto.ranking.evidence.knn import knn


@pytest.mark.parametrize("k", [1, 5])
def test_knn_is_sklearns_leave_one_out_with_distance_as_tie_break(k):
    features, labels = blobs(spread=1.5)
    right = []
    for i in range(len(labels)):
        rest = np.arange(len(labels)) != i
        model = KNeighborsClassifier(
            n_neighbors=k, metric="cosine", weights=lambda distance: 1.0 + (1.0 - distance) / (4 * k)
        )
        right.append(model.fit(features[rest], labels[rest]).predict(features[i : i + 1])[0] == labels[i])
    assert knn(features, labels, k=k) == pytest.approx(np.mean(right))
