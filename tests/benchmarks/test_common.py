"""benchmarks/common.py: p-values that are adjusted for the number of rows."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def paired(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("common")


def test_one_row_is_tested_as_scipy_tests_it(paired: ModuleType) -> None:
    gaps = np.random.default_rng(0).normal(0.4, 1.0, 16)
    oracle = stats.permutation_test(
        (gaps,), np.mean, permutation_type="samples", alternative="greater", n_resamples=100_000
    )
    assert paired.adjusted_p(gaps[None])[0] == pytest.approx(oracle.pvalue, abs=0.01)


def test_rows_that_say_the_same_count_once_and_others_cost(paired: ModuleType) -> None:
    rng = np.random.default_rng(1)
    first, noise = rng.normal(0.6, 1.0, 16), rng.normal(0.0, 1.0, (20, 16))
    alone = paired.adjusted_p(first[None])[0]
    assert paired.adjusted_p(np.stack([first, 3.0 * first]))[0] == pytest.approx(alone)
    among = paired.adjusted_p(np.concatenate([first[None], noise]))[0]
    assert alone < among < 21 * alone + 0.05


def test_a_row_without_spread_is_no_finding(paired: ModuleType) -> None:
    clear = np.random.default_rng(2).normal(5.0, 1.0, 16)
    assert paired.adjusted_p(np.stack([np.zeros(16), clear])).tolist() == [1.0, pytest.approx(0.0, abs=0.001)]
