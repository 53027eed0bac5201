import pytest

from vlmsel_auto.planning.trials import Left


@pytest.mark.parametrize(
    ("left", "work", "spent"),
    [
        (Left(), None, False),
        (Left(seconds=10.0, workers=3), 30.0, False),
        (Left(seconds=0.0, trials=5), 0.0, True),
        (Left(seconds=10.0, trials=0), 10.0, True),
    ],
)
def test_what_is_left_is_the_time_of_all_workers_and_either_can_be_spent(
    left: Left, work: float | None, spent: object
) -> None:
    assert left.work == work
    assert left.spent is spent
