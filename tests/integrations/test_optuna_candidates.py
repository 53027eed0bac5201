"""optuna_candidates.py: candidates as values of a parameter."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from helpers.optuna_world import prior
from vlmsel_auto.integrations.optuna_candidates import allowed_names, value_of


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
