"""optuna_sampler.py: what is proposed is set, the wrapped sampler does the rest."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import GridSampler, RandomSampler, TPESampler

from vlmsel_auto.integrations.optuna_sampler import ProposingSampler, begun_trials, holds, minimises, value_in


class Proposing(ProposingSampler):
    def __init__(self, sampler, *, seed=None, **mine):
        super().__init__(sampler, seed=seed)
        self.mine = mine

    def proposal(self, study, trial, kinds):
        return self.mine


def draws(sampler: optuna.samplers.BaseSampler) -> list[float]:
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) - trial.suggest_float("y", 0, 1), n_trials=15)
    return [value for trial in study.trials for value in trial.params.values()]


def test_a_wrapped_sampler_draws_as_it_does_alone() -> None:
    assert draws(Proposing(RandomSampler(seed=3))) == draws(RandomSampler(seed=3))
    assert draws(Proposing(None, seed=4)) == draws(TPESampler(seed=4))
    relative = TPESampler(seed=5, multivariate=True)
    assert draws(Proposing(relative)) == draws(TPESampler(seed=5, multivariate=True))


@pytest.mark.parametrize("sampler", [RandomSampler(seed=3), TPESampler(seed=5, multivariate=True, n_startup_trials=0)])
def test_what_is_proposed_is_set(sampler: optuna.samplers.BaseSampler) -> None:
    found = draws(Proposing(sampler, x=0.25))
    assert set(found[::2]) == {0.25}
    assert len(set(found[1::2])) == 15


def test_a_grid_is_refused_and_told_what_to_take() -> None:
    with pytest.raises(ValueError, match=r"BruteForceSampler, which tries every .*, but got GridSampler"):
        Proposing(GridSampler({"x": [0, 1]}))


def test_the_direction_is_that_of_the_first_objective():
    assert not minimises(optuna.create_study(direction="maximize"))
    assert minimises(optuna.create_study(directions=["minimize", "maximize"]))


def test_a_value_counts_when_the_trial_ended_within_its_constraints():
    study = optuna.create_study()
    for bound in (-1.0, 1.0, None):
        trial = study.ask()
        if bound is not None:
            trial.set_constraint("memory", bound)
        study.tell(trial, 0.5)
    study.tell(study.ask(), state=optuna.trial.TrialState.PRUNED)
    study.ask()
    assert [value_in(each) for each in study.trials] == [0.5, None, 0.5, None, None]


def test_trials_that_wait_are_not_begun():
    study = optuna.create_study()
    first, second = study.ask(), study.ask()
    study.tell(first, 0.5)
    study.enqueue_trial({"x": 5})
    assert [each.number for each in begun_trials(study, but=study.trials[second.number])] == [first.number]


def test_a_parameter_holds_choices_and_numbers_on_its_grid():
    assert holds(CategoricalDistribution(["a", 1.0]), "a")
    assert not holds(CategoricalDistribution(["a", 1.0]), "b")
    assert holds(IntDistribution(1, 9, step=2), 3.0)
    assert not holds(IntDistribution(1, 9, step=2), 4)
    assert not holds(IntDistribution(1, 9), 2.5)
    assert not holds(IntDistribution(1, 9), 10)
    assert not holds(IntDistribution(1, 9), "3")
    assert holds(FloatDistribution(0.1, 0.7, step=0.2), 0.3)
    assert not holds(FloatDistribution(0.1, 0.7, step=0.2), 0.2)
    assert holds(FloatDistribution(1e-4, 1e-1, log=True), 1e-3)
