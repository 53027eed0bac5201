"""ranking/compared_rankings.py on a drawn world: nothing of the target leaks, rows show what a library holds."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import LinearRegression

from benchmarks.ranking import compared_rankings
from helpers.research_world import SLOW, research_of
from helpers.unseen_truth import check_own_truth_is_unseen
from helpers.zoo_world import World
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.run import run_bench


@pytest.fixture(scope="module")
def plain():
    return World().library()


@pytest.fixture(scope="module")
def research():
    return research_of(World())


@pytest.fixture(scope="module")
def library(plain, research):
    return compared_rankings.joined(plain, research)[0]


def test_all_have_a_row_but_those_that_no_library_of_this_world_has(library, research):
    made = compared_rankings.rankings(research)
    table = run_bench(library, truth="tuned", shots=4, rankings=made)
    assert [row.ranking for row in table.rows] == [
        name for name in (*made, "replicate_ceiling") if name not in {"imagenet", *SLOW}
    ]
    assert "left out, as the library lacks their data: imagenet, nleep, logistic" in table.notes


def test_rescaled_logits_move_raw_totals(library, research):
    factors = np.array([0.1, 1.0, 10.0] * 3)
    other = dataclasses.replace(
        library,
        total=library.total * factors[:, None],
        activity=tuple(one * factor for one, factor in zip(library.activity, factors, strict=True)),
    )
    names = ("conductance_total", "conductance_total_calibrated")
    made = {name: compared_rankings.rankings(research)[name] for name in names}
    before, after = (run_bench(one, truth="tuned", shots=0, rankings=made) for one in (library, other))
    assert after.row(names[0]).ndcg5 != pytest.approx(before.row(names[0]).ndcg5)
    assert after.row(names[1]).per_target == pytest.approx(before.row(names[1]).per_target)


def test_the_targets_own_truth_never_reaches_its_rankings(library, research):
    check_own_truth_is_unseen(compared_rankings.rankings(research), library)


def test_swab_goes_by_no_order_of_the_candidates(plain, research):
    backwards = plain.select(plain.candidate_ids[::-1])
    for column in range(3):
        made, turned = (
            compared_rankings.rankings(own)["swab"](Case(library=one, column=column, truth="zero_shot", shots=0))
            for one, own in (compared_rankings.joined(plain, research), compared_rankings.joined(backwards, research))
        )
        assert len(made) == len(turned)
        for a, b in zip(made, turned, strict=True):
            np.testing.assert_allclose(a, b[::-1])


def test_rows_of_scores_show_what_the_library_holds(library, research):
    case = Case(library=library, column=2, truth="tuned", shots=4)
    made = compared_rankings.rankings(research)
    for name in compared_rankings.UNLABELLED:
        np.testing.assert_array_equal(made[name](case)[0], library.signals[:, 2, library.signal_names.index(name)])
    for name in compared_rankings.EVIDENCE:
        found = made[compared_rankings.NAMED.get(name, name)](case)
        if name in library.evidence_names:
            e = library.evidence_names.index(name)
            np.testing.assert_array_equal(np.array(found).T, library.evidence_draws[:, 2, :, 1, e])
        else:
            assert found == []


def test_the_authors_row_compares_means_of_the_norm_over_neurons(library, research):
    rank = compared_rankings.rankings(research)["dcd_authors"]
    case = Case(library=library, column=2, truth="tuned", shots=4)
    other = dataclasses.replace(library, activity=tuple(2.0 + one for one in library.activity))
    (score,) = rank(case)
    np.testing.assert_array_equal(rank(dataclasses.replace(case, library=other))[0], score)
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
    assert compared_rankings.rankings(bare)["dcd_authors"](case) == []


def test_totals_in_own_units_forget_the_logit_scale():
    rng = np.random.default_rng(1)
    target, sources, factor = rng.random(6), rng.random((6, 4)), 10.0 ** rng.uniform(-1, 1, 6)
    plain = compared_rankings.calibrated_total(target, sources)
    np.testing.assert_allclose(compared_rankings.calibrated_total(target * factor, sources * factor[:, None]), plain)
    assert np.isnan(compared_rankings.calibrated_total(target, np.full((6, 4), np.nan))).all()


def test_regression_is_scikit_learns_on_the_known_rows():
    rng = np.random.default_rng(0)
    sources, target = rng.normal(size=(6, 5, 2)), rng.normal(size=(6, 2))
    truth = sources @ [0.3, -0.1] + rng.normal(size=5) + 0.01 * rng.normal(size=(6, 5))
    sources[0, 0] = np.nan
    truth[1, 1] = np.nan
    target[5] = np.nan
    x, y = [], []
    for s in range(5):
        rows = [m for m in range(6) if np.isfinite(sources[m, s]).all() and np.isfinite(truth[m, s])]
        x += [sources[m, s] for m in rows]
        y += [truth[m, s] - np.mean(truth[rows, s]) for m in rows]
    expected = LinearRegression().fit(x, y).predict(target[:5])
    found = compared_rankings.regressed(sources, truth, target)
    np.testing.assert_allclose(found[:5], expected)
    assert np.isnan(found[5])
    assert np.argmax(found[:5]) == np.argmax(target[:5] @ [0.3, -0.1])


def test_too_few_rows_say_nothing():
    assert np.isnan(compared_rankings.regressed(np.zeros((2, 1, 2)), np.zeros((2, 1)), np.zeros((2, 2)))).all()
