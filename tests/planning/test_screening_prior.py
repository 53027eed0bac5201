import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.published_world import CANDIDATES, DATASETS, drawn_table
from vlmsel_auto.planning.screening_prior import learn_prior, nothing_published


def test_a_whole_table_is_centred_and_its_covariance_shrunk():
    table = drawn_table()
    found = learn_prior(table)
    z = table - table.mean(axis=0)
    sample = np.cov(z)
    np.testing.assert_allclose(found.scores, z)
    np.testing.assert_allclose(found.mean, z.mean(axis=1))
    np.testing.assert_allclose(np.diag(found.cov), 0.75 * np.diag(sample) + 0.25 * np.diag(sample).mean())
    away = ~np.eye(CANDIDATES, dtype=bool)
    np.testing.assert_allclose(found.cov[away], 0.5 * sample[away])
    assert np.linalg.eigvalsh(found.cov).min() > 0
    assert found.level == pytest.approx(table.mean())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, DATASETS - 1), st.floats(-0.15, 0.15))
def test_a_constant_added_to_one_data_set_moves_no_standing(column: int, constant: float):
    table = 0.2 + 0.6 * drawn_table()
    moved = table.copy()
    moved[:, column] += constant
    plain, other = learn_prior(table), learn_prior(moved)
    np.testing.assert_allclose(other.scores, plain.scores, atol=1e-12)
    np.testing.assert_allclose(other.cov, plain.cov, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.permutations(list(range(CANDIDATES))))
def test_the_order_of_candidates_does_not_matter_with_missing_cells(order: list[int]):
    table = drawn_table()
    table[np.random.default_rng(1).random(table.shape) < 0.3] = np.nan
    plain, moved = learn_prior(table), learn_prior(table[order])
    np.testing.assert_allclose(moved.mean, plain.mean[order], atol=1e-6)
    np.testing.assert_allclose(moved.cov, plain.cov[np.ix_(order, order)], atol=1e-6)


def test_missing_cells_are_filled_better_than_by_averages():
    table = drawn_table()
    hidden = np.random.default_rng(2).random(table.shape) < 0.25
    holes = np.where(hidden, np.nan, table)
    truth = table - table.mean(axis=0)
    filled = learn_prior(holes).scores
    average = np.nanmean(holes - np.nanmean(holes, axis=0), axis=1)[:, None].repeat(DATASETS, axis=1)

    def error(guess):
        return np.sqrt(np.mean((guess - truth)[hidden] ** 2))

    assert error(filled) < 0.75 * error(average)
    assert abs(filled.mean(axis=0)).max() < 1e-9


def test_a_candidate_without_figures_is_an_average_one_of_which_little_is_known():
    table = drawn_table()
    table[3] = np.nan
    found = learn_prior(table)
    assert abs(found.mean[3]) < 0.02
    assert found.cov[3, 3] > 0.4 * np.median(np.diag(found.cov))


def test_data_sets_with_one_figure_are_left_out():
    table = np.column_stack([drawn_table(), np.full(CANDIDATES, np.nan)])
    table[0, -1] = 0.9
    np.testing.assert_allclose(learn_prior(table).scores, learn_prior(drawn_table()).scores)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros(3), r"must be \(M, J\)"),
        (np.zeros((0, 3)), r"must be \(M, J\)"),
        (np.array([[0.5, 1.2], [0.1, 0.2]]), r"must lie in \[0, 1\]"),
        (np.array([[-0.5, 0.2], [0.1, 0.2]]), r"must lie in \[0, 1\]"),
        (np.array([[0.5], [0.2]]), "two data sets"),
        (np.full((3, 3), np.nan), "two data sets"),
    ],
)
def test_what_is_no_table_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        learn_prior(table)


def test_where_nothing_is_published_all_are_alike():
    known = nothing_published(3)
    assert known.mean.tolist() == [0.0, 0.0, 0.0]
    assert np.linalg.eigvalsh(known.cov).min() > 0
    assert len(set(np.diag(known.cov).tolist())) == 1
