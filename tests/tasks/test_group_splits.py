"""Groups stay together in splits and folds, every class is learned, and what cannot be judged is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmsel_auto.tasks.group_splits import grouped_folds, grouped_split, joined, too_few, torn

NONE = [None] * 400


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of up to 4 classes, and groups that may hold several classes."""
    count = draw(st.integers(1, 12))
    images = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, count)), min_size=2, max_size=60))
    labels, groups = np.array(images, dtype=np.int64).T
    return np.unique(labels, return_inverse=True)[1], groups


@settings(deadline=None)
@given(grouped(), st.booleans(), st.integers(0, 3))
def test_groups_stay_together_and_every_class_is_learned(data, draw_test, seed):
    labels, groups = data
    split = grouped_split(labels, groups, given=NONE[: len(labels)], draw_test=draw_test, seed=seed)
    parts = (split.train, split.val, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert sum(len(np.unique(groups[part])) for part in parts) == len(np.unique(groups))
    assert set(labels[split.train]) == set(labels)
    folds = grouped_folds(split, labels, groups, seed=seed)
    if folds:
        scored = np.concatenate(folds)
        assert np.array_equal(folds[0], split.val)
        assert len(np.unique(scored)) == len(scored)
        assert sum(len(np.unique(groups[fold])) for fold in folds) == len(np.unique(groups[scored]))
        never = np.setdiff1d(np.concatenate([split.train, split.val]), scored)
        assert not set(groups[never]) & set(groups[scored])


def test_the_shares_are_those_of_images_and_the_seed_decides():
    labels, groups = np.repeat(np.arange(4), 80), np.repeat(np.arange(64), 5)
    first, again, other = (
        grouped_split(labels, groups, given=NONE[:320], draw_test=True, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)
    assert abs(len(first.test) - 64) <= 10
    assert abs(len(first.val) - 32) <= 10
    assert len(grouped_folds(first, labels, groups, seed=1)) == 8
    assert set(labels[first.test]) == set(labels)
    assert first.note.startswith("groups of images stay together: 64; drawn were ")


def test_given_splits_stay():
    labels, groups = np.tile([0, 1], 20), np.repeat(np.arange(10), 4)
    given = ["train"] * 32 + ["test"] * 8
    split = grouped_split(labels, groups, given=given, draw_test=True, seed=0)
    assert split.test.tolist() == list(range(32, 40))
    assert len(split.val) == 4
    assert "test" not in split.note


def test_a_class_in_one_group_is_learned_and_never_held_out():
    labels, groups = np.repeat([0, 1, 2], 12), np.concatenate([np.zeros(12), np.repeat(np.arange(1, 9), 3)]).astype(int)
    split = grouped_split(labels, groups, given=NONE[:36], draw_test=True, seed=0)
    folds = grouped_folds(split, labels, groups, seed=0)
    assert not (labels[np.concatenate([split.test, *folds])] == 0).any()
    (told,) = too_few(("a", "b", "c"), labels, judged=[("validation", np.concatenate(folds))])
    assert "validation says nothing of 1 of 3 classes" in told
    assert told.endswith("'a'; a class needs three groups, or two without a test split (--no-test-split)")


def test_where_every_class_is_one_group_nothing_is_held_out():
    labels = np.repeat([0, 1], 6)
    split = grouped_split(labels, labels, given=NONE[:12], draw_test=True, seed=0)
    assert not len(split.val) and not len(split.test)  # noqa: PT018 - one statement
    assert grouped_folds(split, labels, labels, seed=0) == ()


def test_copies_join_groups():
    found = joined(["p", "q", "q", "r", "s", "t"], ["x", "x", "y", "y", "", ""])
    assert len(set(found[:4])) == 1
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("names", "splits", "message"),
    [
        (["a", "a", "b"], ["train", "test", "test"], "gives: 1 ('a in test and train')"),
        (["a", "a", "b"], ["train", "train", "test"], ""),
        (["", "", "b"], ["train", "test", "test"], ""),
        (["a", "a", "b"], [None, None, None], ""),
    ],
)
def test_groups_across_given_splits_are_told(names, splits, message):
    told = torn(names, splits)
    assert message in told
    assert bool(message) == bool(told)
