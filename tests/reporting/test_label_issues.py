"""Labels that are probably wrong, against errors that were planted and against the rule written out in another way."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_digits

from helpers.report_world import doubted, judged, make_report, pictured
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.label_issues import LabelIssues, Opinion, contradicting_pairs, miniatures, suspect, tempered

PLANTED = np.arange(0, 200, 20)  # rows whose labels are wrong


def opinions(*, models=3, seed=0, images=200, classes=5, sure=4.0, wrong=PLANTED):
    """Models that are mostly right about the true classes, and labels of which some were spoilt."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, size=images)
    every = np.arange(images)
    seen = sure * np.eye(classes)[true]
    logs = [log_softmax(rng.normal(0, 1, (images, classes)) + seen, axis=1) for _ in range(models)]
    labels = true.copy()
    labels[wrong] = (true[wrong] + 1) % classes
    return [Opinion(rows=every, logs=each) for each in logs], labels


def test_planted_errors_are_suspected_the_surest_first():
    given, labels = opinions()
    found = suspect(given, labels=labels, n_classes=5)
    assert set(found.suspects) == set(PLANTED)
    assert (np.diff(found.wrong) <= 0).all()
    assert found.wrong.min() > 0.5
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(200))
    assert found.power > 0.9


def test_the_stated_precision_comes_true():
    wrong = np.arange(0, 3000, 15)
    given, labels = opinions(models=1, images=3000, sure=2.5, wrong=wrong)
    found = suspect(given, labels=labels, n_classes=5)
    true = np.isin(found.suspects, wrong).mean()
    assert len(found.suspects) > 50
    assert true == pytest.approx(found.wrong.mean(), abs=0.1)


def test_clean_labels_are_left_alone():
    given, labels = opinions(wrong=PLANTED[:0])
    found = suspect(given, labels=labels, n_classes=5)
    assert (len(found.suspects), len(found.wrong)) == (0, 0)
    assert found.power > 0.9


def test_models_that_are_too_weak_name_nothing():
    given, labels = opinions(models=1, sure=1.0)
    found = suspect(given, labels=labels, n_classes=5)
    assert len(found.suspects) == 0
    assert found.power < 0.2


def test_temperature_and_noise_are_the_most_probable_ones():
    given, labels = opinions(models=1, sure=3.0)
    pooled, count = given[0].logs, len(labels)
    said = np.exp(pooled)
    swaps = np.zeros((5, 5))
    for true, other in itertools.permutations(range(5), 2):
        confused = said[:, true] @ said[:, other] / (said[:, true] @ (1 - said[:, true]))
        swaps[true, other] = (1 / 4 + confused) / 2

    def cost(sureness, noise):
        chances = np.exp(log_softmax(sureness * pooled, axis=1))
        own, wrong = (each[np.arange(count), labels] for each in (chances, chances @ swaps))
        return -np.log((1 - noise) * own + noise * wrong).sum() - np.log(noise) - 30 * np.log(1 - noise)

    grid = [(cost(a, b), a, b) for a in np.linspace(0.5, 3, 126) for b in np.linspace(0.001, 0.2, 200)]
    _, sureness, noise = min(grid)
    logs, odds = tempered(pooled, labels)
    assert logs == pytest.approx(log_softmax(sureness * pooled, axis=1), abs=0.3)
    p = np.exp(logs)
    assert odds == pytest.approx(np.log(noise * (p @ swaps) / ((1 - noise) * p)), abs=0.05)


def test_a_label_is_doubted_more_where_it_is_like_the_class_that_models_see():
    unsure = np.array([[0.6, 0.4, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0.6, 0.4], [0, 0, 0.4, 0.6]])
    surely = [0.94, 0.02, 0.02, 0.02]
    logs = np.log(np.maximum(np.concatenate([np.repeat(unsure, 10, axis=0), [surely]]), 1e-4))
    _, odds = tempered(log_softmax(logs, axis=1), logs.argmax(axis=1))
    assert odds[-1, 1] > odds[-1, 2] + 0.3
    assert odds[-1, 2] == pytest.approx(odds[-1, 3], abs=1e-6)


def test_without_an_opinion_nothing_is_said():
    found = suspect([], labels=np.zeros(4, dtype=np.int64), n_classes=2)
    assert (len(found.judged), len(found.suspects), found.power) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "name 29 of 200 labels as wrong; about 80 % of these are expected to be so; of labels swapped"),
        (
            {"suspected": 0, "precision": None},
            "name none of 200 labels as wrong; of labels swapped at random they would",
        ),
        ({"suspected": 0, "precision": None, "power": 0.1}, "too weak to tell wrong labels from their own mistakes"),
    ],
)
def test_one_sentence_says_what_is_known(changes, said):
    assert said in replace(doubted(judged()[2]), **changes).summary


def digits(count=300):
    """Digits as they are, three values a pixel and 32 pixels a side."""
    data = load_digits()
    pixels = np.repeat(np.repeat((data.images[:count] * 15.9).astype(np.uint8), 4, axis=1), 4, axis=2)
    return np.repeat(pixels[..., None], 3, axis=-1), data.target[:count].astype(np.int64)


def test_altered_copies_under_another_label_are_found_and_nothing_else():
    pixels, labels = digits()
    rng = np.random.default_rng(0)
    chosen = np.arange(0, 300, 25)
    noise = rng.normal(0, 4, pixels[chosen].shape)
    copies = np.clip(0.9 * pixels[chosen] + 10 + noise, 0, 255).astype(np.uint8)
    wrong = np.concatenate([labels, (labels[chosen] + 1) % 10])
    found = contradicting_pairs(miniatures(np.concatenate([pixels, copies])), wrong)
    assert {(a, b) for a, b, _ in found} == {(int(row), 300 + place) for place, row in enumerate(chosen)}
    assert [distance for *_, distance in found] == sorted(distance for *_, distance in found)
    alike = np.concatenate([labels, labels[chosen]])
    assert contradicting_pairs(miniatures(np.concatenate([pixels, copies])), alike) == []


@pytest.mark.parametrize("side", [8, 16, 30, 35])
def test_miniatures_have_length_one_and_no_mean(side):
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    found = miniatures(pixels)
    assert found.shape == (5, min(side, 16) ** 2)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert found.mean(axis=1) == pytest.approx(np.zeros(5), abs=1e-6)


def test_blank_images_and_few_images_are_no_error():
    blank = miniatures(np.zeros((4, 16, 16, 3), dtype=np.uint8))
    assert np.isfinite(blank).all()
    assert contradicting_pairs(blank[:2], np.array([0, 1])) == []


def test_the_page_shows_both_kinds_and_json_keeps_them():
    found = pictured(judged()[2], side=16)
    issues = doubted(found)
    assert decode(LabelIssues, encode(issues)) == issues
    page = html_page.html(make_report(label_issues=issues))
    assert "Probably mislabelled: 29 images" in page
    assert "Near-duplicates that are labelled differently: 17 pairs" in page
    assert f"label: {found.surest[0].true}" in page
    assert page.count("<img ") == len(found.surest) + 2 * len(issues.near_duplicates)
    assert "<img" not in html_page.html(make_report(label_issues=doubted(judged()[2], thumbnails=False)))
    assert "Which labels are doubtful?" not in html_page.html(make_report())
