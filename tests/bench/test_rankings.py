"""rankings.py on a drawn world: nothing of the target leaks, replicates keep ties, rows come from the registry."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from helpers.zoo_world import World
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import RANKINGS, replicate_scores
from vlmsel_auto.bench.research import joined
from vlmsel_auto.ranking.agreement import ndcg
from vlmsel_auto.ranking.dcd import Dcd
from vlmsel_auto.ranking.signals import SIGNALS
from vlmsel_auto.ranking.sources import images_behind


@pytest.fixture(scope="module")
def library():
    return World().library()


@pytest.fixture(scope="module")
def research():
    return World().research()


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


def test_the_targets_own_truth_never_reaches_its_rankings(library, research):
    """With the truth of one task reversed, scores of rankings on that task stay as they were."""
    runs = library.tuned_runs.copy()
    runs[:, 2] = 1.0 - runs[:, 2]
    zero_shot = library.zero_shot.copy()
    zero_shot[:, 2] = 1.0 - zero_shot[:, 2]
    reversed_library = dataclasses.replace(library, tuned_runs=runs, zero_shot=zero_shot)
    for truth in ("tuned", "zero_shot"):
        cases = [
            Case(library=one, research=own, column=2, truth=truth, shots=4, divergence=Dcd(delta="share"))
            for one, own in (joined(library, research), joined(reversed_library, research))
        ]
        for name, ranking in RANKINGS.items():
            if name != "source_ceiling":
                for a, b in zip(ranking(cases[0]), ranking(cases[1]), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=name)


def test_swab_goes_by_no_order_of_the_candidates(library, research):
    backwards = library.select(library.candidate_ids[::-1])
    for column in range(3):
        cases = [
            Case(library=one, research=own, column=column, truth="zero_shot", shots=0)
            for one, own in (joined(library, research), joined(backwards, research))
        ]
        made, turned = (RANKINGS["swab"](case) for case in cases)
        assert len(made) == len(turned)
        for a, b in zip(made, turned, strict=True):
            np.testing.assert_allclose(a, b[::-1])


def test_every_signal_with_a_row_has_it_and_shows_what_the_library_holds(library, research):
    library, research = joined(library, research)
    case = Case(library=library, research=research, column=2, truth="tuned", shots=4)
    rows = [one for one in SIGNALS if one.row]
    assert len({one.row for one in rows}) == len(rows)
    for one in rows:
        made = RANKINGS[one.row](case)
        if not one.labelled:
            np.testing.assert_array_equal(made[0], library.signals[:, 2, library.signal_names.index(one.name)])
        elif one.name in library.evidence_names:
            e = library.evidence_names.index(one.name)
            np.testing.assert_array_equal(np.array(made).T, library.evidence_draws[:, 2, :, 1, e])
        else:
            assert made == []


def test_the_authors_row_compares_means_of_the_norm_over_neurons(library, research):
    case = Case(library=library, research=research, column=2, truth="tuned", shots=4)
    other = dataclasses.replace(library, activity=tuple(2.0 + one for one in library.activity))
    (score,) = RANKINGS["dcd_authors"](case)
    np.testing.assert_array_equal(RANKINGS["dcd_authors"](dataclasses.replace(case, library=other))[0], score)
    rest = np.delete(np.arange(10), 2)
    for m, row in enumerate(case.rows):
        means = research.norm_activity[row] / np.array([12.0, 40.0])
        alpha = special.softmax(2.5 * means[2] / np.linalg.norm(means[2]))
        divergence = (np.abs(means[rest] - means[2]) / (means[2] + 1e-8)) @ alpha
        ranks = stats.rankdata(-case.source_truth, axis=0)[m]
        assert 9 * score[m] == pytest.approx(5 - special.softmax(-4 * divergence) @ ranks)
    nothing = tuple(np.full((10, 0), np.nan) for _ in research.norm_activity)
    nobody = tuple(dataclasses.replace(one, elements=()) for one in research.candidates)
    bare = dataclasses.replace(research, norm_activity=nothing, candidates=nobody)
    assert RANKINGS["dcd_authors"](dataclasses.replace(case, research=bare)) == []
