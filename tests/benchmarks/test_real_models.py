"""benchmarks/ranking/real_models.py: known figures, nothing of the target leaks, nested choices on a drawn zoo."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from benchmarks.ranking import real_models


def drawn(*, seed=0, models=12, tasks=7):
    rng = np.random.default_rng(seed)
    truth = np.clip(0.5 + 0.15 * rng.normal(size=(models, 1)) + 0.1 * rng.normal(size=(models, tasks)), 0, 1)
    profiles = tuple(1e-6 * np.exp(rng.normal(size=(tasks, 4))) for _ in range(models))
    return real_models.RealZoo(
        candidate_ids=tuple(f"m{m}" for m in range(models)),
        tasks=tuple(f"t{t}" for t in range(tasks)),
        truth=truth,
        imagenet=rng.random(models),
        profiles=profiles,
    )


@pytest.fixture(scope="module")
def table():
    return real_models.compare(real_models.real_zoo())


def test_the_shipped_figures_are_whole():
    zoo = real_models.real_zoo()
    assert zoo.truth.shape == (48, 18)
    assert np.isfinite(zoo.truth).all()
    assert np.isfinite(zoo.imagenet).all()
    assert "DMLab" not in zoo.tasks
    assert all(np.isfinite(one).all() for one in zoo.profiles)


def test_figures_that_were_computed_elsewhere(table):
    """By a separate script with scikit-learn's NDCG: authors' NDCG@5, NDCG@5, tau-b, top-1 loss."""
    for name, expected in {
        "average_rank": (0.729, 0.481, 0.596, 2.31),
        "imagenet": (0.785, 0.547, 0.591, 2.31),
        "dcd_authors_gamma_1": (0.732, 0.470, 0.595, 2.31),
        "dcd_authors": (0.630, 0.438, 0.586, 2.56),
        "dcd_authors_gamma_8": (0.613, 0.460, 0.577, 2.58),
        "hindsight_ceiling_5": (0.740, 0.499, 0.622, 2.31),
    }.items():
        row = table[name]
        found = [row[each] for each in ("authors_ndcg5", "ndcg5", "tau_b", "top1_loss")]
        assert found == pytest.approx(expected, abs=0.006), name


def test_gains_are_paired_with_the_average_rank(table):
    base, row = table["average_rank"], table["dcd_authors"]
    assert (base["gain_low"], base["authors_gain_high"]) == (None, None)
    assert row["gain"] == pytest.approx(row["ndcg5"] - base["ndcg5"], abs=2e-6)
    assert row["authors_gain"] == pytest.approx(row["authors_ndcg5"] - base["authors_ndcg5"], abs=2e-6)
    assert row["gain_low"] < row["gain"] < row["gain_high"] < 0
    assert row["authors_gain_low"] < row["authors_gain"] < row["authors_gain_high"]
    assert table["random"]["ndcg5"] < 0.15


def test_nothing_of_the_target_reaches_its_rankings():
    zoo = drawn()
    turned = zoo.truth.copy()
    turned[:, 3] = turned[::-1, 3]
    other = dataclasses.replace(zoo, truth=turned)
    for name, (rank, _) in real_models.RANKINGS.items():
        if "ceiling" not in name:
            for one, two in zip(rank(zoo, 3), rank(other, 3), strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_authors_score_in_loops():
    zoo = drawn(seed=1)
    (score,) = real_models.RANKINGS["dcd_authors"][0](zoo, 2)
    rest = [0, 1, 3, 4, 5, 6]
    expected = []
    for m, one in enumerate(zoo.profiles):
        own = one[2]
        alpha = special.softmax(2.5 * own / np.linalg.norm(own))
        divergence = [alpha @ (np.abs(own - one[s]) / (own + 1e-8)) for s in rest]
        ranks = [stats.rankdata(-zoo.truth[:, s])[m] for s in rest]
        expected.append(-special.softmax(-4 * np.array(divergence)) @ ranks)
    np.testing.assert_allclose(12 * score, np.array(expected) + 6.5, atol=1e-9)


def test_nested_rows_take_what_is_best_on_the_other_targets():
    """Two kinds of tasks that profiles tell apart: weights of DCD alone are chosen, not equal ones."""
    zoo, rng = drawn(seed=2, models=20, tasks=8), np.random.default_rng(0)
    kind, orders = np.arange(8) % 2, rng.random((20, 2))
    poles = np.array([[1.0, 9.0], [9.0, 1.0]])[kind]
    profiles = tuple(1e-6 * (poles + 0.1 * rng.random((8, 2))) for _ in range(20))
    kinds = dataclasses.replace(zoo, truth=0.5 * orders[:, kind] + 0.02 * rng.random((20, 8)), profiles=profiles)
    reached = {
        name: stats.kendalltau(real_models.RANKINGS[name][0](kinds, 0)[0], kinds.truth[:, 0]).statistic
        for name in ("average_rank", "dcd_authors", "mixed_nested", "dcd_nested")
    }
    assert reached["average_rank"] < 0.8
    assert reached["mixed_nested"] > 0.85
    assert reached["dcd_nested"] > 0.85
    np.testing.assert_array_equal(kinds.without(0).truth, kinds.truth[:, 1:])
    assert kinds.without(0).tasks == kinds.tasks[1:]
