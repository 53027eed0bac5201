"""optuna_trials.py: a study's trials as a search sees them."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from helpers.optuna_world import NAMES, prior
from vlmsel_auto.integrations.optuna_trials import (
    allowed_names,
    holds,
    kinds_of,
    mode_of,
    search_of,
    value_in,
    value_of,
)


def test_the_mode_is_that_of_the_first_objective():
    assert mode_of(optuna.create_study(direction="maximize")) == "max"
    assert mode_of(optuna.create_study(directions=["minimize", "maximize"])) == "min"


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


def test_a_search_is_told_what_the_study_has():
    study = optuna.create_study(direction="maximize")
    for index, value in ((2, 0.2), (0, 0.9)):
        study.enqueue_trial({"candidate": index})
        trial = study.ask()
        trial.suggest_int("candidate", 0, len(NAMES) - 1)
        study.tell(trial, value)
    study.enqueue_trial({"candidate": 5})  # waits: nobody has begun it
    search = search_of(study, prior())
    assert search.due(["model-a"]) is None
    assert search.due(["model-c"]) is None
    assert search.due(["model-f"]) == "model-f"


def test_the_latest_kind_of_a_parameter_counts():
    study = optuna.create_study()
    for high in (3, 5):
        trial = study.ask()
        trial.suggest_int("candidate", 0, high)
        if high == 3:
            trial.suggest_float("rate", 0, 1)
    assert kinds_of(study, {"candidate", "rate", "other"}) == {
        "candidate": IntDistribution(0, 5),
        "rate": FloatDistribution(0, 1),
    }


def test_the_trial_that_is_sampled_is_not_among_the_others():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.suggest_int("candidate", 2, 3)
    assert not all(search_of(study, prior()).is_new(name) for name in NAMES)
    assert all(search_of(study, prior(), but=study.trials[0]).is_new(name) for name in NAMES)


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


def test_candidates_are_indices_or_names():
    belief, study = prior(), optuna.create_study()
    names = CategoricalDistribution(["model-b", "x", "model-a"])
    assert allowed_names(study, belief, names) == ["model-b", "model-a"]
    assert value_of(belief, "model-b", names) == "model-b"
    indices = IntDistribution(1, 19, step=2)
    assert allowed_names(study, belief, indices) == ["model-b", "model-d", "model-f", "model-h"]
    assert value_of(belief, "model-b", indices) == 1
    with pytest.raises(ValueError, match="integer index or categorical names"):
        allowed_names(study, belief, FloatDistribution(0, 1))
