"""Splits: whole, disjoint, stratified, seeded, and copies stay together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.task_folders import fill
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.scan import Scan
from vlmsel_auto.tasks.split import LEAST_TEST, capped, carve, few_shot, folds, stratified_cap, three_way


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of up to 5 classes, and groups of copies within classes."""
    counts = draw(st.lists(st.integers(1, 25), min_size=1, max_size=5))
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[np.array(draw(st.permutations(range(len(labels)))))]
    groups = np.arange(len(labels))
    for place in draw(st.lists(st.integers(0, len(labels) - 1), max_size=8)):
        twin = int(np.flatnonzero(labels == labels[place])[0])
        groups[place] = groups[twin]
    return labels.astype(np.int64), groups.astype(np.int64)


def sizes(n: int) -> tuple[int, int, int]:
    parts = three_way(np.zeros(n, dtype=np.int64), np.arange(n), seed=0, val=1 / 8)
    return len(parts.train), len(parts.val), len(parts.test)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (5, (3, 1, 1)),
        (10, (7, 1, 2)),
        (100, (70, 10, 20)),
    ],
)
def test_sizes_of_one_class(n: int, expected: tuple[int, int, int]) -> None:
    assert sizes(n) == expected


@given(labelled(), st.integers(0, 5))
def test_three_parts_are_a_partition_and_copies_stay_together(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, groups = data
    parts = three_way(labels, groups, seed=seed, val=0.2)
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert sorted(together.tolist()) == list(range(len(labels)))
    for one, other in ((parts.train, parts.val), (parts.train, parts.test), (parts.val, parts.test)):
        assert not set(groups[one]) & set(groups[other])
    for label in np.unique(labels):
        different = len(set(groups[labels == label]))
        has = [bool((labels[part] == label).any()) for part in (parts.train, parts.val, parts.test)]
        assert has == [True, different >= 3, different >= 2]


@given(labelled(), st.integers(0, 5))
def test_carving_leaves_every_class_something(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, groups = data
    kept, taken = carve(labels, groups, seed=seed)
    assert sorted([*kept.tolist(), *taken.tolist()]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[taken])
    assert set(labels[kept]) == set(labels)
    assert set(labels[taken]) == {label for label in set(labels) if len(set(groups[labels == label])) >= 2}


def test_carving_takes_the_share() -> None:
    labels = np.repeat([0, 1], [50, 10])
    _, taken = carve(labels, np.arange(60), seed=3)
    assert np.bincount(labels[taken]).tolist() == [10, 2]


@given(labelled(), st.integers(1, 20), st.integers(0, 5))
def test_few_shot_takes_at_most_so_many_of_each(data: tuple[np.ndarray, np.ndarray], shots: int, seed: int) -> None:
    labels, _ = data
    train = np.arange(0, len(labels), 2)
    support = few_shot(labels, train, shots=shots, seed=seed)
    assert set(support) <= set(train)
    assert sorted(set(support)) == support.tolist()
    for label in np.unique(labels[train]):
        assert (labels[support] == label).sum() == min(shots, (labels[train] == label).sum())
    assert set(support) <= set(few_shot(labels, train, shots=shots + 3, seed=seed))
    with pytest.raises(ValueError, match="at least 1"):
        few_shot(labels, train, shots=0, seed=seed)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 150))
def test_the_cap_is_kept_in_proportion(counts: list[int], cap: int) -> None:
    strata = np.repeat(np.arange(len(counts)), counts)
    kept = stratified_cap(strata, cap=cap, seed=1)
    floor = sum(min(3, one) for one in counts)
    assert len(kept) == min(len(strata), max(cap, floor))
    got = np.bincount(strata[kept], minlength=len(counts))
    assert all(have >= min(3, one) for have, one in zip(got, counts, strict=True))
    if cap < len(strata):  # strata above the floor have shares in proportion, to within the rounding
        free = got > np.minimum(counts, 3)
        ratios = got[free] / np.array(counts)[free]
        for place, ratio in zip(np.flatnonzero(free), ratios, strict=True):
            for other, another in zip(np.flatnonzero(free), ratios, strict=True):
                assert abs(ratio - another) <= 1 / counts[place] + 1 / counts[other]


@pytest.mark.parametrize(
    ("counts", "cap", "expected"),
    [([40, 20], 30, [20, 10]), ([100, 4], 20, [17, 3]), ([2, 50, 50], 12, [2, 5, 5]), ([9, 9], 2, [3, 3])],
)
def test_sizes_under_a_cap(counts: list[int], cap: int, expected: list[int]) -> None:
    strata = np.repeat(np.arange(len(counts)), counts)
    assert np.bincount(strata[stratified_cap(strata, cap=cap, seed=0)]).tolist() == expected


def test_the_seed_decides_and_nothing_else() -> None:
    labels, groups = np.repeat([0, 1, 2], 30), np.arange(90)
    first, again, other = (three_way(labels, groups, seed=seed, val=0.2) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.test, again.test)
    assert first.test.tolist() != other.test.tolist()
    longer = three_way(np.repeat([0, 1, 2], [30, 30, 45]), np.arange(105), seed=4, val=0.2)
    np.testing.assert_array_equal(first.test[first.test < 60], longer.test[longer.test < 60])  # classes do not interact


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_folds_divide_every_class_evenly_and_keep_copies_together(classes: int, each: int, seed: int) -> None:
    labels = np.repeat(np.arange(classes), 2 * each)
    groups = np.repeat(np.arange(classes * each), 2) * 2  # every image is there twice
    parts = folds(labels, groups, count=4, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        assert all(np.isin(np.flatnonzero(groups == group), part).all() for group in groups[part])
    sizes = np.array([np.bincount(labels[part], minlength=classes) for part in parts])
    assert (sizes.max(axis=0) - sizes.min(axis=0) <= 2).all() or len(parts) < 4


def listed(root: Path, *, train: tuple[int, int], test: tuple[int, int]) -> Scan:
    """A folder of two classes; its files are not opened."""
    counts = {("train", "a"): train[0], ("train", "b"): train[1], ("test", "a"): test[0], ("test", "b"): test[1]}
    fill(root, *(f"{part}/{name}/{k:05d}.png" for (part, name), count in counts.items() for k in range(count)))
    return scan_folder(root)


def kept(scan: Scan, positions: np.ndarray) -> dict[tuple[str | None, str], int]:
    found = [(scan.entries[at].split, scan.entries[at].label) for at in positions]
    return {one: found.count(one) for one in set(found)}


def test_a_test_split_is_used_whole_up_to_a_thousand_images(tmp_path):
    scan = listed(tmp_path, train=(3, 3), test=(500, LEAST_TEST - 500))
    positions, notes = capped(scan, train=None, test=None, seed=0)
    np.testing.assert_array_equal(positions, np.arange(6 + LEAST_TEST))
    assert notes == ()


def test_of_a_larger_one_classes_are_kept_in_proportion(tmp_path):
    scan = listed(tmp_path, train=(3, 3), test=(1_800, 600))
    positions, notes = capped(scan, train=None, test=None, seed=0)
    assert (np.diff(positions) > 0).all()
    assert kept(scan, positions) == {("train", "a"): 3, ("train", "b"): 3, ("test", "a"): 750, ("test", "b"): 250}
    assert notes == ("1,000 of 2,400 images of the given test split were used (stratified draw)",)
    again, _ = capped(scan, train=None, test=None, seed=0)
    other, _ = capped(scan, train=None, test=None, seed=1)
    np.testing.assert_array_equal(again, positions)
    assert not np.array_equal(other, positions)


def test_as_many_test_images_as_others_are_always_used(tmp_path):
    scan = listed(tmp_path, train=(900, 300), test=(900, 400))
    assert sum(kept(scan, capped(scan, train=None, test=None, seed=0)[0]).values()) == 2 * 1_200
    fewer, notes = capped(scan, train=400, test=None, seed=0)
    assert sum(kept(scan, fewer).values()) == 400 + LEAST_TEST
    assert len(notes) == 2


@pytest.mark.parametrize("most", [20, 10_000])
def test_the_number_that_is_asked_for_decides(tmp_path, most):
    scan = listed(tmp_path, train=(3, 3), test=(60, 20))
    assert len(capped(scan, train=None, test=most, seed=0)[0]) == 6 + min(most, 80)
