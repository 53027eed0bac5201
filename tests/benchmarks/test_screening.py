"""The replay of screening: kin are left out, losses by hand, nothing of the target is known before it is screened."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.screening import replay, strategies, tables
from helpers.published_world import drawn_table

ROOT = Path(__file__).parents[2]
ORDERS = ("random", "average_rank", "imagenet", "portfolio", "ours")


@pytest.fixture
def setting():
    table = drawn_table()
    names = ("ImageNet 1k", "ImageNet-A", "CIFAR-10", "CIFAR-100", *(f"{letter}-set" for letter in "abcdefghij"))
    return tables.Setting(
        name="drawn",
        models=tuple(f"m{place}" for place in range(len(table))),
        datasets=names,
        accuracy=table,
        imagenet=0,
        gigabytes=np.arange(1.0, 13.0),
    )


def test_kin_share_the_first_word(setting):
    assert setting.kin(1) == [0, 1]
    assert setting.kin(3) == [2, 3]
    assert setting.kin(5) == [5]
    assert setting.scene(0, 0).imagenet is None
    assert setting.scene(4, 0).table.shape == (12, 13)


def test_a_screening_shows_160_labels_and_the_draw_decides(setting):
    scene, other = setting.scene(4, 0), setting.scene(4, 1)
    counts = scene.seen * 160
    np.testing.assert_allclose(counts, np.round(counts))
    assert not np.array_equal(scene.seen, other.seen)
    np.testing.assert_array_equal(scene.seen, setting.scene(4, 0).seen)


def test_draws_are_seen_in_turn_and_truth_is_the_others_mean(setting):
    draws = np.stack([setting.accuracy + 0.01 * place for place in range(5)], axis=2)
    probes = tables.Setting(
        name="p", models=setting.models, datasets=setting.datasets, accuracy=draws.mean(axis=2), imagenet=0, draws=draws
    )
    scene = probes.scene(4, 7)
    np.testing.assert_allclose(scene.seen, setting.accuracy[:, 4] + 0.02)
    np.testing.assert_allclose(scene.truth, setting.accuracy[:, 4] + 0.02)


@pytest.mark.parametrize("name", ORDERS)
def test_orders_load_every_model_once_and_know_nothing_of_the_target_before(setting, name):
    start = strategies.STRATEGIES[name]
    order = start(setting.scene(6, 0))
    loaded = [order.load() for _ in range(12)]
    assert sorted(loaded) == list(range(12))
    changed = setting.accuracy.copy()
    changed[:, 6] = changed[::-1, 6]
    moved = tables.Setting(name="x", models=setting.models, datasets=setting.datasets, accuracy=changed, imagenet=0)
    assert start(moved.scene(6, 0)).load() == loaded[0]


def test_losses_are_those_of_the_best_loaded_and_of_the_chosen(setting):
    losses = replay.replay(setting, lambda scene: strategies.Fixed(scene, list(range(11, -1, -1))), draws=2)
    truth = setting.accuracy[:, 5]
    scene = setting.scene(5, 1)
    assert losses.loaded[5, 1, 3] == pytest.approx(100 * (truth.max() - truth[8:].max()))
    assert losses.chosen[5, 1, 3] == pytest.approx(100 * (truth.max() - truth[8 + int(scene.seen[8:].argmax())]))
    assert np.all(losses.loaded[:, :, -1] == 0)


def test_gigabytes_are_counted_until_a_model_is_within_a_point(setting):
    needed, lost = replay.spending(setting, lambda scene: strategies.Fixed(scene, list(range(12))), draws=1)
    for target in range(14):
        loss = 100 * (setting.accuracy[:, target].max() - setting.accuracy[:, target])
        first = int(np.flatnonzero(loss <= 1)[0])
        assert needed[target, 0] == pytest.approx(setting.gigabytes[: first + 1].sum())
        assert lost[target, 0, 0] == pytest.approx(loss[:2].min())  # 1 + 2 of 5 gigabytes


def test_the_portfolio_takes_what_lowers_the_mean_loss_most():
    loss = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0]])
    assert strategies.greedy(loss) == [1, 0, 2]


@pytest.fixture
def runs(tmp_path):
    """Two models on three data sets: m0 has three runs, m1 one, and none on the last."""
    rows = [",cat:model:m0,cat:model:m1", "r0,1.0,0.0", "r1,1.0,0.0", "r2,1.0,0.0", "r3,0.0,1.0"]
    reached = {
        "CAR": {"r0": [10.0, 80.0], "r1": [30.0, 20.0], "r2": [5.0], "r3": [50.0, 70.0]},
        "DOG_1": {"r0": [20.0, 60.0], "r1": [10.0], "r2": [8.0, 9.0], "r3": [40.0, 90.0]},
        "DOG_2": {"r0": [20.0, 50.0]},
    }
    seconds = {
        name: {run: [float(run[1]) + 1] * len(curve) for run, curve in each.items()} for name, each in reached.items()
    }
    for name, text in {
        "quicktune_extended_table.csv.gz": "\n".join(rows) + "\n",
        "quicktune_extended_curves_perf.json.gz": json.dumps({"info": {"metric": "x"}, **reached}),
        "quicktune_extended_curves_cost.json.gz": json.dumps({"info": {}, **seconds}),
    }.items():
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as stream:
            stream.write(text)
    return tmp_path


def test_runs_of_fine_tuning_as_a_setting(runs):
    (setting,) = tables.quicktune(runs)
    assert (setting.models, setting.datasets, setting.unit) == (("m0", "m1"), ("CAR", "DOG_1", "DOG_2"), "seconds")
    np.testing.assert_allclose(setting.accuracy, [[0.8, 0.6, 0.5], [0.7, 0.9, np.nan]])  # final, best of the runs
    np.testing.assert_allclose(setting.screenings[0, 0], 0.3)  # first epochs: 10, 30, 5
    np.testing.assert_allclose(setting.seconds[:, 0], np.array([[1.0 + 2 + 3], [4.0]]) * np.ones(10))
    assert setting.kin(1) == [1, 2]
    assert tables.quicktune(runs / "none") == []


def test_models_without_a_truth_are_no_candidates_and_screenings_are_told_as_accuracies(runs):
    (setting,) = tables.quicktune(runs)
    assert setting.scene(2, 0).models.tolist() == [0]
    scene = setting.scene(0, 0)
    assert scene.table.shape == (2, 2)
    assert np.isfinite(scene.table).all()
    # screenings .2, .2, .4 reached .6, .5, .9 on the others: the line .2 -> .55, .4 -> .9
    np.testing.assert_allclose(scene.seen, [0.55 + 1.75 * 0.1, 1.0])
    np.testing.assert_allclose(scene.sd, np.sqrt(2 * 0.05**2 / 3))
    np.testing.assert_allclose(scene.cost, [6.0, 4.0])


@pytest.mark.slow
def test_quick_prints_one_object_last(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.screening.replay", "--quick", "--draws", "1", "--tables", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["looking"]
    assert set(rows) == {"openclip", "openclip_small"}
    assert set(rows["openclip"]["ours"]) == {"1", "3", "5", "10"}
    assert rows["openclip"]["average_rank"]["1"] == pytest.approx(3.78, abs=0.01)
