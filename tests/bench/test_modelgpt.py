"""modelgpt.py: scikit-learn's regression on what is known."""

import numpy as np
from sklearn.linear_model import LinearRegression

from vlmsel_auto.bench.modelgpt import regressed


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
    found = regressed(sources, truth, target)
    np.testing.assert_allclose(found[:5], expected)
    assert np.isnan(found[5])
    assert np.argmax(found[:5]) == np.argmax(target[:5] @ [0.3, -0.1])


def test_too_few_rows_say_nothing():
    assert np.isnan(regressed(np.zeros((2, 1, 2)), np.zeros((2, 1)), np.zeros((2, 2)))).all()
