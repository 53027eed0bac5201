"""scaling.py: NumPy's moments of what is known."""

import numpy as np

from vlmsel_auto.ranking.scaling import known_mean, standardise, unit_rows


def test_unknown_values_are_average_and_constants_nothing():
    z = standardise(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]]))
    np.testing.assert_allclose(z, [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])


def test_the_mean_is_that_of_known_values_with_its_axis_kept():
    values = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(known_mean(values, axis=1), [[1.5], [0.0]])
    np.testing.assert_allclose(known_mean(values, axis=0), [[1.0, 0.0, 2.0]])


def test_rows_have_unit_length_unless_they_are_zero():
    np.testing.assert_allclose(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])
