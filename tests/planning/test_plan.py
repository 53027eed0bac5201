import pytest

from helpers.planning_world import CANDIDATES, SCORES, N, plan, ranking
from vlmsel_auto.planning.plan import handicap, make_plan
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

BOTH = (PROBE, FINETUNE)


def test_plan_orders_postpones_and_audits() -> None:
    made = plan(top_k=3, audits=2)
    assert made.order == tuple(f"m{number}" for number in range(N))
    assert made.active == ("m0", "m1", "m2")
    assert len(made.audits) == 2
    assert not set(made.audits) & set(made.active)
    assert sum(line.probability_best for line in made.lines) == pytest.approx(1)
    assert make_plan(ranking(SCORES), candidates=CANDIDATES, methods=BOTH, top_k=3, audits=2).audits == made.audits


def test_probabilities_decide_how_many_stay_active() -> None:
    sure, unsure = plan(top_k=None, sd=0.05), plan(top_k=None, sd=3.0)
    assert len(sure.active) == 3
    assert len(unsure.active) > 5


def test_unranked_candidates_come_last_and_keep_a_chance() -> None:
    made = make_plan(ranking(SCORES[:4]), candidates=CANDIDATES[:5], methods=BOTH, top_k=2, audits=0)
    assert made.order[-1] == "m4"
    assert made.lines[-1].probability_best > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ()}, "a plan needs a method, but got"),
        ({"top_k": 0}, "at least 1 .* got top_k=0"),
        ({"audits": -1}, "audits at least 0"),
    ],
)
def test_plan_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(ranking(SCORES), candidates=CANDIDATES, **{"methods": BOTH, **arguments})


def test_candidates_that_were_not_loaded_yet_wait_and_are_no_audits() -> None:
    loading = {"m0": 90.0, **{f"m{number}": 30.0 for number in range(6, N)}}
    made = make_plan(ranking(SCORES), candidates=CANDIDATES, methods=BOTH, top_k=3, audits=3, loading=loading)
    assert made.order == tuple(f"m{number}" for number in range(N))  # the prediction stays what it is
    assert made.active == ("m1", "m2", "m3")
    assert set(made.audits) == {"m4", "m5"}
    none = make_plan(
        ranking(SCORES), candidates=CANDIDATES, methods=BOTH, top_k=3, loading={one.id: 30.0 for one in CANDIDATES}
    )
    assert none.active == ("m0", "m1", "m2")  # somebody has to be loaded


def test_handicap_grows_with_doubt() -> None:
    made = plan()
    values = [handicap(made, f"m{number}") for number in range(N)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] <= 0.02
