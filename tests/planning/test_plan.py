import pytest

from helpers.planning_world import CANDIDATES, SCORES, N, plan, ranking
from vlmsel_auto.planning.plan import make_plan
from vlmsel_auto.tuning.methods import FINETUNE, PROBE


def test_a_plan_orders_and_postpones() -> None:
    made = plan(top_k=3)
    assert made.order == tuple(f"m{number}" for number in range(N))
    assert made.active == ("m0", "m1", "m2")
    assert made.rank("m2") == 3


def test_unranked_candidates_come_last() -> None:
    made = make_plan(ranking(SCORES[:4]), candidates=CANDIDATES[:5], methods=(PROBE, FINETUNE), top_k=2)
    assert made.order[-1] == "m4"
    some = make_plan(ranking(SCORES), candidates=[CANDIDATES[m] for m in (0, 1, 7)], methods=(PROBE, FINETUNE))
    assert some.costs == {"m0": 0.5, "m1": 1.0, "m7": 4.0}  # operations against the median candidate's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"methods": ()}, "a plan needs a method .* but got"), ({"top_k": 0}, "a top_k of 1 or more, but got .*top_k=0")],
)
def test_plan_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**arguments)


def test_candidates_that_were_not_loaded_yet_wait() -> None:
    loading = {"m0": 90.0, **{f"m{number}": 30.0 for number in range(6, N)}}
    made = plan(loading=loading)
    assert made.order == tuple(f"m{number}" for number in range(N))  # the prediction stays what it is
    assert made.active == ("m1", "m2", "m3")
    none = plan(loading={one.id: 30.0 for one in CANDIDATES})
    assert none.active == ("m0", "m1", "m2")  # somebody has to be loaded
