"""Templates that candidates agree on: Cohen's kappa over pairs, and the rule by which templates are averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from vlmsel_auto.ranking.templates import (
    LEAST_IMAGES,
    LEAST_VOTERS,
    Heard,
    agreed_templates,
    agreement,
    choose_by_agreement,
    nearness,
    voters,
)


def pair(m=2):
    """Weights of M candidates that count alike."""
    return voters(np.zeros(m), np.eye(m))


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_two_candidates_agree_by_cohens_kappa(n_classes):
    rng = np.random.default_rng(n_classes)
    one = rng.integers(n_classes, size=80)
    other = np.where(rng.random(80) < 0.5, one, rng.integers(n_classes, size=80))
    found = agreement(np.stack([one, other]), pair(), n_classes=n_classes)
    assert found.mean() == pytest.approx(cohen_kappa_score(one, other))


def test_agreement_of_several_is_that_of_their_pairs_with_chances_pooled():
    rng = np.random.default_rng(0)
    predicted = rng.integers(4, size=(5, 60))
    shares = [np.bincount(row, minlength=4) / 60 for row in predicted]
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    agreed = np.mean([np.mean(predicted[i] == predicted[j]) for i, j in pairs])
    chance = np.mean([shares[i] @ shares[j] for i, j in pairs])
    assert agreement(predicted, pair(5), n_classes=4).mean() == pytest.approx((agreed - chance) / (1 - chance))


@given(seed=st.integers(0, 2**32 - 1), n_classes=st.integers(2, 6))
def test_names_of_classes_and_the_order_of_candidates_do_not_matter(seed, n_classes):
    rng = np.random.default_rng(seed)
    predicted, margins = rng.integers(n_classes, size=(6, 30)), rng.random(6)
    alike = np.eye(6)
    order, names = rng.permutation(6), rng.permutation(n_classes)
    found = agreement(predicted, voters(margins, alike), n_classes=n_classes)
    other = agreement(names[predicted[order]], voters(margins[order], alike), n_classes=n_classes)
    np.testing.assert_allclose(found, other, atol=1e-12)
    assert found.max() <= 1 + 1e-12


def test_candidates_that_always_name_one_class_do_not_agree():
    """They do so by chance alone."""
    assert agreement(np.zeros((4, 30), dtype=np.int64), pair(4), n_classes=3).tolist() == [0.0] * 30


def test_copies_do_not_agree_with_each_other():
    alike = np.eye(3)
    alike[0, 1] = alike[1, 0] = 1.0
    weights = voters(np.zeros(3), alike)
    assert weights[0, 1] == 0.0
    assert weights.sum() == pytest.approx(1.0)


def test_who_decides_clearly_counts_for_more():
    weights = voters(np.array([0.1, 0.1, 0.3, 0.3]), np.eye(4))
    assert weights[2, 3] > weights[0, 2] > weights[0, 1]


def noisy(mean, n=100, seed=0):
    """Agreement of n images around a mean."""
    return mean + 0.1 * np.random.default_rng(seed).standard_normal(n)


def test_the_first_template_stays_unless_another_is_clearly_better():
    assert agreed_templates([noisy(0.5), noisy(0.5, seed=1), noisy(0.51, seed=2)]) == (0,)
    assert agreed_templates([noisy(0.5), noisy(0.5, seed=1), noisy(0.6, seed=2)]) == (2,)


def test_templates_as_good_as_the_best_are_averaged_the_best_first():
    assert agreed_templates([noisy(0.2), noisy(0.6, seed=1), noisy(0.601, seed=2), noisy(0.4, seed=3)]) == (2, 1)


def test_at_most_five_are_averaged():
    assert len(agreed_templates([np.zeros(30), *(np.full(30, 0.5) for _ in range(9))])) == 5


def world(*, good, n=60, n_classes=4, m=LEAST_VOTERS, templates=3, width=16, seed=0):
    """Candidates whose class names lie near the images of their class in one template, and anywhere in the others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    heard = []
    for _ in range(m):
        centres = rng.standard_normal((n_classes, width))
        spoken = rng.standard_normal((templates, n_classes, width))
        spoken[good] = centres + 0.5 * rng.standard_normal((n_classes, width))
        heard.append(
            Heard(
                images=centres[labels] + 0.5 * rng.standard_normal((n, width)),
                elsewhere=rng.standard_normal((30, width)),
                captions=spoken / np.linalg.norm(spoken, axis=2, keepdims=True),
            )
        )
    return heard


@pytest.mark.parametrize("good", [0, 1, 2])
def test_words_that_suit_the_images_are_found_without_labels(good):
    choice = choose_by_agreement(world(good=good))
    assert choice.places == (good,)
    assert choice.kappa > 0.5
    assert (choice.before == choice.kappa) == (good == 0)


def test_the_scale_of_a_candidates_embeddings_does_not_matter():
    heard = world(good=1)
    scaled = [
        replace(one, images=10.0**i * one.images, elsewhere=2.0**i * one.elsewhere) for i, one in enumerate(heard)
    ]
    one, other = choose_by_agreement(scaled), choose_by_agreement(heard)
    assert one.places == other.places
    assert (one.kappa, one.before) == pytest.approx((other.kappa, other.before))


def test_words_that_are_no_nearer_to_the_images_than_to_other_pictures_do_not_count():
    """Candidates would agree in the second template, whose texts share a direction with the other pictures."""
    heard = [other_pictures_in_view(one) for one in world(good=1)]
    assert np.mean([nearness(one)[1] - nearness(one)[0] for one in heard]) < 0
    assert 1 not in choose_by_agreement(heard).places


def other_pictures_in_view(heard):
    """The candidate with one more dimension, which only other pictures and texts of the second template have."""
    captions = np.pad(heard.captions, ((0, 0), (0, 0), (0, 1)))
    captions[1, :, -1] = 3.0
    return Heard(
        images=np.pad(heard.images, ((0, 0), (0, 1))),
        elsewhere=np.pad(heard.elsewhere, ((0, 0), (0, 1)), constant_values=50.0),
        captions=captions / np.linalg.norm(captions, axis=2, keepdims=True),
    )


def test_nearness_is_what_a_name_has_with_the_images_beyond_other_pictures():
    images, elsewhere = np.eye(2), np.array([[0.0, 2.0]])
    captions = np.stack([np.eye(2), np.eye(2)[::-1]])
    expected = np.mean([1.0 - 0.0, max(0.0, 1.0 - 1.0)]) / np.std(np.eye(2))
    found = nearness(Heard(images=images, elsewhere=elsewhere, captions=captions))
    np.testing.assert_allclose(found, [expected, expected])


@pytest.mark.parametrize(("m", "n"), [(LEAST_VOTERS - 1, 60), (LEAST_VOTERS, LEAST_IMAGES - 1)])
def test_few_candidates_or_images_choose_nothing(m, n):
    with pytest.raises(ValueError, match="6 candidates and 20 images or more, but got"):
        choose_by_agreement(world(good=1, m=m, n=n))


def test_no_candidate_chooses_nothing():
    with pytest.raises(ValueError, match="but got 0 and 0"):
        choose_by_agreement([])
