"""The arithmetic of benchmarks/search/live_search.py; its runs train for minutes."""

from benchmarks.search import live_search, live_search_runs


def test_incumbents_are_chosen_by_validation() -> None:
    trials = [(1.0, 0.5, 0.6), (2.0, 0.4, 0.9), (3.0, 0.7, 0.5), (4.0, 0.7, 0.8)]
    incumbents = live_search_runs.incumbents
    assert incumbents(trials) == [trials[0], trials[2]]
    assert incumbents([]) == []


def test_how_soon() -> None:
    curve = [(10.0, 0.5, 0.6), (40.0, 0.7, 0.8)]
    assert live_search.reached(curve, 0.6) == 10.0
    assert live_search.reached(curve, 0.7) == 40.0
    assert live_search.reached(curve, 0.9) is None


def test_summary_pairs_runs() -> None:
    def record(strategy: str, target: str, curve: list[list[float]]) -> dict[str, object]:
        return {
            "strategy": strategy, "target": target, "seed": 0, "budget": 100.0, "curve": curve, "trials": 3,
            "overhead": 0.01, "seconds": 99.0,
        }  # fmt: skip

    found = live_search.summary(
        [
            record("ours", "a", [[20.0, 0.5, 0.7]]),
            record("optuna", "a", [[50.0, 0.5, 0.6], [90.0, 0.6, 0.7]]),
            record("ours", "b", [[20.0, 0.5, 0.7]]),
            record("optuna", "b", [[50.0, 0.5, 0.8]]),
            record("ours", "c", [[20.0, 0.5, 0.7]]),
        ]
    )
    assert [row["share"] for row in found["runs"]] == [0.2, None]
    assert (found["ours"], found["optuna"], found["not_worse"]) == (0.7, 0.75, 1)
    assert found["median_share"] == 1.0  # never counts as the whole budget
    assert found["mean_by_share"]["share"][3] == 0.2
    assert found["mean_by_share"]["ours"][2:4] == [0.0, 0.7]
    assert found["mean_by_share"]["optuna"][8:10] == [0.0, 0.7]
    assert found["share_of_means"] is None
