from dataclasses import replace

import pytest

from helpers.planning_world import CANDIDATES, SCORES, N, plan, tried
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.trials import Left, Tried
from vlmsel_auto.records import TrialOrigin, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE, ZERO_SHOT


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


def test_probes_first_in_order_then_tuning() -> None:
    truth = {f"m{number}": 0.8 - 0.05 * number for number in range(N)}
    history = walk(plan(), truth, trials=20)
    assert [(each.candidate, each.method) for each in history[:3]] == [(f"m{n}", "probe") for n in range(3)]
    assert history[3].method == "finetune"
    assert max(history, key=lambda each: each.validation or 0).candidate == "m0"


def test_few_trials_are_not_all_spent_on_probes() -> None:
    history = walk(plan(top_k=6), {f"m{number}": 0.5 for number in range(N)}, trials=6)
    assert sum(each.method == "probe" for each in history[:3]) == 2
    assert any(each.method == "finetune" for each in history)


def test_little_time_is_not_all_spent_on_probes() -> None:
    made = plan(top_k=4, relative_costs={FINETUNE.name: 1.5})
    history = [tried("m0", 0.5, "probe"), tried("m1", 0.49, "probe")]  # one second each
    short, long = (next_trial(made, history, left=Left(seconds=seconds)) for seconds in (5.0, 100.0))
    assert short.method == "finetune"
    assert (long.candidate, long.method) == ("m2", "probe")


def test_a_postponed_winner_is_found_when_no_trial_of_the_leaders_is_worth_its_time() -> None:
    truth = {f"m{number}": 0.5 + 0.05 * number for number in range(N)}  # the ranking has it the wrong way round
    history = walk(plan(), truth, trials=60)
    assert max(each.validation or 0 for each in history) == pytest.approx(truth["m7"])


def test_a_head_without_settings_is_tried_once_and_a_search_without_news_ends() -> None:
    history = walk(plan(methods=(PROBE,)), {f"m{number}": 0.6 for number in range(N)}, trials=500)
    assert len({each.candidate for each in history}) == len(history) <= N


def test_a_search_ends_when_no_trial_promises_its_price() -> None:
    truth = {f"m{number}": 0.8 - 0.03 * number for number in range(N)}
    made, free = plan(), plan(policy=replace(POLICY, least_gain=0.0, price=0.0))
    few, many = (len(walk(each, truth, trials=100)) for each in (made, free))
    assert few < 40
    assert many == 100


def test_a_search_in_which_every_trial_fails_ends() -> None:
    made, history = plan(), []
    while len(history) < 200 and (step := next_trial(made, history, left=Left())) is not None:
        history.append(tried(step.candidate, None, step.method, origin=step.origin))
    assert len(history) < 60
    assert {each.candidate for each in history} == {f"m{number}" for number in range(N)}  # nobody is given up unseen


def test_spent_budgets_and_nothing_usable() -> None:
    assert next_trial(plan(), [], left=Left(trials=0)) is None
    assert next_trial(plan(), [], left=Left(seconds=-1.0)) is None
    assert next_trial(plan(), [], left=Left(), unavailable=[f"m{number}" for number in range(N)]) is None
    step = next_trial(plan(), [], left=Left(), unavailable=["m0"])
    assert step.candidate == "m1"


def test_time_makes_slow_candidates_dearer() -> None:
    equal = plan(scores=[1.0, 1.0, 1.0, *SCORES[3:]], relative_costs={FINETUNE.name: 4.0})
    for fastest in range(3):
        history = [tried(f"m{n}", 0.5, "probe", seconds=1.0 if n == fastest else 3.0) for n in range(3)]
        step = next_trial(equal, history, left=Left(seconds=500.0))
        assert (step.candidate, step.method) == (f"m{fastest}", "finetune")  # equal promise


def test_failed_trials_do_not_come_back_at_once() -> None:
    made = plan(methods=(FINETUNE,))
    step = next_trial(made, [tried("m0", 0.5), tried("m1", None)], left=Left(trials=5))
    assert step.candidate != "m1"


def test_the_first_tower_is_shortened_where_there_is_no_time_and_later_ones_are_left() -> None:
    made = plan(methods=(FINETUNE,))
    history = [tried("m0", 0.5, "probe", seconds=1.0), tried("m0", None, seconds=40.0)]
    step = next_trial(plan(), [tried(f"m{n}", 0.5, "probe") for n in range(3)], left=Left(seconds=12.0))
    assert step.method == "finetune"
    assert step.point["epochs"] < 0.5
    made = replace(made, members=5)
    both = [tried("m0", 0.5, seconds=40.0, number=0)]
    late, early = (next_trial(made, both, left=Left(seconds=seconds)) for seconds in (30.0, 200.0))
    assert late is None or late.candidate == "m0"  # other settings, which may be shorter
    assert early.candidate != "m0"
    assert next_trial(made, history, left=Left(seconds=1.0)) is not None  # there is no model yet


def test_the_zero_shot_baseline_comes_first_and_once() -> None:
    made = plan(methods=(ZERO_SHOT, PROBE, FINETUNE))
    first = next_trial(made, [], left=Left(trials=9))
    assert (first.candidate, first.method, first.origin) == ("m0", "zero_shot", TrialOrigin.ZERO_SHOT)
    failed = [tried("m0", None, "zero_shot", origin=TrialOrigin.ZERO_SHOT)]
    other = next_trial(made, failed, left=Left(trials=9), unavailable=["m0"])
    assert (other.candidate, other.method) == ("m1", "zero_shot")
    done = [tried("m0", 0.4, "zero_shot", origin=TrialOrigin.ZERO_SHOT)]
    second = next_trial(made, done, left=Left(trials=9))
    assert (second.candidate, second.method) == ("m0", "probe")


def test_the_zero_shot_baseline_changes_no_later_step() -> None:
    with_zero_shot, without = plan(methods=(ZERO_SHOT, PROBE, FINETUNE)), plan()
    baseline = tried("m0", 0.4, "zero_shot", origin=TrialOrigin.ZERO_SHOT, seconds=1.0)
    history = [tried("m0", 0.5, "probe", seconds=1.0), tried("m1", 0.49, "probe"), tried("m2", 0.6, "probe")]
    for count in range(1, 4):
        plain = next_trial(without, history[:count], left=Left(trials=20))
        assert next_trial(with_zero_shot, [baseline, *history[:count]], left=Left(trials=20)) == plain


def test_a_search_whose_budget_is_spent_owes_a_model_once() -> None:
    def made(seconds: float) -> Plan:
        return plan(methods=(ZERO_SHOT, PROBE, FINETUNE), loading={one.id: seconds for one in CANDIDATES})

    late = Left(seconds=-3.0)
    step = next_trial(made(1.0), [], left=late)
    assert (step.method, step.origin) == ("zero_shot", TrialOrigin.ZERO_SHOT)
    assert next_trial(made(100.0), [], left=late) is None  # that would be far too late
    failed = tried(step.candidate, None, "zero_shot", origin=TrialOrigin.ZERO_SHOT, state=TrialState.FAILED)
    assert next_trial(made(1.0), [failed], left=late) is None
    assert next_trial(made(1.0), [tried(step.candidate, 0.5, "zero_shot")], left=late) is None


def test_first_fits_of_towers_leave_out_the_folds_in_turn() -> None:
    made, history, folds = plan(folds=3), [], []
    while len(folds) < 3:
        step = next_trial(made, history, left=Left())
        if step.method == FINETUNE.name:
            folds.append((step.candidate, step.fold))
        point = step.point or {"learning_rate": 0.1 * len(history)}
        value = 0.5 + 0.2 * (step.candidate != "m0")
        history.append(tried(step.candidate, value, step.method, fold=step.fold, point=point))
    assert [fold for _, fold in folds[:2]] == [0, 1]


def test_on_few_labels_every_member_has_its_fits_and_no_other_settings_are_tried() -> None:
    made = plan(folds=4, top_k=4, validation_images=8, members=3)
    history, point = [], dict.fromkeys(FINETUNE.settings, 0.5)
    while len(history) < 100 and (step := next_trial(made, history, left=Left())) is not None:
        assert step.point is not None
        fields = {"fold": step.fold, "point": {**point, **step.point}} if step.method == FINETUNE.name else {}
        history.append(tried(step.candidate, 0.7, step.method, soft=0.7, images=8, seconds=5.0, **fields))
    towers = [each for each in history if each.method == FINETUNE.name]
    assert len({each.candidate for each in towers}) >= 3
    assert len({(each.candidate, each.fold) for each in towers}) == len(towers)  # none twice
    assert all(each.point == point for each in towers)
