import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.planning_world import plan, tried
from vlmsel_auto.planning.cost import price, seconds_of, tune_cost
from vlmsel_auto.planning.curves import RUNGS, Curve, best_at, forecast, goes_on, rung_of
from vlmsel_auto.planning.history import Left, best_value, observe, paused
from vlmsel_auto.planning.next_trial import next_step

HALF = Curve(values=(0.5, 0.6), epochs=4)


@given(st.integers(1, 60))
def test_every_trial_passes_its_rungs_in_order_and_ends_on_the_last(epochs: int) -> None:
    rungs = [rung_of(epoch, epochs=epochs) for epoch in range(epochs + 1)]
    assert rungs == sorted(rungs)
    assert (rungs[0], rungs[-1]) == (0, RUNGS)
    curve = Curve(values=tuple(each / 100 for each in range(epochs)), epochs=epochs)
    for epoch in range(1, epochs):
        if rungs[epoch] > rungs[epoch - 1]:  # what a trial shows at a rung is what a whole curve had there
            assert best_at(curve, rung=rungs[epoch]) in curve.values[:epoch]


def test_best_at_a_rung() -> None:
    assert best_at(HALF, rung=2) == 0.6
    assert best_at(HALF, rung=1) == 0.5
    assert best_at(HALF, rung=3) is None


def test_the_better_half_goes_on() -> None:
    assert goes_on(0.1, [])
    assert goes_on(0.5, [0.4])
    assert not goes_on(0.4, [0.5])
    assert goes_on(0.6, [0.9, 0.5, 0.4])
    assert not goes_on(0.5, [0.9, 0.6, 0.4])


def test_forecasts_learn_from_whole_curves() -> None:
    alone = forecast(HALF, others=[])
    assert alone.mean == pytest.approx(0.6 + 0.03 / 2)
    assert alone.sd > 0
    late = [Curve(values=(0.3, 0.4, 0.5, 0.6), epochs=4)] * 6
    more = forecast(HALF, others=[*late, HALF])
    assert alone.mean < more.mean < 0.8  # curves that gained 0.2 in their second half
    flat = forecast(HALF, others=[Curve(values=(0.6, 0.6, 0.6, 0.6), epochs=4)] * 6)
    assert 0.6 < flat.mean < alone.mean
    assert flat.sd < alone.sd
    assert forecast(Curve(values=(0.99,), epochs=2), others=late).mean <= 1.0
    with pytest.raises(ValueError, match="needs an epoch"):
        forecast(Curve(values=(), epochs=2), others=[])


def stopped(name: str, curve: Curve, number: int, **other: object) -> object:
    return tried(
        name, max(curve.values), state="pruned", curve=curve, number=number, share=0.5, resumable=True, **other
    )


def test_a_paused_trial_is_evidence_but_no_result() -> None:
    made = plan(audits=0)
    history = [tried("m0", 0.7), stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1)]
    assert best_value(history) == 0.7
    now = observe(made, history)
    assert now.mean[1, 1] > now.mean[0, 1]
    assert now.sd[1, 1] > now.sd[0, 1]  # where it would have ended is known less well than where another did


def test_a_promising_paused_trial_goes_on_once() -> None:
    made = plan(audits=0, methods=("finetune",))
    history = [tried("m0", 0.7, number=0), stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1), tried("m2", 0.6)]
    assert [each.number for each in paused(history)] == [1]
    step = next_step(made, history, left=Left(seconds=30.0))
    assert step is not None
    assert (step.candidate, step.continues, step.point) == ("m1", 1, history[1].point)
    assert step.why == "goes on with trial 1 after epoch 2 of 4"
    whole = tried("m1", 0.91, number=3, curve=Curve(values=(0.8, 0.9, 0.91, 0.9), epochs=4), continues=1, share=0.5)
    after = next_step(made, [*history, whole], left=Left(seconds=30.0))
    assert paused([*history, whole]) == ()
    assert after is not None
    assert after.continues is None


def test_a_hopeless_paused_trial_stays_paused() -> None:
    made = plan(audits=0, methods=("finetune",))
    history = [tried("m0", 0.9, number=0), stopped("m1", Curve(values=(0.3, 0.3), epochs=4), 1)]
    step = next_step(made, history, left=Left(seconds=30.0))
    assert step is not None
    assert step.continues is None


def test_prices_follow_measured_speed_then_operations() -> None:
    made = plan(audits=0)
    cost = {line.candidate: line.cost for line in made.lines}
    history = [tried("m0", 0.5, "probe"), tried("m1", 0.6, seconds=30.0, share=0.5)]
    seconds = seconds_of(made, history)
    assert seconds["m1", "finetune"] == 60.0  # half of its epochs took 30
    assert seconds["m3", "finetune"] == pytest.approx(60.0 * (cost["m3"] / cost["m1"]) ** 0.5)
    assert seconds["m3", "probe"] == 1.0
    assert seconds_of(made, history[:1])["m3", "finetune"] == pytest.approx(20.0 * cost["m3"] ** 0.5)
    probed = [*history, tried("m3", 0.5, "probe", seconds=3.0), tried("m3", 0.5, "probe", seconds=0.1)]
    assert seconds_of(made, probed)["m3", "probe"] == 0.1  # its features are there
    pace = 3.0 / 2.0  # its first probe against the median first probe
    assert seconds_of(made, probed)["m3", "finetune"] == pytest.approx(60.0 / cost["m1"] ** 0.5 * pace)
    assert price(10.0, left=Left(seconds=100.0, trials=4)) == pytest.approx(0.1 + 0.25)
    assert price(10.0, left=Left()) == 10.0


def test_fine_tuning_is_dear_where_images_are_few() -> None:
    assert tune_cost(train=800, val=200, test=400, epochs=3) == pytest.approx((3 * (3 * 800 + 200) + 400) / 1400)
    few = tune_cost(train=32, val=50, test=150, epochs=30)
    assert few > 3 * tune_cost(train=800, val=200, test=400, epochs=3)
    assert tune_cost(train=50_000, val=2_000, test=10_000, epochs=3) < 10


def test_what_does_not_fit_is_shortened_or_left() -> None:
    made = plan(audits=0, methods=("finetune",))
    history = [tried("m0", 0.5, seconds=40.0, number=0)]
    step = next_step(made, history, left=Left(seconds=40.0))
    assert step is not None
    assert step.point is not None
    assert step.candidate == "m1"
    longer = seconds_of(made, history)["m1", "finetune"] / 40.0
    assert 1 < longer < 3
    assert 9 ** (step.point.epochs - 0.5) == pytest.approx(1 / longer)
    both = plan(audits=0)
    timed = [*(tried(f"m{n}", 0.5, "probe") for n in range(3)), *history]
    late = next_step(both, timed, left=Left(seconds=3.0))
    assert late is not None
    assert late.method == "probe"
