"""ranking.py on a drawn world whose true order is known, with and without labels, library and profiles."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.evidence.alignment import alignment, nearest
from vlmsel_auto.ranking.evidence.consensus import consensus, likeness
from vlmsel_auto.ranking.forecast import Forecast
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.signals import IMAGE_SIGNALS, LABEL_SIGNALS


def tau(world, ranking, t):
    score = {line.candidate: line.score for line in ranking.ranked}
    return stats.kendalltau([score[one] for one in world.ids], world.accuracy[:, t]).statistic


@pytest.mark.parametrize("per_class", [0, 1, 16])
def test_it_ranks_at_every_number_of_labels(world, library, per_class):
    taus = []
    for t in range(5):
        targets, labels = world.targets(t, per_class=per_class or 4)
        given = labels if per_class else None
        ranking = rank_candidates(task=world.names[t], targets=targets, labels=given, library=library)
        taus.append(tau(world, ranking, t))
        basis = "library" if per_class == 0 else "library and labels"
        assert {line.basis for line in ranking.ranked} == {basis}
        assert sum(line.p_best for line in ranking.ranked) == pytest.approx(1.0)
        assert sum(line.p_top5 for line in ranking.ranked) == pytest.approx(5.0)
        assert all(1 <= line.rank_interval.low <= line.rank_interval.high <= 9 for line in ranking.ranked)
        assert [line.score for line in ranking.ranked] == sorted((line.score for line in ranking.ranked), reverse=True)
    assert np.mean(taus) > 0.45, taus


def test_an_uninformative_target_falls_back_to_the_average_rank(world, library):
    blind = [Measurement(candidate=one) for one in world.ids]
    ranking = rank_candidates(task="new", targets=blind, library=library)
    assert any("no conductance profiles" in note for note in ranking.notes)
    accuracy = library.tuned
    z = (accuracy - accuracy.mean(axis=0)) / accuracy.std(axis=0)
    expected = [world.ids[i] for i in np.argsort(-z.mean(axis=1))]
    assert list(ranking.order) == expected


@pytest.mark.parametrize("with_labels", [False, True])
def test_rescaled_logits_leave_the_ranking_as_it_was(world, library, with_labels):
    targets, labels = world.targets(3, per_class=4)
    factors = [0.1 ** (m % 3 - 1) for m in range(len(targets))]
    changed = [
        dataclasses.replace(one, activity=one.activity * factor) for factor, one in zip(factors, targets, strict=True)
    ]
    activity = tuple(one * factor for factor, one in zip(factors, library.activity, strict=True))
    rescaled = dataclasses.replace(library, activity=activity, total=library.total * np.array(factors)[:, None])
    given = labels if with_labels else None
    plain = rank_candidates(task="t03", targets=targets, labels=given, library=library)
    other = rank_candidates(task="t03", targets=changed, labels=given, library=rescaled)
    assert plain.order == other.order


def test_listing_candidates_in_another_order_changes_nothing(world, library):
    targets, labels = world.targets(1)
    forward = rank_candidates(task="t01", targets=targets, labels=labels, library=library)
    backward = rank_candidates(task="t01", targets=targets[::-1], labels=labels, library=library)
    assert forward.order == backward.order
    for a, b in zip(forward.ranked, backward.ranked, strict=True):
        assert a.score == pytest.approx(b.score)


def test_the_target_is_never_its_own_source(world, library):
    targets, _ = world.targets(2)
    kept = rank_candidates(task="t02", targets=targets, library=library)
    left_out = rank_candidates(task="t02", targets=targets, library=library.leave_out(name="t02"))
    assert kept.order == left_out.order
    assert [line.score for line in kept.ranked] == [line.score for line in left_out.ranked]


def test_strangers_are_ranked_by_what_the_target_says(world):
    library = world.library(candidates=range(6))
    targets, labels = world.targets(0, per_class=16)
    ranking = rank_candidates(task="t00", targets=targets, labels=labels, library=library)
    basis = {line.candidate: line.basis for line in ranking.ranked}
    assert [basis[one] for one in world.ids] == ["library and labels"] * 6 + ["labels"] * 3
    assert tau(world, ranking, 0) > 0.5
    assert next(line for line in ranking.ranked if line.candidate == "m08").prior is None
    without = rank_candidates(task="t00", targets=targets, library=library)
    assert {line.basis for line in without.ranked if line.candidate in {"m06", "m07", "m08"}} == {"unlabelled images"}


def test_without_a_library_labels_rank_and_notes_say_so(world):
    targets, labels = world.targets(0, per_class=16)
    ranking = rank_candidates(task="t00", targets=targets, labels=labels)
    assert tau(world, ranking, 0) > 0.5
    assert {line.basis for line in ranking.ranked} == {"labels"}
    assert any("no library" in note for note in ranking.notes)
    assert all(line.prior is None for line in ranking.ranked)


def test_a_forecast_ranks_when_nothing_else_is_known():
    targets = [Measurement(candidate=name) for name in "abc"]
    forecast = Forecast(
        mean=np.array([0.3, 0.6, 0.4]),
        sd=np.array([0.05, 0.05, 0.2]),
        screened=np.zeros(3, dtype=bool),
        published=np.array([True, True, False]),
    )
    ranking = rank_candidates(task="x", targets=targets, forecast=forecast)
    assert ranking.order == ("b", "c", "a")
    assert {line.candidate: line.basis for line in ranking.ranked} == {
        "a": "published figures",
        "b": "published figures",
        "c": "no signal",
    }
    assert max(ranking.ranked, key=lambda line: line.sd).candidate == "c"
    with pytest.raises(ValueError, match="of 2 candidates, but got 3"):
        rank_candidates(task="x", targets=targets[:2], forecast=forecast)


def test_candidates_of_a_large_library_do_not_need_the_forecast(world, library):
    targets, labels = world.targets(0, per_class=4)
    m = len(targets)
    forecast = Forecast(
        mean=np.linspace(0.9, 0.1, m), sd=np.full(m, 0.01), screened=np.ones(m, dtype=bool), published=np.ones(m, bool)
    )
    alone = rank_candidates(task="t00", targets=targets, labels=labels, library=library)
    both = rank_candidates(task="t00", targets=targets, labels=labels, library=library, forecast=forecast)
    assert [line.score for line in both.ranked] == [line.score for line in alone.ranked]
    few = library.select_tasks(library.task_names[1:5])

    def bases(screened: np.ndarray) -> set[str]:
        some = dataclasses.replace(forecast, screened=screened)
        return {
            line.basis
            for line in rank_candidates(task="t00", targets=targets, labels=labels, library=few, forecast=some).ranked
        }

    assert bases(np.ones(m, dtype=bool)) == {"library and labels"}
    assert bases(np.arange(m) > 0) == {"labels"}  # next to one that only the forecast places


def test_more_labels_move_trust_from_the_prior_to_the_labels(world, library):
    shares = []
    for per_class in (1, 4):
        targets, labels = world.targets(0, per_class=per_class)
        notes = rank_candidates(task="t00", targets=targets, labels=labels, library=library).notes
        shares.append(int(notes[0].split("images, ")[1].split("%")[0]))
    assert shares[1] >= shares[0] > 0


def test_one_candidate_is_certainly_the_best(world, library):
    targets, labels = world.targets(0, candidates=[4])
    ranking = rank_candidates(task="t00", targets=targets, labels=labels, library=library)
    assert ranking.ranked[0].p_best == 1.0


def test_consensus_is_a_signal_and_alignment_one_of_tuned_rankings_by_enough_images(world, library):
    targets, _ = world.targets(0, per_class=20)
    signals = {line.candidate: line.signals for line in rank_candidates(task="t", targets=targets).ranked}
    seen = [one.embedded() for one in targets]
    alike = likeness([one.cosine for one in seen])
    margins = np.array([signals[one]["top2_margin_cosine"] for one in world.ids])
    expected = {
        "consensus": consensus(np.stack([one.predicted for one in seen]), margins, n_classes=4, alike=alike),
        "alignment": alignment([nearest(one.features) for one in targets], margins, alike=alike),
    }
    for name, values in expected.items():
        np.testing.assert_allclose([signals[one][name] for one in world.ids], values)
    few, _ = world.targets(0, per_class=5)  # 20 images
    for ranking in (
        rank_candidates(task="t", targets=targets, library=library, truth="zero_shot"),
        rank_candidates(task="t", targets=few, library=library),
    ):
        assert "alignment" not in ranking.ranked[0].signals


def test_signals_without_labels_see_further_images_and_evidence_does_not(world, library):
    few, labels = world.targets(0, per_class=1)
    many, _ = world.targets(0, per_class=30)
    beside = [dataclasses.replace(one, others=more.features) for one, more in zip(few, many, strict=True)]
    whole = [
        dataclasses.replace(one, features=np.concatenate([one.features, more.features]))
        for one, more in zip(few, many, strict=True)
    ]

    def signals(targets, labels=None):
        ranking = rank_candidates(task="t", targets=targets, labels=labels, library=library)
        return {line.candidate: line.signals for line in ranking.ranked}

    found, alone, all_of_them = signals(beside, labels), signals(few, labels), signals(whole)
    for name in world.ids:
        for signal in IMAGE_SIGNALS:
            assert found[name][signal] == all_of_them[name][signal]
        for signal in LABEL_SIGNALS:
            assert found[name].get(signal) == alone[name].get(signal)


def test_ties_go_by_name_and_the_labels_a_class_are_the_median():
    unknown = [Measurement(candidate=name) for name in "bca"]
    ranking = rank_candidates(task="t", targets=unknown, labels=np.repeat([0, 1, 2, 4], [2, 2, 9, 3]))
    assert ranking.order == ("a", "b", "c")
    assert ranking.notes[0].endswith("(2 labels a class)")


def test_features_of_other_images_are_refused(world):
    targets, _ = world.targets(0)
    fewer = dataclasses.replace(targets[3], features=targets[3].features[1:])
    with pytest.raises(InputError, match="of the same images"):
        rank_candidates(task=world.names[0], targets=[*targets[:3], fewer])


def test_bad_input_is_refused(world):
    targets, labels = world.targets(0)
    with pytest.raises(InputError, match="each once, but got"):
        rank_candidates(task="t00", targets=[targets[0], targets[0]])
    with pytest.raises(InputError, match="but got 3 labels"):
        rank_candidates(task="t00", targets=targets, labels=labels[:3])


def test_a_library_of_two_tasks_is_said_to_teach_no_weights(world, library):
    targets, _ = world.targets(2, per_class=4)
    notes = rank_candidates(task="new", targets=targets, library=library.select_tasks(["t00", "t01"])).notes
    assert "weights fixed: too few source tasks" in notes
