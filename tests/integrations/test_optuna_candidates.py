"""optuna_candidates.py: candidates as values of a parameter, and the first trials of a study."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from helpers.optuna_world import NAMES, prior
from vlmsel_auto.integrations.optuna_candidates import allowed_names, enqueue, value_of
from vlmsel_auto.integrations.optuna_prior import PriorSampler


def test_a_queue_says_what_its_indices_mean() -> None:
    study = optuna.create_study()
    enqueue(study, prior(), count=1)
    assert study.user_attrs == {"vlmsel:candidates": list(NAMES)}


@pytest.mark.parametrize("by_name", [False, True])
def test_a_queue_of_indices_where_names_are_suggested_is_told(by_name: bool) -> None:  # noqa: FBT001 - a parameter
    def other(trial: optuna.Trial) -> float:
        return trial.suggest_int("candidate", 0, 7) if by_name else len(trial.suggest_categorical("candidate", NAMES))

    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior(), RandomSampler(seed=0)))
    enqueue(study, prior(), count=1, by_name=by_name)
    wanted = r"Trial 0 was queued for 'model-c' and failed .* names .* need enqueue\(..., by_name=True\)"
    with pytest.warns(UserWarning, match=wanted), pytest.raises(ValueError, match=r"model-c|2"):
        study.optimize(other, n_trials=1)


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
