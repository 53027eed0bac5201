import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.planning.space import LARGE_TOWER, Point, Range, space_for
from vlmsel_auto.records import Candidate, ImageView

UNIT = st.floats(0, 1)


def candidate(family: str = "vit", params: int | None = 1_000_000) -> Candidate:
    return Candidate(
        id="a", source="local-dir", arch="a", tag="t", view=ImageView(size=32), params=params, family=family
    )


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


@pytest.mark.parametrize("method", ["probe", "finetune"])
@pytest.mark.parametrize("images", [2, 160, 20_000])
def test_every_point_is_a_sound_trial(method: str, images: int) -> None:
    space = space_for(method, candidate=candidate(), train_images=images)
    for unit in (0.0, 0.5, 1.0):
        point = Point(learning_rate=unit, weight_decay=unit, augmentation=unit, epochs=unit)
        spec = space.spec(point, candidate="a", seed=3)
        assert spec.epochs >= 1
        assert 0 < spec.learning_rate < 1
        assert 0 <= spec.augmentation <= 1
        back = space.point(spec)
        assert back.learning_rate == pytest.approx(unit)
        assert back.weight_decay == pytest.approx(unit)


def test_small_towers_learn_fast_and_large_ones_slowly() -> None:
    small = space_for("finetune", candidate=candidate(), train_images=100).learning_rate
    large = space_for("finetune", candidate=candidate(params=LARGE_TOWER), train_images=100).learning_rate
    huge = space_for("finetune", candidate=candidate(params=10**9), train_images=100).learning_rate
    unknown = space_for("finetune", candidate=candidate(params=None), train_images=100).learning_rate
    assert 2e-5 <= small.low < small.high <= 1e-2
    assert 5e-7 <= large.low < large.high <= 1e-4
    assert huge.high < large.high
    assert unknown == large


def test_few_images_are_shown_more_often() -> None:
    epochs = [space_for("finetune", candidate=candidate(), train_images=n).epochs.at(0.5) for n in (100, 500, 20_000)]
    assert epochs[0] > epochs[1] > epochs[2] == pytest.approx(3)


def test_a_probe_has_no_augmentation() -> None:
    spec = space_for("probe", candidate=candidate(), train_images=10).spec(
        Point(augmentation=1.0), candidate="a", seed=0
    )
    assert spec.augmentation == 0


def test_moves_stay_in_the_cube() -> None:
    moved = Point().moved(learning_rate=2.0, weight_decay=-2.0, augmentation=0.1, epochs=0.0)
    assert moved == Point(learning_rate=1.0, weight_decay=0.0, augmentation=0.6, epochs=0.5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="image counts must be positive"):
        space_for("probe", candidate=candidate(), train_images=0)
    with pytest.raises(ValueError, match="method must be 'probe' or 'finetune', but got 'lora'"):
        space_for("lora", candidate=candidate(), train_images=10)
