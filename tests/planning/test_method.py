import pytest

from vlmsel_auto.planning.method import SplitSizes
from vlmsel_auto.tuning.methods import FINETUNE, PROBE


def test_fine_tuning_is_dear_where_images_are_few() -> None:
    many = FINETUNE.relative_cost(SplitSizes(train=800, val=200, test=400), epochs=3)
    assert many == pytest.approx((3 * (3 * 800 + 200) + 400) / 1400)
    assert FINETUNE.relative_cost(SplitSizes(train=32, val=50, test=150), epochs=30) > 3 * many
    assert FINETUNE.relative_cost(SplitSizes(train=50_000, val=2_000, test=10_000), epochs=3) < 10
    assert PROBE.relative_cost(SplitSizes(train=32, val=50, test=150), epochs=240) == 1.0
