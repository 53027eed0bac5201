"""The prediction against the trials: the truth's split, agreement, baselines, and why the chosen trial was chosen."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from helpers.report_world import make_ranking, make_trial
from vlmsel_auto.planning.objective import ACCURACY
from vlmsel_auto.ranking.agreement import agreement, ndcg
from vlmsel_auto.records import BestModel
from vlmsel_auto.reporting.evaluation import evaluate
from vlmsel_auto.reporting.sentences import choice_notes

NAMES = ("a", "b", "c", "d", "e", "f")


def trials(accuracies, *, test=True):
    return tuple(
        make_trial(number, name, validation=value, test=value - 0.01 if test else None)
        for number, (name, value) in enumerate(zip(NAMES, accuracies, strict=False))
    )


def best_of(trial):
    return BestModel(
        candidate=trial.spec.candidate, method=trial.spec.method, validation=trial.validation, test=trial.test,
        trial=trial.number, model_dir=Path("out"),
    )  # fmt: skip


def with_average(**ranks):
    """The ranking, with the mean rank over source tasks (1 = best) as a signal of some candidates."""
    known = {name: {"average": -rank} for name, rank in ranks.items()}
    ranking = make_ranking(NAMES)
    return replace(
        ranking, ranked=tuple(replace(line, signals=known.get(line.candidate, {})) for line in ranking.ranked)
    )


def made(given, *, ranking=None, chosen=None):
    return evaluate(ranking or make_ranking(NAMES), given, chosen=chosen, seed=3)


def notes(given, chosen):
    best = None if chosen is None else best_of(chosen)
    return choice_notes(best, given, images=2, objective=ACCURACY)


def test_truth_is_test_only_where_every_tuned_candidate_has_it():
    full = trials([0.9, 0.8])
    assert made(full).actual_on == "test"
    assert made((*full, make_trial(7, "c", validation=0.5))).actual_on == "validation"
    assert made((*full, make_trial(7, "c", state="failed"))).actual_on == "test"
    assert made(()).actual_on == "validation"


def test_agreement_is_that_of_the_scores_with_the_truth():
    given = trials([0.6, 0.9, 0.7, 0.8, 0.5, 0.55])
    report = made(given)
    scores = np.array([line.score for line in make_ranking(NAMES).ranked])
    assert report.agreement == agreement(scores, np.array([trial.test for trial in given]), seed=3)


def test_random_order_is_the_mean_over_all_orders():
    values = [0.6, 0.9, 0.7, 0.8, 0.5]
    report = made(trials(values))
    row = next(line for line in report.baselines if line.name == "random order")
    truth = np.array(values) - 0.01
    everywhere = [ndcg(np.array(order, dtype=float), truth) for order in permutations(range(5))]
    assert row.agreement.ndcg5 == pytest.approx(np.mean(everywhere))
    losses = [truth.max() - value for value in truth]
    assert row.agreement.top1_loss == pytest.approx(np.mean(losses))
    assert row.agreement.ndcg5_interval is None
    assert (row.agreement.tau_b, row.agreement.weighted_tau) == (0.0, 0.0)


def test_where_all_came_out_equal_no_order_has_a_tau():
    report = made(trials([0.8] * 5))
    assert [line.agreement.tau_b for line in report.baselines if line.name == "random order"] == [None]
    assert report.agreement.tau_b is None
    assert "all 5 came out equal" in report.agreement.note


def test_average_rank_is_judged_where_the_library_knows_the_candidate():
    given = trials([0.9, 0.8, 0.7, 0.6])
    right = made(given, ranking=with_average(a=1.0, b=2.0, c=3.0, d=4.0, f=1.5))
    row = right.baselines[1]
    assert row.agreement.top1_loss == pytest.approx(0.0)
    assert row.agreement.n == 4
    assert row.note == ""
    part = made(given, ranking=with_average(d=1.0, a=2.0)).baselines[1]
    assert part.agreement.n == 2
    assert part.note == "2 tuned candidates are not in the library"


def test_where_methods_are_mixed_the_prediction_is_also_judged_by_probes_alone():
    probes = trials([0.6, 0.5, 0.4])
    report = made((*probes, make_trial(3, "c", validation=0.9, test=0.9, method="finetune")))
    assert report.agreement.top1_loss == pytest.approx(0.9 - 0.59)  # c leads because it alone was fine-tuned
    row = report.baselines[0]
    assert row.name == "the same, linear probe alone"
    assert row.agreement == made(probes).agreement
    assert row.note == "3 candidates have one"
    assert all("alone" not in line.name for line in made(probes).baselines)


def test_nothing_tuned_gives_no_figures():
    report = made(())
    assert report.agreement.n == 0
    assert report.agreement.top1_loss is None
    assert report.baselines == ()


def test_unranked_candidates_are_left_out_of_the_judgement():
    given = trials([0.9, 0.8, 0.7])
    report = made((*given, make_trial(9, "stranger", validation=0.99, test=0.99)))
    assert report.agreement.n == 3


def test_the_chosen_trial_counts_for_its_candidate():
    first, chosen = make_trial(0, "a", validation=0.9, test=0.5), make_trial(3, "a", validation=0.9, test=0.95)
    others = (make_trial(1, "b", validation=0.8, test=0.6), make_trial(2, "c", validation=0.7, test=0.7))
    report = made((first, *others, chosen), chosen=3)
    assert report.agreement == made((*others, chosen)).agreement


def test_a_choice_against_validation_is_explained():
    given = trials([0.8, 0.9, 0.7])
    (note,) = notes(given, given[0])
    assert "trial 1 (b) had a higher validation than the chosen trial 0 (90.0 % against 80.0 %); on 2 images" in note
    assert notes(given, given[1]) == []
    assert notes(given, None) == []


def test_a_lucky_fold_of_the_chosen_settings_is_no_choice_against_validation():
    chosen = make_trial(0, "a", validation=0.8, test=0.5)
    lucky = replace(chosen, number=1, validation=0.9, spec=replace(chosen.spec, fold=chosen.spec.fold + 1))
    other = replace(lucky, spec=replace(lucky.spec, epochs=lucky.spec.epochs + 1))
    assert notes((chosen, lucky), chosen) == []
    assert len(notes((chosen, other), chosen)) == 1
