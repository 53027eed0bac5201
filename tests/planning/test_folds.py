import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.planning_world import tried
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.folds import by_settings, fold_ease, folds_of, level_folds
from vlmsel_auto.planning.trials import FoldScore, Tried
from vlmsel_auto.records import TrialState

metrics = st.floats(0, 1)
HERE, THERE = {"learning_rate": 0.3, "epochs": 0.5}, {"learning_rate": 0.7, "epochs": 0.5}


def head(name: str, *folds: tuple[float, float]) -> Tried:
    scores = tuple(FoldScore(metric=metric, soft=soft) for metric, soft in folds)
    metric, soft = (float(np.mean(values)) for values in zip(*folds, strict=True))
    return tried(name, metric, "probe", soft=soft, folds=scores)


def test_folds_are_as_easy_as_cross_validated_trials_find_them() -> None:
    history = [head("m0", (0.8, 0.6), (0.4, 0.4)), head("m1", (0.7, 0.5), (0.5, 0.5)), tried("m0", 0.9)]
    first, second = fold_ease(history)
    assert (first.metric, first.soft) == (pytest.approx(0.15), pytest.approx(0.05))
    assert (second.metric, second.soft) == (pytest.approx(-0.15), pytest.approx(-0.05))
    assert fold_ease([tried("m0", 0.9)]) == ()


def test_towers_are_put_on_the_level_of_all_folds() -> None:
    heads = [head("m0", (0.8, 0.6), (0.4, 0.4))]
    easy, hard = (
        tried("m1", value, soft=soft, fold=fold, curve=Curve(values=(value - 0.1, value), epochs=2))
        for fold, value, soft in ((0, 0.9, 0.7), (1, 0.5, 0.5))
    )
    levelled = level_folds([*heads, easy, hard])
    assert levelled[0] == heads[0]
    for trial in levelled[1:]:  # equally good, though one measured .9 and the other .5
        assert trial.validation == pytest.approx(0.7)
        assert trial.soft == pytest.approx(0.6)
        assert trial.curve.values == (pytest.approx(0.6), pytest.approx(0.7))
    assert level_folds([easy, hard]) == [easy, hard]  # nothing says which part is easy


@given(st.lists(st.tuples(metrics, st.integers(1, 40)), min_size=2, max_size=5))
def test_settings_on_all_folds_have_the_metric_of_all_their_images(scored: list[tuple[float, int]]) -> None:
    trials = [
        tried("m0", metric, soft=metric / 2, images=images, fold=fold, number=fold, point=HERE)
        for fold, (metric, images) in enumerate(scored)
    ]
    (one,) = by_settings(trials)
    total = sum(images for _, images in scored)
    assert one.number == 0
    assert one.images == total
    assert one.validation == pytest.approx(sum(metric * images for metric, images in scored) / total)
    assert one.soft == pytest.approx((one.validation or 0) / 2)


def test_only_complete_trials_of_the_same_settings_are_one() -> None:
    first = tried("m0", 0.7, number=0, fold=0, point=HERE)
    apart = [
        tried("m0", 0.8, number=1, fold=1, point=THERE),
        tried("m1", 0.8, number=2, fold=1, point=HERE),
        tried("m0", 0.8, number=3, fold=1, point=HERE, state=TrialState.PRUNED),
        tried("m0", 0.8, "probe", number=4, point=HERE),
        tried("m0", 0.8, "probe", number=5, point=HERE),  # of all images, twice
    ]
    assert by_settings([first, *apart]) == [first, *apart]
    same = tried("m0", 0.9, number=6, fold=2, point={name: at + 1e-9 for name, at in HERE.items()})
    assert len(by_settings([first, *apart, same])) == 6
    assert folds_of([first, *apart, same], "m0", first.method, HERE) == {0, 2}
    assert folds_of([first, *apart, same], "m2", first.method, HERE) == set()
