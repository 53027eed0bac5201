"""Alignment of what is near in the candidates' image spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from vlmsel_auto.ranking.evidence.alignment import alignment, nearest


def by_hand(neighbours, margins):
    """The definition, pair by pair."""
    z = (margins - margins.mean()) / margins.std()
    weight = np.exp(3.0 * z)
    found = []
    for m, own in enumerate(neighbours):
        logs = []
        for x, places in enumerate(own):
            for place in places:
                shared = sum(weight[o] for o, other in enumerate(neighbours) if o != m and place in other[x])
                logs.append(np.log(shared / np.delete(weight, m).sum() + 0.02))
        found.append(np.mean(logs))
    return np.array(found)


def drawn(seed, *, m=5, n=90, k=4):
    rng = np.random.default_rng(seed)
    return [np.stack([rng.choice(n, k, replace=False) for _ in range(n)]) for _ in range(m)], rng.random(m)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_log_share_of_the_others_votes(seed):
    neighbours, margins = drawn(seed)
    np.testing.assert_allclose(alignment(neighbours, margins), by_hand(neighbours, margins))


def test_neighbours_are_those_of_scikit_learn():
    features = np.random.default_rng(0).normal(size=(120, 7)) + 3.0
    centred = features - features.mean(axis=0)
    oracle = NearestNeighbors(n_neighbors=11, metric="cosine").fit(centred).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest(features), oracle[:, :10])


@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_neither_turn_nor_shift_nor_scale_of_a_space_matters(seed, factor):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(85, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    np.testing.assert_array_equal(nearest(factor * features @ turn + rng.normal(size=6)), nearest(features))


@pytest.mark.parametrize(("images", "count"), [(23, 0), (24, 3), (33, 4), (79, 9), (80, 10), (200, 10)])
def test_among_few_images_fewer_are_near(images, count):
    features = np.random.default_rng(0).normal(size=(images, 7))
    assert nearest(features).shape == (images, count)


def test_copies_that_are_known_change_nothing():
    neighbours, margins = drawn(4)
    kin = np.kron(np.ones((3, 3)), np.eye(5))
    found = alignment(neighbours * 3, np.tile(margins, 3), alike=kin)
    np.testing.assert_allclose(found, np.tile(alignment(neighbours, margins), 3))


def test_among_many_images_some_that_are_spread_over_them_are_compared():
    features = np.random.default_rng(1).normal(size=(509, 5))
    assert nearest(features).shape == (255, 10)
    np.testing.assert_array_equal(nearest(features), nearest(features[::2]))


def test_two_candidates_few_images_or_copies_alone_say_nothing():
    neighbours, margins = drawn(5)
    assert np.isnan(alignment(neighbours[:2], margins[:2])).all()
    assert np.isnan(alignment([np.empty((23, 0), dtype=int)] * 5, margins)).all()
    assert np.isnan(alignment(neighbours, margins, alike=np.ones((5, 5)))).all()
