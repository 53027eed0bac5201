"""candidate_search.py: the prior leads, what is told changes it."""

import numpy as np
import pytest

from helpers.optuna_world import NAMES, TRUTH, candidates, prior
from vlmsel_auto.integrations.candidate_search import CandidatePrior, CandidateSearch
from vlmsel_auto.records import Basis, Interval, RankedCandidate, Ranking

BEST = "model-c"


def run(search: CandidateSearch, truth: np.ndarray, count: int) -> list[str]:
    asked = []
    for _ in range(count):
        params = search.ask()
        asked.append(params["candidate"])
        search.tell(params, float(truth[NAMES.index(params["candidate"])]))
    return asked


def test_the_predicted_best_comes_first_with_the_settings_of_a_first_trial():
    search = CandidateSearch(prior(settings={"rate": 1e-3}))
    assert search.ask() == {"rate": 1e-3, "candidate": BEST}
    search.tell({"candidate": BEST}, 0.9)
    later = [search.ask() for _ in range(2 * len(NAMES))]
    assert {"candidate": BEST} in later
    firsts = {each["candidate"]: each for each in reversed(later) if each["candidate"] != BEST}
    assert firsts
    assert all(each["rate"] == 1e-3 for each in firsts.values())


def test_a_wrong_prior_is_overcome():
    asked = run(CandidateSearch(prior(-TRUTH)), TRUTH, 12)
    assert asked[0] != BEST
    assert BEST in asked[: len(NAMES)]


def test_other_units_and_minimisation_change_nothing():
    plain = run(CandidateSearch(prior()), TRUTH, 12)
    turned = CandidateSearch(prior(unit=100.0), mode="min")
    assert run(turned, -100 * TRUTH, 12) == plain


def test_an_error_is_an_accuracy_seen_from_above_and_nothing_is_better_than_none():
    perfect = np.where(np.array(NAMES) == BEST, 1.0, 0.6)
    for truth in (TRUTH, perfect):
        unsure = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=2.0)
        accuracy, error = CandidateSearch(unsure), CandidateSearch(unsure, mode="min")
        assert run(error, 1 - truth, 12) == run(accuracy, truth, 12)
        assert error.should_stop()
        assert accuracy.should_stop()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_per_cent_without_its_unit_is_told_once(mode):
    search = CandidateSearch(prior(), mode=mode)
    with pytest.warns(
        UserWarning, match=r"is 90\.0 in a trial of 'model-c', but .* is 1\.0 of it.*100 for per"
    ) as told:
        run(search, 100 * TRUTH, 5)
    assert len(told) == 1
    run(CandidateSearch(prior(unit=100.0), mode=mode), 100 * TRUTH, 5)


def test_trials_at_the_same_time_do_not_all_go_to_one_candidate():
    search = CandidateSearch(prior(np.linspace(0.5, 0.6, len(NAMES)), sd=2.0))
    assert len({search.ask()["candidate"] for _ in range(4)}) > 1


def test_a_first_trial_that_broke_comes_again_and_a_pruned_one_does_not():
    search = CandidateSearch(prior(settings={"rate": 1e-3}))
    search.fail(search.ask())
    assert search.due(NAMES) is not None
    search = CandidateSearch(prior())
    search.tell(search.ask(), None)
    assert search.most_promising([BEST]) == BEST
    assert search.due([BEST]) is None  # tried, though without a value


def test_an_infinite_value_does_not_count():
    search = CandidateSearch(prior())
    before = search.most_promising(NAMES)
    search.tell({"candidate": "model-f"}, float("inf"))
    search.tell({"candidate": "model-f"}, float("nan"))
    assert search.most_promising(NAMES) == before


def test_others_may_choose_every_second_time_once_nothing_better_was_found():
    search = CandidateSearch(prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0))
    search.tell({"candidate": NAMES[0]}, 0.5)
    due = []
    for _ in range(6):
        due.append(search.due(NAMES) is not None)
        search.tell({"candidate": NAMES[0]}, 0.4)
    assert due == [True, True, True, False, True, False]


def test_it_stops_when_nothing_more_is_promised():
    search = CandidateSearch(prior(sd=0.1))
    asked = 0
    while not search.should_stop():
        asked += 1
        params = search.ask()
        search.tell(params, 1.0 if params["candidate"] == BEST else 0.1)
        assert asked < 100
    assert asked > 5


def test_weak_candidates_must_show_more_and_first_trials_less():
    def prunes(name: str, value: float, *, again: bool) -> bool:
        search = CandidateSearch(prior(sd=0.1), handicap=0.05)
        search.should_prune({"candidate": "model-b"}, step=3, value=0.60)
        for _ in range(2 if again else 1):
            search.begin({"candidate": name})
        return search.should_prune({"candidate": name}, step=3, value=value)

    assert not prunes(BEST, 0.61, again=True)
    assert prunes("model-f", 0.61, again=True)  # the handicap
    assert not prunes(BEST, 0.56, again=False)  # slack of a first trial
    assert prunes(BEST, 0.56, again=True)


def test_scores_of_any_unit_make_a_prior():
    first = CandidatePrior.of_scores({"a": 71.0, "b": 80.0, "c": 78.0}, sd=0.5)
    second = CandidatePrior.of_scores({"a": 0.71, "b": 0.80, "c": 0.78}, sd=0.5)
    np.testing.assert_allclose(first.belief.mean, second.belief.mean)
    assert [first.names[place] for place in first.order] == ["b", "c", "a"]
    assert CandidateSearch(first).ask() == {"candidate": "b"}


def test_a_ranking_of_other_candidates_is_refused():
    lines = [
        RankedCandidate(candidate=name, score=1.0, sd=0.5, prior=None, evidence=None, p_best=0.5, p_top5=1.0,
                        rank_interval=Interval(low=1, high=2), basis=Basis.NOTHING)
        for name in ("model-b", "of another run")
    ]  # fmt: skip
    some = CandidatePrior.of(Ranking(task="t", ranked=tuple(lines)), candidates=candidates())
    assert some.names[some.order[0]] == "model-b"
    with pytest.raises(ValueError, match=r"must have some of \('model-a', .*but got one of \('of another run',\)"):
        CandidatePrior.of(Ranking(task="t", ranked=tuple(lines[1:])), candidates=candidates())


def test_refusals():
    search = CandidateSearch(prior())
    with pytest.raises(ValueError, match="'candidate' must be a candidate of the prior, but got 'other'"):
        search.tell({"candidate": "other"}, 0.5)
    with pytest.raises(ValueError, match="a candidate of the prior must be allowed, but got"):
        search.most_promising(["other"])
    with pytest.raises(ValueError, match="handicap must not be negative"):
        CandidateSearch(prior(), handicap=-1.0)
    with pytest.raises(ValueError, match="two candidates or more, but got"):
        CandidatePrior.of_scores({"a": 1.0}, sd=0.5)
    with pytest.raises(ValueError, match="sd must be positive"):
        CandidatePrior.of_scores({"a": 1.0, "b": 2.0}, sd=0.0)
