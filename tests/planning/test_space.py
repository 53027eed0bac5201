import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.planning_world import candidate
from vlmsel_auto.planning.space import DEFAULT, PastTrial, Range, learn_defaults, moved, shorter
from vlmsel_auto.tuning.methods import FINETUNE

UNIT = st.floats(0, 1)
MIDDLE = dict.fromkeys(FINETUNE.settings, 0.5)


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


VIT, CNN = candidate(0, "vit"), candidate(1, "cnn")


def trial(rate: float, value: float, *, task: str = "t", family: str = "vit", name: str = "m0") -> PastTrial:
    point = {"learning_rate": rate, "weight_decay": 0.5, "augmentation": 0.5, "epochs": 0.5}
    return PastTrial(task=task, candidate=name, family=family, method="finetune", point=point, value=value)


def learned(past: list[PastTrial], **other: str) -> dict[str, dict[str, float]]:
    found = learn_defaults(past, candidates=[VIT, CNN], methods={"finetune": FINETUNE.settings}, **other)
    return {"vit": found["m0", "finetune"], "cnn": found["m1", "finetune"]}


def test_without_a_past_the_built_in_defaults_stay() -> None:
    assert learned([]) == {"vit": MIDDLE, "cnn": MIDDLE}
    assert learned([trial(0.9, 0.8)])["vit"] == MIDDLE  # one trial says nothing of others
    assert learned([trial(0.5, value) for value in (0.6, 0.8, 0.7)])["vit"] == MIDDLE


def test_a_family_learns_most_from_its_own() -> None:
    past = [each for task in "abcdefgh" for each in (trial(0.9, 0.9, task=task), trial(0.5, 0.7, task=task))]
    found = learned(past)
    assert 0.5 < found["cnn"]["learning_rate"] < found["vit"]["learning_rate"] < 0.9
    assert found["vit"]["weight_decay"] == pytest.approx(0.5)
    more = learned([*past, *(trial(0.1, 0.9, task=task, family="cnn", name="m1") for task in "abcd" for _ in (0, 1))])
    assert more["cnn"]["learning_rate"] < found["cnn"]["learning_rate"]


def test_the_target_itself_is_left_out() -> None:
    past = [trial(0.9, 0.9, task="x"), trial(0.5, 0.7, task="x")]
    assert learned(past, without="x") == learned([])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), st.randoms())
def test_order_does_not_matter_and_points_stay_in_the_cube(trials: list[tuple[float, float]], random: object) -> None:
    past = [trial(rate, value, task=str(number % 3)) for number, (rate, value) in enumerate(trials)]
    found = learned(past)
    assert all(0 <= point["learning_rate"] <= 1 for point in found.values())
    random.shuffle(past)
    assert learned(past)["vit"]["learning_rate"] == pytest.approx(found["vit"]["learning_rate"])
