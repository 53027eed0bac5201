"""What accuracy is weighed against: the form of it, and that looks, plan, trials and rungs follow it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.planning_world import CANDIDATES, plan, tried
from helpers.published_world import CANDIDATES as MODELS
from helpers.published_world import drawn_table
from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.next_screening import next_screening, screening_values
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.objective import ACCURACY, Cost, Objective, filled, read_objective, summed
from vlmsel_auto.planning.running_trials import goes_on_at
from vlmsel_auto.planning.screening_posterior import Screening
from vlmsel_auto.planning.screening_prior import learn_prior
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import Left
from vlmsel_auto.records import TrialOrigin

points = st.floats(0, 100).map(lambda value: round(value, 3))


@given(latency=points, params=points, memory=points)
def test_an_objective_reads_what_it_says(latency, params, memory):
    objective = Objective(latency=latency, params=params, memory=memory)
    assert read_objective(str(objective)) == objective
    assert bool(objective) == any((latency, params, memory))


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("accuracy", ACCURACY),
        ("Latency = 1, params=.5", Objective(latency=1, params=0.5)),
        ("memory=2.", Objective(memory=2)),
    ],
)
def test_objectives_that_people_type(text, objective):
    assert read_objective(text) == objective


@pytest.mark.parametrize(
    "text", ["", "latency", "latency=", "latency=-1", "speed=1", "latency=1,latency=2", "latency=1,,", "accuracy=1"]
)
def test_what_is_no_objective_is_refused_with_the_form_that_is(text):
    with pytest.raises(InputError, match=r"like latency=1,params=\.5, but got"):
        read_objective(text)


def test_points_have_a_range():
    for value in (-1.0, 101.0, float("nan")):
        with pytest.raises(InputError, match="half a cost is worth 0 to 100 points"):
            Objective(latency=value)


def test_half_of_a_cost_is_worth_its_points_wherever_it_is():
    objective = Objective(latency=2, params=1)
    for slow in (0.005, 0.05, 0.5):
        less = objective.charge(Cost(latency=slow, params=1e8)) - objective.charge(Cost(latency=slow / 2, params=1e8))
        assert less == pytest.approx(0.02)
    assert objective.charge(Cost(latency=0.01, params=1e8, memory=1e12)) == pytest.approx(0.0)  # the references
    assert objective.charge(Cost(latency=0.02, params=4e8)) == pytest.approx(0.02 + 0.02)
    assert objective.charge(Cost()) == 0.0


def test_unknown_figures_are_taken_from_the_middle_and_models_add_up():
    costs = filled([Cost(latency=0.01), Cost(latency=None, params=5.0), Cost(latency=0.03), Cost(latency=0.5)])
    assert [each.latency for each in costs] == [0.01, 0.03, 0.03, 0.5]
    assert [each.params for each in costs] == [5.0] * 4
    assert {each.memory for each in costs} == {None}
    both = summed([Cost(latency=0.25, params=1.0), Cost(latency=0.5, params=None)])
    assert (both.latency, both.params, both.memory) == (0.75, None, None)


def test_a_plan_orders_by_what_the_objective_leaves():
    made = plan(charges={"m0": 0.3, "m1": 0.01})
    assert made.order[-1] == "m0"
    assert made.active == ("m1", "m2", "m3")
    assert made.belief.mean.tolist() == plan().belief.mean.tolist()  # accuracies are believed as before


def test_the_winner_is_who_is_worth_most():
    history = [tried("m0", 0.80, number=0), tried("m1", 0.78, number=1), tried("m2", 0.70, number=2)]
    plain, made = (TrialEvidence(plan(charges=charges), history).expectations() for charges in ({}, {"m0": 0.05}))
    assert max(plain, key=plain.__getitem__) == 0
    assert max(made, key=made.__getitem__) == 1
    assert made[0] == pytest.approx(plain[0] - 0.05)


def test_a_charged_candidate_must_promise_more():
    truth = {each.id: 0.8 - 0.01 * place for place, each in enumerate(CANDIDATES)}

    def tuned(charges: dict[str, float]) -> list[str]:
        made, history = plan(charges=charges, top_k=8), []
        for _ in range(14):
            step = next_trial(made, history, left=Left(trials=30 - len(history)))
            if step is None:
                break
            history.append(tried(step.candidate, truth[step.candidate], step.method, point=step.point or {}))
        return [each.candidate for each in history if each.method == "finetune"]

    assert "m0" in tuned({})
    assert "m0" not in tuned({"m0": 0.3})


def test_rungs_are_of_what_the_objective_leaves():
    free = plan()
    peers = [tried("m1", 0.8, curve=Curve(values=(0.8,) * 4, epochs=4))]
    trial = NextTrial(candidate="m0", method="finetune", point=None, origin=TrialOrigin.SAMPLED, why="")
    assert goes_on_at(free, peers, trial, rung=2, validation=0.85)
    assert not goes_on_at(replace(free, charges={"m0": 0.1}), peers, trial, rung=2, validation=0.85)
    assert goes_on_at(replace(free, charges={"m0": 0.1, "m1": 0.1}), peers, trial, rung=2, validation=0.85)


def test_looks_go_to_whom_the_objective_leaves_most():
    known = learn_prior(drawn_table())
    first = next_screening(known, [])
    assert first is not None
    off = np.zeros(MODELS)
    off[first] = 0.4
    other = next_screening(known, [], charges=off)
    assert other not in (first, None)
    screenings = [Screening(candidate=other, accuracy=0.6, sd=0.03)]
    for made in ([], screenings):  # the portfolio's turn and that of expected improvement
        assert screening_values(known, made, charges=off)[first] < screening_values(known, made)[first]
        same = screening_values(known, made, charges=np.full(MODELS, 0.1))
        np.testing.assert_allclose(same, screening_values(known, made), atol=1e-12)  # only differences count
