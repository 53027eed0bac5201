"""rankings.py on a drawn world: SciPy's ranks, nothing of the target leaks, replicates keep ties, ceilings."""

import numpy as np
import pytest
from scipy import stats

from helpers.unseen_truth import check_own_truth_is_unseen
from helpers.zoo_world import World
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import RANKINGS, average_rank, replicate_scores, source_ceiling, weighted_rank
from vlmsel_auto.ranking.agreement import ndcg
from vlmsel_auto.ranking.sources import images_behind


@pytest.fixture(scope="module")
def library():
    return World().library()


def test_replicates_keep_the_ties_of_equal_accuracies(library):
    case = Case(library=library, column=0, truth="tuned", shots=0)
    first, second = np.array([0.1, 0.3, 0.3, 0.7]), np.array([0.57, 0.29, 0.83, 0.11])
    (rest, one), (other, two) = replicate_scores(case, [first, second])
    assert (rest.tolist(), one.tolist()) == (second.tolist(), first.tolist())
    assert (other.tolist(), two.tolist()) == (first.tolist(), second.tolist())


def test_a_zero_shot_ceiling_is_what_another_test_split_reaches(library):
    """Splits drawn from known accuracies predict each other about as well as replicates of one of them do."""
    case = Case(library=library, column=0, truth="zero_shot", shots=0)
    n = int(images_behind(library, truth="zero_shot")[0])
    rng = np.random.default_rng(0)
    predicted, measured, exact = [], [], []
    for _ in range(100):
        accuracy = np.clip(0.6 + 0.1 * rng.standard_normal(20), 0.0, 1.0)
        one, other = (rng.binomial(n, accuracy) / n for _ in range(2))
        pairs = replicate_scores(case, [one])
        predicted.append(np.mean([ndcg(score, truth) for score, truth in pairs]))
        measured.append(ndcg(one, other))
        exact.append(np.mean([ndcg(score, one) for score, _ in pairs]))  # takes the noise of `one` for knowledge
    assert np.mean(predicted) == pytest.approx(np.mean(measured), abs=0.05)
    assert np.mean(exact) > np.mean(measured) + 0.08


def test_the_targets_own_truth_never_reaches_its_rankings(library):
    check_own_truth_is_unseen(RANKINGS, library)


def test_average_rank_is_scipys_ranks():
    accuracy = np.random.default_rng(0).random((7, 5))
    expected = -np.mean([stats.rankdata(-column) for column in accuracy.T], axis=0)
    order = average_rank(accuracy)
    np.testing.assert_allclose(7 * order, expected - expected.mean(), atol=1e-12)


def test_weights_of_each_candidate_and_ties_that_stay_ties():
    truth = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.5, 0.5, 0.9]])
    weights = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    ranks = 3 * weighted_rank(truth, weights)
    np.testing.assert_allclose(ranks, [1.0, -1.0, 1.0], atol=1e-11)  # ranks 1, 3, 1 around the middle one
    many = np.random.default_rng(0).random((2, 17))
    assert len(np.unique(average_rank(np.column_stack([many, many[::-1]])))) == 1


def test_source_ceiling_follows_the_source_that_is_the_target():
    rng = np.random.default_rng(2)
    target = rng.random(20)
    sources = np.column_stack([target, rng.random((20, 5))])
    assert stats.spearmanr(source_ceiling(target, sources), target).statistic > 0.9
