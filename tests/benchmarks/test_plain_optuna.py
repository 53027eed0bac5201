"""The arithmetic of benchmarks/search/plain_optuna.py; its runs train for minutes."""

from benchmarks.search.plain_optuna import incumbents, value_at


def test_incumbents_are_chosen_by_validation() -> None:
    trials = [(1.0, 0.5, 0.6), (2.0, 0.4, 0.9), (3.0, 0.7, 0.5), (4.0, 0.7, 0.8)]
    assert incumbents(trials) == [trials[0], trials[2]]
    assert incumbents([]) == []


def test_value_of_the_last_incumbent() -> None:
    curve = [(10.0, 0.5, 0.6), (40.0, 0.7, 0.8)]
    assert [value_at(curve, seconds) for seconds in (9.0, 10.0, 39.0, 90.0)] == [0.0, 0.6, 0.6, 0.8]
