import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.planning.space import DEFAULT, Range, moved, shorter

UNIT = st.floats(0, 1)


@given(unit=UNIT, log=st.booleans())
def test_unit_and_value_are_inverse(unit: float, log: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    interval = Range(low=1e-3, high=2.0, log=log)
    assert interval.low <= interval.at(unit) <= interval.high
    assert interval.unit(interval.at(unit)) == pytest.approx(unit, abs=1e-9)


def test_ends_are_exact_and_outside_is_clipped() -> None:
    interval = Range(low=1e-3, high=0.3, log=True)
    assert (interval.at(0), interval.at(1)) == (1e-3, 0.3)
    assert (interval.unit(0.0), interval.unit(5.0)) == (0.0, 1.0)
    assert Range(low=2.0, high=2.0).unit(7.0) == 0.5
    with pytest.raises(ValueError, match=r"\[0, 1\], but got 1\.5"):
        interval.at(1.5)
    with pytest.raises(ValueError, match="needs low <= high"):
        Range(low=2, high=1)
    with pytest.raises(ValueError, match="low > 0 on a log scale"):
        Range(low=0, high=1, log=True)


def test_moves_stay_in_the_cube() -> None:
    moves = {"learning_rate": 2.0, "weight_decay": -2.0, "augmentation": 0.1, "epochs": 0.0}
    assert moved(DEFAULT, moves) == {"learning_rate": 1.0, "weight_decay": 0.0, "augmentation": 0.6, "epochs": 0.5}
    assert moved({"rank": 0.9}, {}) == {"rank": 0.9}


def test_epochs_are_shortened_as_far_as_the_cube_allows() -> None:
    assert shorter(DEFAULT, 1 / 3)["epochs"] == pytest.approx(0.0)
    assert shorter({"epochs": 1.0}, 1 / 3)["epochs"] == pytest.approx(0.5)
    assert shorter(DEFAULT, 0.01)["epochs"] == 0.0
