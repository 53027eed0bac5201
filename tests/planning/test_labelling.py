"""Images for a head: classes in turn, and of each what is typical."""

import numpy as np
import pytest

from vlmsel_auto.planning.labelling import next_to_cover, next_to_tell
from vlmsel_auto.records import UNLABELLED

NAMED = np.array([0, 0, 0, 0, 1, 1])  # most probable classes


def chances(named=NAMED, k=2):
    return 0.1 / (k - 1) + (0.9 - 0.1 / (k - 1)) * np.eye(k)[named]


def angles(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


FEATURES = angles(0, 10, 25, 80, 100, 130)
NOBODY = np.zeros(6, dtype=bool)


def test_the_first_is_typical_of_the_most_frequent_class():
    labels = np.full(6, UNLABELLED)
    assert next_to_cover(FEATURES, classes=chances(), labels=labels, asked=NOBODY) == 2  # amid its class


def test_then_the_class_without_a_label_has_its_turn():
    labels = np.array([UNLABELLED, 0, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED])
    assert next_to_cover(FEATURES, classes=chances(), labels=labels, asked=NOBODY) in {4, 5}


def test_an_image_that_was_asked_for_counts_as_its_probable_class():
    labels, asked = np.full(6, UNLABELLED), np.array([False, True, False, False, False, False])
    assert next_to_cover(FEATURES, classes=chances(), labels=labels, asked=asked) in {4, 5}


def test_what_is_covered_is_not_asked_for_again():
    labels = np.array([UNLABELLED, 0, UNLABELLED, UNLABELLED, 1, UNLABELLED])
    assert next_to_cover(FEATURES, classes=chances(), labels=labels, asked=NOBODY) == 3  # far from the labelled one


def test_a_class_that_has_no_image_left_is_passed_over():
    labels = np.array([0, 0, 0, UNLABELLED, UNLABELLED, UNLABELLED])
    classes = chances(np.array([0, 0, 0, 0, 0, 0]))
    assert next_to_cover(FEATURES, classes=classes, labels=labels, asked=NOBODY) in {3, 4, 5}


def test_nothing_is_left():
    with pytest.raises(ValueError, match="got labels of all 6"):
        next_to_cover(FEATURES, classes=chances(), labels=NAMED, asked=NOBODY)


@pytest.mark.parametrize(("p_weak", "place"), [(0.2, 1), (0.4, 2)], ids=["trusted", "doubted"])
def test_what_tells_most_is_asked_for_and_chance_decides_where_votes_are_doubted(p_weak: float, place: int) -> None:
    found = next_to_tell(
        np.array([0.9, 0.5, 0.1]),
        p_weak=p_weak,
        by_chance=np.array([0.9, 0.1, 0.5]),
        chosen=np.array([True, False, False]),
    )
    assert found == place
