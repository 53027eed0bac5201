from dataclasses import replace

import numpy as np
import pytest

from helpers.planning_world import SCORES, N, plan, ranking, tried
from vlmsel_auto.planning.curves import Curve, Estimate
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.records import TrialState


def test_updated_ranking_follows_the_trials() -> None:
    made = plan()
    evidence = TrialEvidence(made, [tried("m0", 0.58), tried("m2", 0.66), tried("m1", 0.6)])
    new, now = evidence.updated(ranking(SCORES)), evidence.posterior
    assert new.ranked[0].sd == pytest.approx(now.sd[2, -1] / now.spread)  # in standard units, as the scores
    assert new.order[0] == "m2"
    assert new.order.index("m0") > new.order.index("m1")
    assert all(1 <= line.rank_interval.low <= line.rank_interval.high <= N for line in new.ranked)
    assert sum(line.p_best for line in new.ranked) == pytest.approx(1)
    assert TrialEvidence(made, []).posterior.mean.shape == (N, 2)


def test_what_is_believed_of_an_arm_is_the_posterior() -> None:
    evidence = TrialEvidence(plan(), [tried("m0", 0.58), tried("m2", 0.66)])
    end = evidence.of(("m3", "finetune"))
    assert end == Estimate(mean=evidence.posterior.mean[3, 1], sd=evidence.posterior.sd[3, 1])
    assert evidence.of(("m3", "zero_shot")) is None


def test_few_validation_images_leave_the_choice_to_the_ranking() -> None:
    history = [tried("m0", 0.80, number=0), tried("m1", 0.775, number=1), tried("m6", 0.825, number=2)]
    for images, chosen in ((20, 0), (40_000, 2), (None, 2)):
        expected = TrialEvidence(plan(validation_images=images), history).expectations()
        assert set(expected) == {0, 1, 2}
        assert max(expected, key=lambda number: expected[number]) == chosen, images
    assert TrialEvidence(plan(), []).expectations() == {}
    assert TrialEvidence(plan(), [tried("m0", None)]).expectations() == {}


def test_on_few_images_who_is_surer_of_the_right_class_is_expected_to_do_better() -> None:
    few = plan(validation_images=30)
    lucky, sure = tried("m0", 0.8, number=0, soft=0.5), tried("m1", 0.767, number=1, soft=0.7)
    alone = TrialEvidence(few, [replace(lucky, soft=None), replace(sure, soft=None)]).expectations()
    both = TrialEvidence(few, [lucky, sure]).expectations()
    assert alone[0] > alone[1]
    assert both[1] > both[0]
    lower = [replace(each, soft=(each.soft or 0.0) - 0.2) for each in (lucky, sure)]
    assert TrialEvidence(few, lower).expectations() == pytest.approx(both)  # only differences count
    exact = TrialEvidence(plan(validation_images=40_000), [lucky, sure]).expectations()
    assert exact[0] > exact[1]


def test_of_one_arm_the_best_trial_leads_by_little() -> None:
    history = [tried("m0", 0.8, number=0), tried("m0", 0.7, number=1), tried("m1", 0.7, number=2)]
    for images, gap in ((30, 0.05), (40_000, 0.1)):
        expected = TrialEvidence(plan(validation_images=images), history).expectations()
        assert 0 < expected[0] - expected[1] <= gap
    assert expected[0] - expected[1] == pytest.approx(0.1, abs=0.005)


def stopped(name: str, curve: Curve, number: int, **other: object) -> object:
    return tried(name, max(curve.values), state=TrialState.PRUNED, curve=curve, number=number, share=0.5, **other)


def test_a_pruned_trial_is_evidence_but_no_result() -> None:
    made = plan()
    history = [tried("m0", 0.7), stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1)]
    now = TrialEvidence(made, history).posterior
    assert now.mean[1, 1] > now.mean[0, 1]
    assert now.sd[1, 1] > now.sd[0, 1]  # where it would have ended is known less well than where another did
    near_its_end = [history[0], stopped("m1", Curve(values=(0.8, 0.9), epochs=2), 1)]
    assert now.sd[1, 1] > TrialEvidence(made, near_its_end).posterior.sd[1, 1]


def test_what_a_method_is_expected_to_gain_holds_until_it_was_tried() -> None:
    heads = [tried("m0", 0.7, "probe"), tried("m1", 0.6, "probe")]
    first, last = plan().methods
    plain, gaining = (replace(plan(), methods=(first, replace(last, gain=gain))) for gain in (0.0, 0.03))
    before, after = (TrialEvidence(each, heads).posterior.mean for each in (plain, gaining))
    assert np.allclose(before[:, 0], after[:, 0])
    assert np.allclose(after[:, 1] - before[:, 1], 0.03)


def test_two_lucky_trials_do_not_outweigh_an_unlucky_one() -> None:
    made = plan(validation_images=13)
    heads = [tried(f"m{place}", 0.95, "probe", images=64) for place in range(4)]
    towers = [tried("m0", 1.0, images=13), tried("m1", 0.97, images=13), tried("m2", 0.83, images=13)]
    assert TrialEvidence(made, [*heads, *towers]).posterior.mean[:3, 1].mean() < 0.955


def test_settings_on_several_folds_count_as_one_trial_of_all_their_images() -> None:
    made = plan(folds=5, validation_images=30)
    point = {"learning_rate": 0.3}
    one, two = (
        tried("m1", value, number=number, fold=number, images=6, point=point) for number, value in enumerate((0.9, 0.5))
    )
    other = tried("m2", 0.7, number=9, fold=2, images=12, point=point)
    assert TrialEvidence(made, [one, two]).posterior.mean[1, 1] == pytest.approx(
        TrialEvidence(made, [replace(other, candidate="m1")]).posterior.mean[1, 1]
    )
    believed_of = TrialEvidence(made, [one, two, other]).expectations()
    assert set(believed_of) == {0, 9}  # the first stands for both
    assert (
        TrialEvidence(made, [one, two]).posterior.sd[1, 1]
        < TrialEvidence(made, [replace(one, validation=0.7)]).posterior.sd[1, 1]
    )


def test_the_more_images_measure_the_smaller_is_the_error() -> None:
    assert TrialEvidence(plan(), []).error(folds=5) == 0.0
    made = plan(folds=5, validation_images=10)
    one, five = (TrialEvidence(made, []).error(folds=folds) for folds in (1, 5))
    assert one == pytest.approx(five * 5**0.5)
    assert TrialEvidence(made, [tried("m0", 0.95)]).error(folds=5) < five
