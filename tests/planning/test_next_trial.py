from dataclasses import replace

import pytest

from helpers.planning_world import CANDIDATES, SCORES, N, plan, ranking, tried
from vlmsel_auto.planning.cost import trial_seconds
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import paused
from vlmsel_auto.planning.next_trial import next_trial, still_postponed
from vlmsel_auto.planning.plan import Plan, make_plan
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.planning.tried import Left, Tried
from vlmsel_auto.records import TrialOrigin, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE, ZERO_SHOT

BOTH = (PROBE, FINETUNE)


def walk(made: Plan, truth: dict[str, float], *, trials: int, unavailable: tuple[str, ...] = ()) -> list[Tried]:
    history: list[Tried] = []
    while len(history) < trials:
        step = next_trial(made, history, left=Left(trials=trials - len(history)), unavailable=unavailable)
        if step is None:
            break
        value = truth[step.candidate] - (0.05 if step.method == "probe" else 0.0)
        history.append(
            tried(step.candidate, value, step.method, origin=step.origin, point=step.point or {"learning_rate": 0.2})
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
    made = make_plan(
        ranking(SCORES),
        candidates=CANDIDATES,
        methods=(PROBE, FINETUNE),
        top_k=4,
        audits=0,
        relative_costs={FINETUNE.name: 1.5},
    )
    history = [tried("m0", 0.5, "probe"), tried("m1", 0.49, "probe")]  # one second each
    short, long = (next_trial(made, history, left=Left(seconds=seconds)) for seconds in (5.0, 100.0))
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
    assert still_postponed(made, []) == made.order[2:]
    assert "m2" not in still_postponed(made, history)  # nothing sets it apart from leaders that both disappointed
    sure = plan(top_k=2, audits=0, sd=0.05)
    assert "m7" in still_postponed(sure, [tried("m0", 0.9), tried("m1", 0.8)])


def test_a_head_without_settings_is_tried_once_and_a_search_without_news_ends() -> None:
    history = walk(plan(methods=(PROBE,)), {f"m{number}": 0.6 for number in range(N)}, trials=500)
    assert len({each.candidate for each in history}) == len(history) <= N
    assert len(history) > 5  # as many without news make it stop


def test_a_search_ends_when_no_trial_promises_its_price() -> None:
    truth = {f"m{number}": 0.8 - 0.03 * number for number in range(N)}
    made, free = plan(), plan(policy=replace(POLICY, least_gain=0.0, price=0.0))
    few, many = (len(walk(each, truth, trials=100)) for each in (made, free))
    assert few < 40
    assert many == 100


def test_a_search_in_which_every_trial_fails_ends() -> None:
    made, history = plan(audits=2), []
    while len(history) < 200 and (step := next_trial(made, history, left=Left())) is not None:
        history.append(tried(step.candidate, None, step.method, origin=step.origin))
    assert len(history) < 60
    assert {each.candidate for each in history} == {f"m{number}" for number in range(N)}  # nobody is given up unseen


def test_spent_budgets_and_nothing_usable() -> None:
    assert next_trial(plan(), [], left=Left(trials=0)) is None
    assert next_trial(plan(), [], left=Left(seconds=-1.0)) is None
    assert next_trial(plan(), [], left=Left(), unavailable=[f"m{number}" for number in range(N)]) is None
    step = next_trial(plan(), [], left=Left(), unavailable=["m0"])
    assert step is not None
    assert step.candidate == "m1"


def test_steps_are_deterministic_and_explained() -> None:
    history = [tried(f"m{number}", 0.5, "probe") for number in range(3)] + [tried("m0", 0.7), tried("m1", 0.72)]
    first, again = (next_trial(plan(), history, left=Left(trials=10)) for _ in range(2))
    assert first == again
    assert first is not None
    assert first.why


def test_time_makes_slow_candidates_dearer() -> None:
    scores = [1.0, 1.0, 1.0, *SCORES[3:]]
    equal = make_plan(
        ranking(scores),
        candidates=CANDIDATES,
        methods=(PROBE, FINETUNE),
        top_k=3,
        audits=0,
        relative_costs={FINETUNE.name: 4.0},
    )
    for fastest in range(3):
        history = [tried(f"m{n}", 0.5, "probe", seconds=1.0 if n == fastest else 3.0) for n in range(3)]
        step = next_trial(equal, history, left=Left(seconds=500.0))
        assert step is not None
        assert (step.candidate, step.method) == (f"m{fastest}", "finetune")  # equal promise


def test_failed_trials_do_not_come_back_at_once() -> None:
    made = plan(methods=(FINETUNE,), audits=0)
    step = next_trial(made, [tried("m0", 0.5), tried("m1", None)], left=Left(trials=5))
    assert step is not None
    assert step.candidate != "m1"


def stopped(name: str, curve: Curve, number: int, **other: object) -> object:
    return tried(
        name, max(curve.values), state=TrialState.PRUNED, curve=curve, number=number, share=0.5, resumable=True, **other
    )


HALF = Curve(values=(0.5, 0.6), epochs=4)


def test_a_promising_paused_trial_goes_on_once() -> None:
    made = plan(audits=0, methods=(FINETUNE,))
    history = [tried("m0", 0.7, number=0), stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1), tried("m2", 0.6)]
    assert [each.number for each in paused(history)] == [1]
    step = next_trial(made, history, left=Left(seconds=30.0))
    assert step is not None
    assert (step.candidate, step.continues, step.point) == ("m1", 1, history[1].point)
    assert step.why == "goes on with trial 1 after epoch 2 of 4"
    whole = tried("m1", 0.91, number=3, curve=Curve(values=(0.8, 0.9, 0.91, 0.9), epochs=4), continues=1, share=0.5)
    after = next_trial(made, [*history, whole], left=Left(seconds=30.0))
    assert paused([*history, whole]) == ()
    assert after is not None
    assert after.continues is None


def test_a_hopeless_paused_trial_stays_paused() -> None:
    made = plan(audits=0, methods=(FINETUNE,))
    history = [tried("m0", 0.9, number=0), stopped("m1", Curve(values=(0.3, 0.3), epochs=4), 1)]
    step = next_trial(made, history, left=Left(seconds=30.0))
    assert step is not None
    assert step.continues is None


def test_what_does_not_fit_is_shortened_or_left() -> None:
    made = plan(audits=0, methods=(FINETUNE,))
    history = [tried("m0", 0.5, seconds=40.0, number=0)]
    step = next_trial(made, history, left=Left(seconds=40.0))
    assert step is not None
    assert step.point is not None
    assert step.candidate == "m1"
    longer = trial_seconds(made, history)["m1", "finetune"] / 40.0
    assert 1 < longer < 3
    assert 9 ** (step.point["epochs"] - 0.5) == pytest.approx(1 / longer)
    both = plan(audits=0)
    timed = [*(tried(f"m{n}", 0.5, "probe") for n in range(3)), *history]
    late = next_trial(both, timed, left=Left(seconds=3.0))
    assert late is not None
    assert late.method == "probe"


def test_no_tower_is_begun_in_vain_once_there_is_a_model_and_its_seconds_are_known() -> None:
    made = plan(audits=0, methods=(FINETUNE,))
    history = [tried("m0", 0.5, seconds=40.0, number=0)]
    assert next_trial(made, history, left=Left(seconds=1.0)) is None
    assert next_trial(made, [], left=Left(seconds=1.0)) is not None
    untimed = plan(audits=0)
    probes = [tried(line.candidate, 0.5, "probe", number=n) for n, line in enumerate(untimed.lines)]
    late = next_trial(untimed, probes, left=Left(seconds=1.0))
    assert late is not None
    assert late.method == "finetune"


def test_first_trials_begin_at_the_learned_defaults() -> None:
    start = {"learning_rate": 0.8}
    made = make_plan(
        ranking(SCORES),
        candidates=CANDIDATES,
        methods=(PROBE, FINETUNE),
        top_k=3,
        audits=0,
        defaults={("m0", "probe"): start},
    )
    step = next_trial(made, [], left=Left(trials=9))
    assert step is not None
    assert (step.candidate, step.method, step.point) == ("m0", "probe", start)
    assert made.first("m1", "probe") == DEFAULT


def test_the_floor_comes_first_and_once() -> None:
    made = plan(methods=(ZERO_SHOT, PROBE, FINETUNE))
    first = next_trial(made, [], left=Left(trials=9))
    assert first is not None
    assert (first.candidate, first.method, first.origin) == ("m0", "zero_shot", TrialOrigin.FLOOR)
    failed = [tried("m0", None, "zero_shot", origin=TrialOrigin.FLOOR)]
    other = next_trial(made, failed, left=Left(trials=9), unavailable=["m0"])
    assert other is not None
    assert (other.candidate, other.method) == ("m1", "zero_shot")
    done = [tried("m0", 0.4, "zero_shot", origin=TrialOrigin.FLOOR)]
    second = next_trial(made, done, left=Left(trials=9))
    assert second is not None
    assert (second.candidate, second.method) == ("m0", "probe")


def test_the_floor_changes_no_later_step() -> None:
    with_floor, without = plan(methods=(ZERO_SHOT, PROBE, FINETUNE)), plan()
    floor = tried("m0", 0.4, "zero_shot", origin=TrialOrigin.FLOOR, seconds=1.0)
    history = [tried("m0", 0.5, "probe", seconds=1.0), tried("m1", 0.49, "probe"), tried("m2", 0.6, "probe")]
    for count in range(1, 4):
        plain = next_trial(without, history[:count], left=Left(trials=20))
        assert next_trial(with_floor, [floor, *history[:count]], left=Left(trials=20)) == plain


def test_a_search_whose_budget_is_spent_owes_a_model_once() -> None:
    def made(seconds: float) -> Plan:
        loading = {one.id: seconds for one in CANDIDATES}
        return make_plan(ranking(SCORES), candidates=CANDIDATES, methods=(ZERO_SHOT, *BOTH), loading=loading)

    late = Left(seconds=-3.0)
    step = next_trial(made(1.0), [], left=late)
    assert step is not None
    assert (step.method, step.origin) == ("zero_shot", TrialOrigin.FLOOR)
    assert next_trial(made(100.0), [], left=late) is None  # that would be far too late
    failed = tried(step.candidate, None, "zero_shot", origin=TrialOrigin.FLOOR, state=TrialState.FAILED)
    assert next_trial(made(1.0), [failed], left=late) is None
    assert next_trial(made(1.0), [tried(step.candidate, 0.5, "zero_shot")], left=late) is None


def test_the_floor_alone() -> None:
    made = plan(methods=(ZERO_SHOT,))
    assert next_trial(made, [], left=Left()) is not None
    assert next_trial(made, [tried("m0", 0.4, "zero_shot")], left=Left()) is None


def test_towers_are_scored_on_the_parts_in_turn_and_a_paused_one_keeps_its_own() -> None:
    made, history, folds = plan(audits=0, folds=3, policy=replace(POLICY, measuring=0.0)), [], []
    while len(folds) < 5:
        step = next_trial(made, history, left=Left())
        assert step is not None
        if step.method == FINETUNE.name:
            folds.append(step.fold)
        point = step.point or {"learning_rate": 0.1 * len(history)}
        history.append(tried(step.candidate, 0.5 + 0.01 * len(history), step.method, fold=step.fold, point=point))
    assert folds == [0, 1, 2, 0, 1]
    alone = plan(audits=0, methods=(FINETUNE,), folds=3)
    half = stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1, fold=2)
    step = next_trial(alone, [tried("m0", 0.7, number=0), half, tried("m2", 0.6)], left=Left(seconds=30.0))
    assert step is not None
    assert (step.continues, step.fold) == (1, 2)


def scored(name: str, value: float, fold: int) -> Tried:
    """A tower's first trial, on one part of thirty images."""
    point = dict.fromkeys(FINETUNE.settings, 0.5)
    return tried(name, value, soft=value, fold=fold, images=6, point=point, number=fold)


def test_towers_that_are_hard_to_tell_apart_are_scored_on_further_parts_in_the_end() -> None:
    made = replace(plan(audits=0, folds=5, top_k=2), validation_images=30)
    heads = [tried(f"m{place}", 0.6, "probe", soft=0.6, images=30) for place in range(N)]
    history = [*heads, scored("m0", 0.68, 0), scored("m1", 0.66, 1), scored("m2", 0.3, 2)]
    history += [tried("m0", 0.5, soft=0.5, fold=place % 5, images=6, point={"learning_rate": 0.1 * place})
                for place in range(3, 9)]  # fmt: skip
    step = next_trial(made, history, left=Left())
    assert step is not None
    assert step.candidate in {"m0", "m1"}
    assert "on another part" in step.why
    leader = next(each for each in history if each.candidate == step.candidate and each.method == FINETUNE.name)
    assert step.point == leader.point
    assert step.fold != leader.fold
    assert next_trial(replace(made, policy=replace(POLICY, measuring=0.0)), history, left=Left()) is None
    assert next_trial(replace(made, folds=1), history, left=Left()) is None  # the user's images decide, all at once


def test_settings_are_scored_on_each_part_once() -> None:
    made = replace(plan(audits=0, folds=3, top_k=2, policy=replace(POLICY, measuring=1e6)), validation_images=30)
    heads = [tried(f"m{place}", 0.6, "probe", soft=0.6, images=30) for place in range(N)]
    history, again = [*heads, scored("m0", 0.68, 0), scored("m1", 0.68, 1)], []
    while len(history) < 40 and (step := next_trial(made, history, left=Left())) is not None:
        further = "on another part" in step.why
        point = step.point or {"learning_rate": 0.01 * len(history)}
        history.append(tried(step.candidate, 0.68 if further else 0.6, step.method, soft=0.6, fold=step.fold, images=6,
                             point=point))  # fmt: skip
        if further:
            again.append((step.candidate, step.fold))
    leaders = [each for each in again if each[0] in {"m0", "m1"}]
    assert sorted(leaders) == [("m0", 1), ("m0", 2), ("m1", 0), ("m1", 2)]
    assert len(set(again)) == len(again)
