"""_wrapped.py: what a sampler does not do itself, the wrapped one does."""

import optuna
import pytest
from optuna.samplers import GridSampler, RandomSampler, TPESampler

from vlmsel_auto.integrations._wrapped import WrappingSampler


def draws(sampler: optuna.samplers.BaseSampler) -> list[float]:
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) - trial.suggest_float("y", 0, 1), n_trials=15)
    return [value for trial in study.trials for value in trial.params.values()]


def test_a_wrapped_sampler_draws_as_it_does_alone() -> None:
    assert draws(WrappingSampler(RandomSampler(seed=3), seed=None)) == draws(RandomSampler(seed=3))
    assert draws(WrappingSampler(None, seed=4)) == draws(TPESampler(seed=4))
    relative = TPESampler(seed=5, multivariate=True)
    assert draws(WrappingSampler(relative, seed=None)) == draws(TPESampler(seed=5, multivariate=True))


def test_a_grid_is_refused_and_told_what_to_take() -> None:
    with pytest.raises(ValueError, match=r"BruteForceSampler, which tries every .*, but got GridSampler"):
        WrappingSampler(GridSampler({"x": [0, 1]}), seed=None)
