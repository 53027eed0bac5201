from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.planning_world import CANDIDATES, SCORES, N, candidate, plan, ranking, tried
from vlmsel_auto.planning.history import Left, Tried, expectations, observe, updated_ranking
from vlmsel_auto.planning.next_trial import next_step, postponed_now
from vlmsel_auto.planning.plan import Plan, handicap, make_plan
from vlmsel_auto.planning.posterior import (
    Belief,
    Observation,
    belief_of,
    expected_improvement,
    kinship,
    posterior,
    probability_best,
)
from vlmsel_auto.planning.space import Point


def test_kinship_is_a_correlation() -> None:
    kin = [candidate(0, "vit", "a"), candidate(1, "vit", "b"), candidate(2, "rn", "a"), candidate(3, "cnn", "c")]
    matrix = kinship(kin)
    assert np.allclose(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert matrix[0, 1] > matrix[0, 2] > matrix[0, 3] == 0


def test_without_trials_the_posterior_keeps_the_order() -> None:
    belief = belief_of(ranking(SCORES), candidates=CANDIDATES)
    now = posterior(belief, [], gains=(0.0, 0.03))
    assert list(np.argsort(-now.mean[:, 0])) == list(range(N))
    assert np.allclose(now.mean[:, 1] - now.mean[:, 0], 0.03)


def test_one_candidate_and_spread_match_plain_gaussian_conditioning() -> None:
    belief = Belief(candidates=("a", "b"), mean=np.array([0.5, -0.5]), cov=np.eye(2))
    near = posterior(belief, [Observation(candidate=0, method=0, value=0.80)])
    assert near.mean[0, 0] == pytest.approx(0.80, abs=0.002)  # noise is small against what is unknown
    assert near.sd[0, 0] < 0.02 < near.sd[1, 0]
    assert near.mean[1, 0] < near.mean[0, 0]


def test_a_ranking_that_every_trial_contradicts_is_turned_round() -> None:
    belief = belief_of(ranking(SCORES), candidates=CANDIDATES)
    reverse = [Observation(candidate=m, method=0, value=0.4 + 0.08 * m) for m in range(4)]
    assert np.argmax(posterior(belief, reverse).mean[:, 0]) == N - 1
    for values in ([0.64, 0.56, 0.48, 0.40], [0.55, 0.62, 0.50, 0.45], [0.50, 0.50, 0.50, 0.50]):
        agreeing = [Observation(candidate=m, method=0, value=value) for m, value in enumerate(values)]
        mean = posterior(belief, agreeing).mean[:, 0]
        assert np.all(np.diff(mean[4:]) < 0), values  # those that were not tried stay in the ranking's order


def test_a_disappointment_lowers_its_kin() -> None:
    kin = [candidate(0, "vit"), candidate(1, "vit"), candidate(2, "rn"), candidate(3, "cnn")]
    belief = belief_of(ranking([1.0, 0.8, 0.8, -1.0], sd=1.0), candidates=kin)
    seen = [Observation(candidate=3, method=0, value=0.60)]
    before = posterior(belief, seen).mean[:, 0]
    after = posterior(belief, [*seen, Observation(candidate=0, method=0, value=0.55)]).mean[:, 0]
    assert before[1] == pytest.approx(before[2])
    assert after[1] < after[2]


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(4))), st.lists(st.floats(0.2, 0.9), min_size=3, max_size=3))
def test_the_order_of_candidates_does_not_matter(order: list[int], values: list[float]) -> None:
    belief = belief_of(ranking(SCORES[:4]), candidates=CANDIDATES[:4])
    seen = [Observation(candidate=index, method=0, value=value) for index, value in enumerate(values)]
    plain = posterior(belief, seen)
    moved = Belief(
        candidates=tuple(belief.candidates[index] for index in order),
        mean=belief.mean[order],
        cov=belief.cov[np.ix_(order, order)],
    )
    place = {old: new for new, old in enumerate(order)}
    again = posterior(moved, [Observation(candidate=place[i], method=0, value=v) for i, v in enumerate(values)])
    assert np.allclose(again.mean, plain.mean[order])
    assert np.allclose(again.sd, plain.sd[order])


def test_expected_improvement_and_probability_have_oracles() -> None:
    draws = 0.3 + 0.1 * np.random.default_rng(0).standard_normal(400_000)
    expected = np.maximum(draws - 0.35, 0).mean()
    found = expected_improvement(np.array([0.3]), np.array([0.1]), best=0.35)
    assert found[0] == pytest.approx(expected, rel=0.02)
    chances = probability_best(np.array([0.0, 1.0]), np.diag([1.0, 1.0]))
    assert chances[1] == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.02)


def test_belief_refusals() -> None:
    belief = belief_of(ranking(SCORES), candidates=CANDIDATES)
    with pytest.raises(ValueError, match="may be observed once"):
        posterior(belief, [Observation(candidate=0, method=0, value=0.5)] * 2)
    with pytest.raises(ValueError, match="must be finite"):
        posterior(belief, [Observation(candidate=0, method=0, value=float("nan"))])
    with pytest.raises(ValueError, match="known candidate and method"):
        posterior(belief, [Observation(candidate=N, method=0, value=0.5)])
    with pytest.raises(ValueError, match="distinct"):
        belief_of(ranking(SCORES), candidates=[CANDIDATES[0], CANDIDATES[0]])
    with pytest.raises(ValueError, match="trust must be positive"):
        belief_of(ranking(SCORES), candidates=CANDIDATES, trust=0)


def test_plan_orders_postpones_and_audits() -> None:
    made = plan(top_k=3, audits=2)
    assert made.order == tuple(f"m{number}" for number in range(N))
    assert made.active == ("m0", "m1", "m2")
    assert len(made.audits) == 2
    assert not set(made.audits) & set(made.active)
    assert sum(line.share for line in made.lines) == pytest.approx(1)
    assert sum(line.probability_best for line in made.lines) == pytest.approx(1)
    assert make_plan(ranking(SCORES), candidates=CANDIDATES, top_k=3, audits=2).audits == made.audits


def test_probabilities_decide_how_many_stay_active() -> None:
    sure, unsure = plan(top_k=None, sd=0.05), plan(top_k=None, sd=3.0)
    assert len(sure.active) == 3
    assert len(unsure.active) > 5


def test_unranked_candidates_come_last_and_keep_a_chance() -> None:
    made = make_plan(ranking(SCORES[:4]), candidates=CANDIDATES[:5], top_k=2, audits=0)
    assert made.order[-1] == "m4"
    assert made.lines[-1].probability_best > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ()}, "methods must be some of"),
        ({"methods": ("lora",)}, "methods must be some of"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"audits": -1}, "audits at least 0"),
    ],
)
def test_plan_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(ranking(SCORES), candidates=CANDIDATES, **arguments)


def walk(made: Plan, truth: dict[str, float], *, trials: int, unavailable: tuple[str, ...] = ()) -> list[Tried]:
    history: list[Tried] = []
    while len(history) < trials:
        step = next_step(made, history, left=Left(trials=trials - len(history)), unavailable=unavailable)
        if step is None:
            break
        value = truth[step.candidate] - (0.05 if step.method == "probe" else 0.0)
        history.append(
            tried(step.candidate, value, step.method, origin=step.origin, point=step.point or Point(learning_rate=0.2))
        )
    return history


def test_probes_first_in_order_then_tuning_and_audits() -> None:
    truth = {f"m{number}": 0.8 - 0.05 * number for number in range(N)}
    history = walk(plan(), truth, trials=20)
    assert [(each.candidate, each.method) for each in history[:3]] == [(f"m{n}", "probe") for n in range(3)]
    assert history[3].method == "finetune"
    assert [each.origin for each in history].count("audit") == 1
    assert max(history, key=lambda each: each.validation or 0).candidate == "m0"


def test_few_trials_are_not_all_spent_on_probes() -> None:
    history = walk(plan(top_k=6), {f"m{number}": 0.5 for number in range(N)}, trials=6)
    assert sum(each.method == "probe" for each in history[:3]) == 2
    assert any(each.method == "finetune" for each in history)


def test_little_time_is_not_all_spent_on_probes() -> None:
    made = make_plan(ranking(SCORES), candidates=CANDIDATES, top_k=4, audits=0, tune_cost=4.0)
    history = [tried("m0", 0.5, "probe"), tried("m1", 0.49, "probe")]  # one second each
    short, long = (next_step(made, history, left=Left(seconds=seconds)) for seconds in (5.0, 100.0))
    assert short is not None
    assert long is not None
    assert short.method == "finetune"
    assert (long.candidate, long.method) == ("m2", "probe")


def test_a_postponed_winner_is_found_when_the_leaders_stall() -> None:
    truth = {f"m{number}": 0.5 for number in range(N)} | {"m7": 0.9}
    history = walk(plan(audits=0, sd=0.3), truth, trials=60)
    assert any(each.candidate == "m7" for each in history)
    assert max(each.validation or 0 for each in history) == pytest.approx(0.9)


def test_upper_bound_brings_a_candidate_back() -> None:
    made = plan(top_k=2, audits=0, sd=1.5)
    history = [tried("m0", 0.3), tried("m1", 0.3)]
    assert postponed_now(made, []) == made.order[2:]
    assert "m2" not in postponed_now(made, history)  # nothing sets it apart from leaders that both disappointed
    sure = plan(top_k=2, audits=0, sd=0.05)
    assert "m7" in postponed_now(sure, [tried("m0", 0.9), tried("m1", 0.8)])


def test_a_search_without_news_ends() -> None:
    history = walk(plan(methods=("probe",)), {f"m{number}": 0.6 for number in range(N)}, trials=500)
    assert len(history) < 60
    assert {each.candidate for each in history} == {f"m{number}" for number in range(N)}  # after all came back


def test_spent_budgets_and_nothing_usable() -> None:
    assert next_step(plan(), [], left=Left(trials=0)) is None
    assert next_step(plan(), [], left=Left(seconds=-1.0)) is None
    assert next_step(plan(), [], left=Left(), unavailable=[f"m{number}" for number in range(N)]) is None
    step = next_step(plan(), [], left=Left(), unavailable=["m0"])
    assert step is not None
    assert step.candidate == "m1"


def test_steps_are_deterministic_and_explained() -> None:
    history = [tried(f"m{number}", 0.5, "probe") for number in range(3)] + [tried("m0", 0.7), tried("m1", 0.72)]
    first, again = (next_step(plan(), history, left=Left(trials=10)) for _ in range(2))
    assert first == again
    assert first is not None
    assert first.why


def test_time_makes_slow_candidates_dearer() -> None:
    scores = [1.0, 1.0, 1.0, *SCORES[3:]]
    equal = make_plan(ranking(scores), candidates=CANDIDATES, top_k=3, audits=0, tune_cost=4.0)
    for fastest in range(3):
        history = [tried(f"m{n}", 0.5, "probe", seconds=1.0 if n == fastest else 3.0) for n in range(3)]
        step = next_step(equal, history, left=Left(seconds=500.0))
        assert step is not None
        assert (step.candidate, step.method) == (f"m{fastest}", "finetune")  # equal promise


def test_failed_trials_do_not_come_back_at_once() -> None:
    made = plan(methods=("finetune",), audits=0)
    step = next_step(made, [tried("m0", 0.5), tried("m1", None)], left=Left(trials=5))
    assert step is not None
    assert step.candidate != "m1"


def test_updated_ranking_follows_the_trials() -> None:
    made = plan()
    new = updated_ranking(made, ranking(SCORES), [tried("m0", 0.58), tried("m2", 0.66), tried("m1", 0.6)])
    assert new.order[0] == "m2"
    assert new.order.index("m0") > new.order.index("m1")
    assert all(1 <= line.rank_interval.low <= line.rank_interval.high <= N for line in new.ranked)
    assert sum(line.p_best for line in new.ranked) == pytest.approx(1)
    assert observe(made, []).mean.shape == (N, 2)


def test_few_validation_images_leave_the_choice_to_the_ranking() -> None:
    history = [tried("m0", 0.80, number=0), tried("m1", 0.775, number=1), tried("m6", 0.825, number=2)]
    for images, chosen in ((20, 0), (40_000, 2), (None, 2)):
        expected = expectations(replace(plan(), validation_images=images), history)
        assert set(expected) == {0, 1, 2}
        assert max(expected, key=lambda number: expected[number]) == chosen, images
    assert expectations(plan(), []) == {}
    assert expectations(plan(), [tried("m0", None)]) == {}


def test_on_few_images_who_is_surer_of_the_right_class_is_expected_to_do_better() -> None:
    few = replace(plan(), validation_images=30)
    lucky, sure = tried("m0", 0.8, number=0, soft=0.5), tried("m1", 0.767, number=1, soft=0.7)
    alone = expectations(few, [replace(lucky, soft=None), replace(sure, soft=None)])
    both = expectations(few, [lucky, sure])
    assert alone[0] > alone[1]
    assert both[1] > both[0]
    lower = [replace(each, soft=(each.soft or 0.0) - 0.2) for each in (lucky, sure)]
    assert expectations(few, lower) == pytest.approx(both)  # only differences count
    exact = expectations(replace(plan(), validation_images=40_000), [lucky, sure])
    assert exact[0] > exact[1]


def test_of_one_arm_the_best_trial_leads_by_little() -> None:
    history = [tried("m0", 0.8, number=0), tried("m0", 0.7, number=1), tried("m1", 0.7, number=2)]
    for images, gap in ((30, 0.05), (40_000, 0.1)):
        expected = expectations(replace(plan(), validation_images=images), history)
        assert 0 < expected[0] - expected[1] <= gap
    assert expected[0] - expected[1] == pytest.approx(0.1, abs=0.005)


def test_handicap_grows_with_doubt() -> None:
    made = plan()
    values = [handicap(made, f"m{number}") for number in range(N)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] <= 0.02
