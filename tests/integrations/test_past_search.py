"""past_search.py: every setting of the table once, the most promising first."""

import numpy as np
import pytest

from vlmsel_auto.integrations._arms import posterior_arms
from vlmsel_auto.integrations.past_search import PastRow, PastSearch, PastTable

MODELS, RATES = ("a", "b", "c"), (0.01, 0.1)


def truth(params) -> float:
    return 0.6 + 0.05 * MODELS.index(params["model"]) - 0.03 * abs(np.log10(params["rate"]) + 2)


def table() -> PastTable:
    rng = np.random.default_rng(0)
    rows = [
        PastRow(task=f"t{task}", params=params, value=truth(params) + 0.01 * rng.standard_normal())
        for task in range(5)
        for params in ({"model": model, "rate": rate} for model in MODELS for rate in RATES)
    ]
    return PastTable.of(rows, candidate="model")


@pytest.mark.parametrize("sign", [1, -1])
def test_it_asks_as_the_arms_do_and_ends_when_all_were_tried(sign):
    past = table()
    search = PastSearch(past, mode="max" if sign > 0 else "min")
    tried, values = [], []
    while (params := search.ask()) is not None:
        arm = past.index(params)
        gain = posterior_arms(past.belief, tried=tried, values=values).gain
        assert arm == max(set(range(6)) - set(tried), key=lambda each: gain[each])
        tried.append(arm)
        values.append(truth(params))
        search.tell(params, sign * values[-1])
    assert sorted(tried) == list(range(6))
    assert search.should_stop()
    assert past.params(tried[0]) == {"model": "c", "rate": 0.01}


def test_settings_that_others_try_broke_or_were_pruned_are_not_asked_again():
    search = PastSearch(table())
    search.begin({"model": "c", "rate": 0.01})
    search.fail({"model": "c", "rate": 0.1})
    search.tell({"model": "b", "rate": 0.01}, None)
    search.tell({"model": "b", "rate": 0.5}, 0.9)  # none of the table's
    left = [search.ask() for _ in range(4)]
    assert left[-1] is None
    assert {(each["model"], each["rate"]) for each in left[:-1]} == {("b", 0.1), ("a", 0.01), ("a", 0.1)}


def test_proposals_keep_to_what_is_given_and_allowed():
    search = PastSearch(table())
    assert search.propose({"model": "a", "other": 1}) == {"model": "a", "rate": 0.01}
    assert search.propose({"model": "a"}, allows=lambda params: params["rate"] > 0.05) == {"model": "a", "rate": 0.1}
    assert search.propose({"model": "z"}) is None


def test_the_worse_half_is_pruned():
    search = PastSearch(table(), mode="min")
    values = (0.5, 0.6, 0.4)
    assert [search.should_prune({}, step=1, value=value) for value in values] == [False, True, False]
