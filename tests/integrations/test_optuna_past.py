"""optuna_past.py: a table of past trials in a user's own study."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from vlmsel_auto.integrations._arms import posterior_arms
from vlmsel_auto.integrations.optuna_past import PastRow, PastSampler, PastTable

MODELS, RATES = ("a", "b", "c", "d"), (0.001, 0.01, 0.1)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def truth(model: str, rate: float) -> float:
    return 0.6 + 0.05 * MODELS.index(model) - 0.03 * abs(np.log10(rate) + 2)


def table(tasks: int = 6, sign: float = 1.0) -> PastTable:
    rng = np.random.default_rng(0)
    rows = [
        PastRow(
            task=f"t{task}",
            params={"model": model, "rate": rate},
            value=sign * (truth(model, rate) + 0.01 * rng.standard_normal()),
        )
        for task in range(tasks)
        for model in MODELS
        for rate in RATES
    ]
    return PastTable.of(rows, candidate="model")


def best_untried(past: PastTable, values: dict[int, float | None]) -> int:
    """The setting of the largest gain after trials with these values; None: it does not count."""
    told = {arm: value for arm, value in values.items() if value is not None}
    gain = posterior_arms(past.belief, tried=list(told), values=list(told.values())).gain
    return max(set(range(len(past.arms))) - set(values), key=lambda arm: gain[arm])


def objective(trial: optuna.Trial) -> float:
    model = trial.suggest_categorical("model", MODELS)
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    decay = trial.suggest_float("decay", 0.0, 0.1)
    return truth(model, rate) - 0.01 * decay


class TestContract(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PastSampler(table(), RandomSampler(seed=0))


class TestMultiObjectiveContract(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PastSampler(table(), RandomSampler(seed=0))


class TestRelativeContract(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PastSampler(table(), TPESampler(multivariate=True, n_startup_trials=0, seed=0))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_study_tries_each_setting_once_by_its_gain(sign: int) -> None:
    past = table()
    direction = "maximize" if sign > 0 else "minimize"
    study = optuna.create_study(direction=direction, sampler=PastSampler(past, seed=0))
    study.optimize(lambda trial: sign * objective(trial), n_trials=12)
    values: dict[int, float | None] = {}
    for trial in study.trials:
        arm = past.index(trial.params)
        assert arm == best_untried(past, values)
        values[arm] = sign * trial.value
    assert study.trials[0].params["model"] == "d"
    assert study.trials[0].params["rate"] == 0.01
    study.optimize(lambda trial: sign * objective(trial), n_trials=3)  # the table is used up
    assert all(past.index(trial.params) is None for trial in study.trials[12:])


def test_minimisation_resume_and_a_narrower_space(tmp_path: Path) -> None:
    def smaller(trial: optuna.Trial) -> float:
        model = trial.suggest_categorical("model", MODELS[:3])  # d is not offered
        return -truth(model, trial.suggest_float("rate", 0.005, 1.0))

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    for _ in range(2):
        study = optuna.create_study(
            storage=storage, study_name="s", load_if_exists=True, sampler=PastSampler(table(), seed=0)
        )
        study.optimize(smaller, n_trials=2)
    chosen = [(trial.params["model"], trial.params["rate"]) for trial in study.trials]
    assert chosen[0] == ("c", 0.01)
    assert len(set(chosen)) == 4


def test_two_workers_do_not_try_the_same() -> None:
    study = optuna.create_study(direction="maximize", sampler=PastSampler(table(), seed=0))
    first, second = study.ask(), study.ask()
    objective(first)
    objective(second)
    first_arm, second_arm = (table().index(each.params) for each in (first, second))
    assert first_arm is not None
    assert first_arm != second_arm


def test_settings_that_the_space_does_not_have_are_passed_over() -> None:
    rows = [
        PastRow(task=f"t{task}", params={"model": model, "depth": depth}, value=(model == "a") - depth / 100)
        for task in range(3)
        for model in ("a", "b")
        for depth in (2.5, 3.0, 5.0, 8.0)  # 2.5 is no integer, and 8 not one of 1, 3, 5
    ]

    def deep(trial: optuna.Trial) -> float:
        return trial.suggest_int("depth", 1, 5, step=2) / 10 + (trial.suggest_categorical("model", ["a", "b"]) == "b")

    wrapped = TPESampler(multivariate=True, n_startup_trials=2, seed=0)
    sampler = PastSampler(PastTable.of(rows, candidate="model"), wrapped)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(deep, n_trials=4)
    assert {(each.params["model"], each.params["depth"]) for each in study.trials} == {
        (model, depth) for model in ("a", "b") for depth in (3, 5)
    }
    trial = study.ask()
    deep(trial)
    assert set(trial.relative_params) == {"model", "depth"}  # nothing else fits: all is the wrapped sampler's


def test_a_trial_that_broke_a_constraint_is_not_taken_for_good() -> None:
    past = table()

    def bounded(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.set_constraint("memory", 1.0 if trial.number == 0 else -1.0)
        return 10.0 if trial.number == 0 else value

    study = optuna.create_study(direction="maximize", sampler=PastSampler(past, seed=0))
    study.optimize(bounded, n_trials=4)
    values: dict[int, float | None] = {}
    for trial in study.trials:
        assert past.index(trial.params) == best_untried(past, values)
        values[past.index(trial.params)] = None if trial.number == 0 else trial.value


def test_refusals() -> None:
    row = PastRow(task="t", params={"model": "a"}, value=0.5)
    with pytest.raises(ValueError, match="the same parameters"):
        PastTable.of([], candidate="model")
    with pytest.raises(ValueError, match="'arch' among them"):
        PastTable.of([row], candidate="arch")
    with pytest.raises(ValueError, match="two known arms"):
        PastTable.of([row], candidate="model")
    for value in (float("nan"), None):  # None: a trial of Optuna that was pruned
        with pytest.raises(ValueError, match="values must be finite"):
            PastTable.of([PastRow(task="t", params={"model": "a"}, value=value)], candidate="model")
