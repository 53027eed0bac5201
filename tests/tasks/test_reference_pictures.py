"""Pictures of anything."""

import numpy as np
import pytest

from vlmsel_auto.tasks.reference_pictures import PICTURES, reference_pictures


@pytest.mark.parametrize("size", [32, 224])
def test_they_are_different_pictures_of_the_size_that_a_candidate_wants(size):
    found = reference_pictures(size)
    assert (found.shape, found.dtype) == ((PICTURES, size, size, 3), np.uint8)
    assert len(np.unique(found.reshape(PICTURES, -1), axis=0)) == PICTURES
    assert (found.reshape(PICTURES, -1).std(axis=1) > 0).all()


def test_they_are_the_same_each_time():
    np.testing.assert_array_equal(reference_pictures(48), reference_pictures(48))
