"""Labels that are probably wrong, against cleanlab's thresholds and against errors that were planted."""

import numpy as np
import pytest
from cleanlab.count import get_confident_thresholds
from scipy.special import log_softmax
from sklearn.datasets import load_digits

from helpers.report_world import doubted, judged, make_report, pictured
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.label_issues import LabelIssues, Opinion, contradicting_pairs, miniatures, suspect

PLANTED = np.arange(0, 200, 20)  # rows whose labels are wrong


def opinions(*, models=3, seed=0, images=200, classes=5):
    """Models that are mostly right about the true classes, and labels of which some were spoilt."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, size=images)
    every = np.arange(images)
    logs = [log_softmax(rng.normal(0, 1, (images, classes)) + 4 * np.eye(classes)[true], axis=1) for _ in range(models)]
    labels = true.copy()
    labels[PLANTED] = (true[PLANTED] + 1) % classes
    return [Opinion(rows=every, logs=each) for each in logs], labels


def test_planted_errors_are_suspected_the_surest_first():
    given, labels = opinions()
    found = suspect(given, labels=labels, n_classes=5)
    assert set(found.suspects) <= set(PLANTED)
    assert len(found.suspects) >= 5
    sure = found.probabilities[found.suspects].max(axis=1)
    assert (np.diff(sure) <= 0).all()
    assert set(found.suspects) <= set(found.missed) <= set(found.judged)


def test_the_thresholds_are_those_of_confident_learning():
    given, labels = opinions(models=2)
    found = suspect(given, labels=labels, n_classes=5)
    thresholds = get_confident_thresholds(labels, found.probabilities)
    said = found.probabilities.argmax(axis=1)
    every = [one.logs.argmax(axis=1) != labels for one in given]
    expected = every[0] & every[1] & (said != labels) & (found.probabilities.max(axis=1) >= thresholds[said])
    assert sorted(found.suspects) == np.flatnonzero(expected).tolist()


def test_one_model_that_is_right_clears_an_image():
    given, labels = opinions()
    right = np.full((1, 5), -9.0)
    right[0, labels[PLANTED[0]]] = -0.01
    cleared = suspect([*given, Opinion(rows=PLANTED[:1], logs=log_softmax(right, axis=1))], labels=labels, n_classes=5)
    assert PLANTED[0] in suspect(given, labels=labels, n_classes=5).missed
    assert PLANTED[0] not in cleared.missed


def test_one_model_alone_suspects_nobody():
    given, labels = opinions(models=1)
    found = suspect(given, labels=labels, n_classes=5)
    assert (len(found.judged), len(found.missed), len(found.suspects)) == (0, 0, 0)


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
