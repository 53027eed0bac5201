import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.planning.curves import RUNGS, Curve, forecast, goes_on, rung_of, value_at

HALF = Curve(values=(0.5, 0.6), epochs=4)


@given(st.integers(1, 60))
def test_every_trial_passes_its_rungs_in_order_and_ends_on_the_last(epochs: int) -> None:
    rungs = [rung_of(epoch, epochs=epochs) for epoch in range(epochs + 1)]
    assert rungs == sorted(rungs)
    assert (rungs[0], rungs[-1]) == (0, RUNGS)
    curve = Curve(values=tuple(each / 100 for each in range(epochs)), epochs=epochs)
    for epoch in range(1, epochs):
        if rungs[epoch] > rungs[epoch - 1]:  # what a trial shows at a rung is what a whole curve had there
            assert value_at(curve, rung=rungs[epoch]) in curve.values[:epoch]


def test_value_at_a_rung() -> None:
    assert value_at(HALF, rung=2) == 0.6
    assert value_at(HALF, rung=1) == 0.5
    assert value_at(HALF, rung=3) is None
    assert value_at(Curve(values=(0.7, 0.6), epochs=4), rung=2) == 0.6  # the last epoch counts, not the best


def test_the_better_half_goes_on() -> None:
    assert goes_on(0.1, [])
    assert goes_on(0.5, [0.4])
    assert not goes_on(0.4, [0.5])
    assert goes_on(0.6, [0.9, 0.5, 0.4])
    assert not goes_on(0.5, [0.9, 0.6, 0.4])


def test_a_forecast_grows_by_the_share_of_the_epochs_that_is_missing() -> None:
    half, whole = forecast(HALF), forecast(Curve(values=(0.5, 0.6), epochs=2))
    assert half.mean == pytest.approx(0.6 + 0.03 / 2)
    assert half.sd == pytest.approx(0.03 / 2)
    assert whole.mean == 0.6
    assert 0 < whole.sd < half.sd
    assert forecast(Curve(values=(0.99,), epochs=4)).mean == 1.0
