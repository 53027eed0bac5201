"""The replay bench on a small drawn table: figures by hand, nothing of the target leaks, runs resume."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planning import replay_figures, replay_strategies, replay_table
from benchmarks.planning.replay_strategies import TRIALS

ROOT = Path(__file__).parents[2]
DATASETS = ("vtab/alpha", "beta", "gamma", "delta", "alpha")
MODELS, RATES, EPOCHS = ("a", "b", "c"), ("0.01", "0.1"), ("10", "20")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    place = tmp_path / "trials.csv"
    with place.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["model", "pretrained", "dataset", "fewshot_k", "lr", "epochs", "lp_acc1", "gmacs_total", "samples_seen"]
        )
        for dataset in DATASETS:
            for number, model in enumerate(MODELS):
                for rate in RATES:
                    for epochs in EPOCHS:
                        value = 0.5 + 0.1 * number + 0.05 * (rate == "0.1") + 0.02 * rng.random()
                        writer.writerow([model, "x", dataset, 10, rate, epochs, value, 40 * (number + 1), 10])
    return place


def test_table_holds_values_costs_and_kin(path):
    table = replay_table.read_table(path, shots="10")
    assert table.values.shape == (5, 3, 2, 2)
    assert table.models == ("a/x", "b/x", "c/x")
    np.testing.assert_allclose(table.costs.mean(axis=(1, 2, 3)), 1)
    np.testing.assert_allclose(table.costs[0, 2, 0, 1] / table.costs[0, 0, 0, 0], 6)  # 3 x GMACs, 2 x epochs
    names = [table.datasets[each] for each in table.kin(table.datasets.index("alpha"))]
    assert sorted(names) == ["alpha", "vtab/alpha"]


def test_tables_of_the_mini_zoo(tmp_path):
    wide = tmp_path / "wide.csv"
    wide.write_text(
        "member,task,zeroshot,finetune_lr3e4,finetune_lr1e3\na,x,.1,.5,.6\nb,x,.1,.7,.8\na,y,.1,.2,.3\nb,y,.1,.4,\n"
    )
    table = replay_table.read_table(wide, shots="10")
    assert (table.datasets, table.models) == (("x",), ("a", "b"))  # y lacks an arm
    np.testing.assert_allclose(table.flat, [[0.6, 0.5, 0.8, 0.7]])  # finetune_lr1e3 comes first
    by_seed = tmp_path / "seeds.csv"
    rows = [
        "member,task,method,seed,zeroshot,accuracy,seconds,error",
        *(
            f"{member},x,{method},{seed},.1,{accuracy + 0.02 * seed},{seconds},"
            for member, accuracy in (("a", 0.5), ("b", 0.6))
            for method, seconds in (("probe", 1), ("finetune", 3))
            for seed in (0, 1)
        ),
        "a,x,probe,2,.1,,1,out of memory",
    ]
    by_seed.write_text("\n".join(rows) + "\n")
    table = replay_table.read_table(by_seed, shots="10")
    assert table.rates == ("finetune", "probe")
    np.testing.assert_allclose(table.flat, [[0.51, 0.51, 0.61, 0.61]])  # two seeds averaged, the failure passed over
    np.testing.assert_allclose(table.costs.ravel(), [1.5, 0.5, 1.5, 0.5])


def test_the_target_and_its_kin_do_not_reach_a_strategy(path):
    table = replay_table.read_table(path, shots="10")
    target = table.datasets.index("alpha")
    scene = replay_table.Scene(table=table, target=target)
    assert scene.others.shape == (3, 12)
    table.values[table.kin(target)] = np.random.default_rng(1).random((2, 3, 2, 2))
    again = replay_table.Scene(table=table, target=target)
    assert again.order() == scene.order() == [2, 1, 0]
    assert again.usual_setting() == scene.usual_setting()
    first = [replay_strategies.STRATEGIES[name](again, 0)[0] for name in ("ours", "average_rank", "hard_top3")]
    assert {arm // 4 for arm in first} == {2}


def test_every_strategy_gives_arms(path):
    table = replay_table.read_table(path, shots="10")
    scene = replay_table.Scene(table=table, target=1)
    for name, strategy in replay_strategies.STRATEGIES.items():
        if name == "gp":
            continue  # seconds
        arms = strategy(scene, 0)
        assert 0 < len(arms) <= TRIALS, name
        assert set(arms) <= set(range(12)), name
        assert strategy(scene, 0) == arms, name


def test_curves_and_figures_by_hand():
    values, costs = np.array([0.5, 0.9, 0.895, 0.7]), np.array([1.0, 2.0, 0.5, 0.5])
    curve = replay_figures.regret_curve(values, [0, 2, 1])
    np.testing.assert_allclose(curve[:4], [40, 0.5, 0, 0])
    assert curve.shape == (TRIALS,)
    by_cost = replay_figures.cost_curve(values, costs, [0, 2, 1])
    start = 100 * (0.9 - values.mean())
    np.testing.assert_allclose(
        [
            by_cost[replay_figures.COSTS <= 0.9][-1],
            by_cost[replay_figures.COSTS <= 1.4][-1],
            by_cost[replay_figures.COSTS <= 1.6][-1],
        ],
        [start, 40, 0.5],
    )
    assert by_cost[-1] == pytest.approx(0)
    row = replay_figures.figures_of(replay_figures.Replay(by_trial=curve[None, None], by_cost=by_cost[None, None]))
    assert (row.median_trials_1pt, row.mean_trials_03pt, row.regret_1) == (2, 3, pytest.approx(40))
    never = replay_figures.first_within(np.full((1, 1, TRIALS), 5.0), points=1.0)
    assert never[0, 0] == TRIALS + 1


def test_saved_trials_are_paired_by_data_set():

    def replay(firsts: list[int]) -> object:
        curves = np.array([[np.where(np.arange(1, TRIALS + 1) >= first, 0.0, 5.0)] for first in firsts])
        return replay_figures.Replay(by_trial=curves, by_cost=curves)

    mean, low, high = replay_figures.saved_by(replay([1, 2, 3]), replay([4, 5, 6]), points=1.0)
    assert (mean, low, high) == (3, 3, 3)
    assert replay_figures.saved_by(replay([1, 2, 9]), replay([1, 2, 3]), points=1.0)[0] == -2


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.planning.search_replay", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_command_writes_resumes_and_prints_json_last(path, tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "out"
    arguments = (path, "--strategies", "tpe,ours,ours_wrong", "--seeds", "2", "--jobs", "1", "--runs", runs)
    first = command(*arguments, "--out", out)
    assert first.returncode == 0, first.stderr
    shown = json.loads(first.stdout.splitlines()[-1])
    assert set(shown) == {"tpe", "ours", "ours_wrong"}
    assert shown["ours"]["median_trials_1pt"] <= 4
    recorded = runs.read_text(encoding="utf-8")
    assert len(recorded.splitlines()) == 2 * len(DATASETS)  # Optuna's only
    runs.write_text(recorded + '{"key": "cut', encoding="utf-8")
    second = command(*arguments, "--quick")
    goals = json.loads(second.stdout.splitlines()[-1])
    assert set(goals["tpe"]) == {"median_trials_1pt", "mean_trials_1pt", "regret_5", "regret_40"}
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 2 * len(DATASETS) + 1  # its one seed is on file
    third = command(*arguments, "--seeds", "3")
    assert third.returncode == 0, third.stderr
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 3 * len(DATASETS) + 1  # a third seed
    written = json.loads((out / "replay-trials-10-shot.json").read_text(encoding="utf-8"))
    assert written["strategies"]["ours"] == shown["ours"]


def test_command_says_what_is_missing(tmp_path, path):
    absent = command(tmp_path / "none.csv")
    assert absent.returncode != 0
    assert "there is no table" in absent.stderr
    unknown = command(path, "--strategies", "magic")
    assert unknown.returncode == 2
    assert "must be among" in unknown.stderr
    empty = command(path, "--shots", "99")
    assert empty.returncode != 0
    assert "no data set with every arm" in empty.stderr
