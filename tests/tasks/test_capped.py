"""Which images of a large folder are used."""

from pathlib import Path

import numpy as np
import pytest

from helpers.task_folders import fill
from vlmsel_auto.tasks.capped import LEAST_TEST, capped
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.scan import Scan


def listed(root: Path, *, train: tuple[int, int], test: tuple[int, int]) -> Scan:
    """A folder of two classes; its files are not opened."""
    counts = {("train", "a"): train[0], ("train", "b"): train[1], ("test", "a"): test[0], ("test", "b"): test[1]}
    fill(root, *(f"{part}/{name}/{k:05d}.png" for (part, name), count in counts.items() for k in range(count)))
    return scan_folder(root)


def kept(scan: Scan, positions: np.ndarray) -> dict[tuple[str | None, str], int]:
    found = [(scan.entries[at].part, scan.entries[at].label) for at in positions]
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
