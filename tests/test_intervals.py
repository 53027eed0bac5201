"""Wilson's interval against its formula."""

import pytest

from vlmsel_auto.intervals import wilson


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (0, 40), (3, 40), (35, 40), (40, 40)])
def test_interval_is_wilson_s(right, images):
    z, share = 1.959963984540054, right / images
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    found = wilson(right, images)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert found.level == 0.95
