"""candidate_prior.py: the prior leads, what trials reach changes it."""

import numpy as np
import pytest

from helpers.optuna_world import NAMES, TRUTH, candidates, prior
from vlmsel_auto.integrations.candidate_prior import CandidatePrior, Tried, due
from vlmsel_auto.records import Basis, Interval, RankedCandidate, Ranking

BEST = "model-c"


def run(belief: CandidatePrior, truth: np.ndarray, *, minimise: bool = False) -> list[str | None]:
    """Which candidates have first trials, in order; None where another sampler chose, which takes the first."""
    asked, trials = [], []
    for _ in range(12):
        asked.append(due(belief, trials, allowed=NAMES, minimise=minimise))
        name = asked[-1] or NAMES[0]
        trials.append(Tried(candidate=name, value=float(truth[NAMES.index(name)])))
    return asked


def test_the_predicted_best_comes_first_and_each_once_at_most():
    asked = run(prior(sd=2.0), TRUTH)
    assert asked[0] == BEST
    firsts = [name for name in asked if name is not None]
    assert len(firsts) == len(set(firsts)) > 2


def test_a_wrong_prior_is_overcome():
    asked = run(prior(-TRUTH, sd=2.0), TRUTH)
    assert asked[0] != BEST
    assert BEST in asked


def test_other_units_and_minimisation_change_nothing():
    assert run(prior(unit=100.0), -100 * TRUTH, minimise=True) == run(prior(), TRUTH)


def test_an_error_is_an_accuracy_seen_from_above_and_nothing_is_better_than_none():
    perfect = np.where(np.array(NAMES) == BEST, 1.0, 0.6)
    for truth in (TRUTH, perfect):
        unsure = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=2.0)
        assert run(unsure, 1 - truth, minimise=True) == run(unsure, truth)


@pytest.mark.parametrize("minimise", [False, True])
def test_per_cent_without_its_unit_is_told_once(minimise):
    trials = [Tried(candidate=name, value=100 * value) for name, value in zip(NAMES, TRUTH.tolist(), strict=True)]
    wanted = r"is 60\.0 in a trial of 'model-a', but .* is 1\.0 of it.*100 for per"
    with pytest.warns(UserWarning, match=wanted) as told:
        due(prior(), trials, allowed=NAMES, minimise=minimise)
    assert len(told) == 1
    due(prior(unit=100.0), trials, allowed=NAMES, minimise=minimise)


def test_trials_at_the_same_time_do_not_all_go_to_one_candidate():
    flat, trials = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0), []
    for _ in range(3):
        trials.append(Tried(candidate=due(flat, trials, allowed=NAMES, minimise=False)))
    assert len({each.candidate for each in trials}) == 3


def test_a_first_trial_that_broke_comes_again_and_a_pruned_one_does_not():
    assert due(prior(), [Tried(candidate=BEST, failed=True)], allowed=[BEST], minimise=False) == BEST
    assert due(prior(), [Tried(candidate=BEST)], allowed=[BEST], minimise=False) is None


def test_an_infinite_value_does_not_count():
    flat, last = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0), NAMES[0]
    first, *others = (
        due(flat, [Tried(candidate=last, value=value)], allowed=NAMES, minimise=False)
        for value in (None, float("inf"), float("nan"))
    )
    assert others == [first, first]


def test_others_may_choose_every_second_time_once_nothing_better_was_found():
    flat = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0)
    trials = [Tried(candidate=NAMES[0], value=value) for value in (0.5, 0.4, 0.4, 0.4, 0.4, 0.4)]
    found = [due(flat, trials[:count], allowed=NAMES, minimise=False) is not None for count in range(1, 7)]
    assert found == [True, True, True, False, True, False]


def test_a_ranking_of_other_candidates_is_refused():
    lines = [
        RankedCandidate(candidate=name, score=1.0, sd=0.5, prior=None, evidence=None, p_best=0.5, p_top5=1.0,
                        rank_interval=Interval(low=1, high=2), basis=Basis.NOTHING)
        for name in ("model-b", "of another run")
    ]  # fmt: skip
    some = CandidatePrior.of(Ranking(task="t", ranked=tuple(lines)), candidates=candidates())
    assert some.names[int(some.belief.mean.argmax())] == "model-b"
    with pytest.raises(ValueError, match=r"must have some of \('model-a', .*but got one of \('of another run',\)"):
        CandidatePrior.of(Ranking(task="t", ranked=tuple(lines[1:])), candidates=candidates())
