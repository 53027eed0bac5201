import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BarycentricInterpolator

from vlmsel_auto.conductance.quadrature import (
    Rule,
    chebyshev_points,
    differentiation_matrix,
    grade,
    lagrange_mass,
    left_matrix,
    make_rule,
    stretch,
    trapezoid_matrix,
)
from vlmsel_auto.errors import ConductanceError


def test_chebyshev_points_are_those_of_numpy():
    expected = (1 + np.polynomial.chebyshev.chebpts2(13)) / 2
    np.testing.assert_allclose(chebyshev_points(12), expected, atol=1e-15)


@given(st.integers(1, 48))
def test_points_of_twice_as_many_intervals_hold_the_coarser_ones_exactly(intervals):
    np.testing.assert_array_equal(chebyshev_points(2 * intervals)[::2], chebyshev_points(intervals))
    for kind in ("spectral", "trapezoid", "left"):
        rule = make_rule(kind, 2 * intervals)
        coarser = rule.coarser()
        np.testing.assert_allclose(coarser.points, rule.points[::2], atol=1e-15)
        assert (rule.points[0], rule.points[-1]) == (0.0, 1.0)


def test_differentiation_matrix_is_that_of_scipy_and_kills_constants():
    points = np.sort(np.random.default_rng(0).uniform(size=9))
    matrix = differentiation_matrix(points)
    for column, unit in enumerate(np.eye(9)):
        expected = BarycentricInterpolator(points, unit).derivative(points)
        np.testing.assert_allclose(matrix[:, column], expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(matrix.sum(axis=1), 0.0, atol=1e-10)


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_the_mass_matrix_integrates_products_of_polynomials_exactly(intervals, seed):
    points = chebyshev_points(intervals)
    rng = np.random.default_rng(seed)
    p, q = (np.polynomial.Legendre(rng.normal(size=intervals + 1), domain=[0, 1]) for _ in range(2))
    at, weights = np.polynomial.legendre.leggauss(intervals + 4)
    at = (at + 1) / 2
    exact = weights / 2 @ (p(at) * q(at))
    mass = lagrange_mass(points)
    assert p(points) @ mass @ q(points) == pytest.approx(exact, rel=1e-9, abs=1e-10)
    np.testing.assert_allclose(mass, mass.T, atol=1e-14)
    assert mass.sum() == pytest.approx(1, rel=1e-12)


def test_stretching_keeps_the_ends_and_crowds_the_baseline():
    t = chebyshev_points(8)
    alpha = stretch(t)
    assert (alpha[0], alpha[-1]) == (0.0, 1.0)
    assert (np.diff(alpha) > 0).all()
    assert (alpha[1:-1] < t[1:-1]).all()
    np.testing.assert_array_equal(make_rule("spectral", 8).points, alpha)


def test_grading_is_quadratic_at_the_baseline_and_near_even_elsewhere():
    t = np.linspace(0.0, 1.0, 65)
    alpha = grade(t)
    assert (alpha[0], alpha[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(alpha[1] / t[1] ** 2, 3.0, rtol=0.05)
    assert (np.diff(alpha, n=2) > 0).all()  # ever wider
    widths = np.diff(alpha) / np.diff(t)
    assert widths[32:].min() > 1.1
    assert widths.max() < 4 / 3
    np.testing.assert_array_equal(make_rule("trapezoid", 64).points, alpha)


def test_the_graded_trapezoid_keeps_its_order_where_the_path_is_steep_at_the_baseline():
    def errors(points):  # integral of exp(-100 alpha)
        each = [(points(n), trapezoid_matrix(n + 1)) for n in (64, 128)]
        return [abs(np.exp(-100 * at) @ matrix @ at - 0.01) for at, matrix in each]

    even = errors(lambda n: np.linspace(0.0, 1.0, n + 1))
    graded = errors(lambda n: make_rule("trapezoid", n).points)
    assert graded[0] < even[0] / 10
    assert graded[0] / graded[1] == pytest.approx(4, rel=0.1)


@given(st.integers(2, 16), st.integers(0, 10**6))
def test_the_spectral_rule_is_exact_for_polynomials_of_the_stretched_path(intervals, seed):
    rule, t = make_rule("spectral", intervals), chebyshev_points(intervals)
    rng = np.random.default_rng(seed)
    g, h = (np.polynomial.Legendre(rng.normal(size=intervals + 1), domain=[0, 1]) for _ in range(2))
    at, weights = np.polynomial.legendre.leggauss(intervals + 4)
    at = (at + 1) / 2
    exact = weights / 2 @ (g(at) * h.deriv()(at))
    assert g(t) @ rule.matrix @ h(t) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_matrices_spell_out_their_sums():
    rng = np.random.default_rng(2)
    g, h = rng.normal(size=(2, 6))
    np.testing.assert_allclose(g @ trapezoid_matrix(6) @ h, sum((g[1:] + g[:-1]) / 2 * np.diff(h)))
    np.testing.assert_allclose(g @ left_matrix(6) @ h, sum(g[:-1] * np.diff(h)))


def test_own_points_and_odd_intervals_have_no_coarser_rule():
    assert make_rule("trapezoid", 5).coarser() is None
    assert Rule(kind="left", points=np.array([0.0, 0.3, 1.0]), matrix=left_matrix(3)).coarser() is None


def test_no_interval_is_refused():
    with pytest.raises(ConductanceError, match=r"at least one interval.*got intervals=0"):
        make_rule("spectral", 0)
