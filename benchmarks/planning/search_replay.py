"""QUESTION: How soon does a search find a good setting, on recorded trials, beside plain Optuna?

PAGE: docs/results/planning.md
RESULT: benchmarks/results/replay-tuned-truth.json,
    benchmarks/results/replay-probe-trials-10-shot.json,
    benchmarks/results/replay-probe-trials-full.json

    python -m benchmarks.planning.search_replay --quick
    python -m benchmarks.planning.search_replay probe_trials.csv --runs runs.jsonl --jobs 2 --nice 10 \
        --out benchmarks/results
    python -m benchmarks.planning.search_replay tuned_truth.csv --strategies random,tpe,ours

Two kinds of table are understood: the CLIP benchmark's probe trials (model, pretrained, dataset, fewshot_k, lr, epochs,
lp_acc1, gmacs_total, samples_seen) and the mini zoo's tuned accuracies. Regret is the best accuracy of the whole table
of a data set minus the best found so far, in points. What a strategy knows of a data set comes from the OTHER data
sets only; two that share their name (cifar100 and vtab/cifar100) are one. Every run has chance of its own.

Strategies: random; tpe, gp (Optuna over model, learning rate and epochs); tpe_hyperband (epochs as rungs: a pruned
trial has the accuracy and the cost of its last rung); hard_top3, hard_top5 (TPE over the best models by average rank
only), average_rank (TPE over all): each starts with its models in average-rank order, at the setting that is best on
average; prior_sampler (`vlmsel_auto.integrations.optuna_prior` in a user's own study: TPE, the average rank as prior)
and prior_sampler_wrong (the rank reversed); ours (`vlmsel_auto.integrations._arms`, which
`vlmsel_auto.integrations.optuna_past` brings to a user's own study: a table of past trials), ours_per_cost (the same by
gain per cost), ours_wrong (the same with every past accuracy negated), ours_shuffled (with models and settings of the
past under wrong names); source_ceiling, no strategy but a comparison: the order of the one other data set that, in
hindsight, serves the target best.

With --out, JSON is written there. The last line printed is one JSON object: strategy -> medians, means and
regrets; with --quick only the four that the project's goals name. --quick has one seed and no gp.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import optuna

from benchmarks.common import command_line, write_json
from benchmarks.planning.replay_figures import Figures, Replay, figures_of, replay_of, saved_by
from benchmarks.planning.replay_strategies import STRATEGIES, TRIALS, Runs, run_all
from benchmarks.planning.replay_table import read_table

_TABLE = Path(__file__).resolve().parents[3] / "shared" / "tables" / "probe_trials.csv"  # beside the repository
_GOALS = ("median_trials_1pt", "mean_trials_1pt", "regret_5", "regret_40")


def _options() -> argparse.Namespace:
    parser = command_line(__doc__, write=False, quick="one seed, no gp")
    parser.add_argument("table", type=Path, nargs="?", default=_TABLE, help="default: %(default)s")
    parser.add_argument("--shots", default="10", help="10, 25 or -1 (all images)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gp-seeds", type=int, help="of gp, which takes most of the time; default: --seeds")
    parser.add_argument("--strategies", default="", help="comma-separated; default: all")
    parser.add_argument("--runs", type=Path, help="JSON lines; Optuna's runs are recorded there and taken from there")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the JSON")
    options = parser.parse_args()
    names = options.strategies.split(",") if options.strategies else list(STRATEGIES)
    if options.quick and not options.strategies:
        names.remove("gp")
    unknown = sorted(set(names) - set(STRATEGIES))
    if unknown:
        parser.error(f"--strategies must be among {', '.join(STRATEGIES)}, but got {', '.join(unknown)}")
    options.strategies = names
    options.seeds = 1 if options.quick else options.seeds
    return options


def _line(name: str, row: Figures) -> str:
    low, high = row.mean_trials_1pt_interval
    cells = [f"{row.median_trials_1pt:.1f}", f"{row.mean_trials_1pt:.1f} [{low:.1f}, {high:.1f}]"]
    cells += [f"{row.median_trials_03pt:.1f}", f"{row.mean_trials_03pt:.1f}", f"{row.cost_1pt:.1f}"]
    cells += [f"{each:.2f}" for each in (row.regret_1, row.regret_5, row.regret_10, row.regret_40)]
    return f"{name:15s} " + " ".join(f"{each:>17s}" for each in cells)


def _worse(replays: dict[str, Replay], *, name: str, than: str) -> list[int]:
    """Trials at which the mean regret of ``name`` is above that of ``than``."""
    mine, other = (replays[each].by_trial.mean(axis=(0, 1)) for each in (name, than))
    return [place + 1 for place in range(TRIALS) if mine[place] > other[place] + 1e-9]


def main() -> None:
    """Run the replay and print the table."""
    options = _options()
    table = read_table(options.table, shots=options.shots)
    runs = Runs(table=table, path=options.runs)
    seeds = dict.fromkeys(options.strategies, options.seeds)
    if "gp" in seeds and options.gp_seeds:
        seeds["gp"] = options.gp_seeds
    for name, count in seeds.items():
        run_all(runs, names=[name], seeds=count, jobs=options.jobs, nice=options.nice)
    replays = {name: replay_of(table, runs.of(name, seeds=count)) for name, count in seeds.items()}
    figures = {name: figures_of(replay) for name, replay in replays.items()}
    print(
        f"{len(table.datasets)} data sets, {table.flat.shape[1]} arms, {options.seeds} seeds; regret in points, "
        "cost in mean trials, 95 % intervals over data sets"
    )
    head = ("median 1pt", "mean 1pt", "median 0.3pt", "mean 0.3pt", "cost 1pt", "regret@1", "@5", "@10", "@40")
    print(f"{'strategy':15s} " + " ".join(f"{each:>17s}" for each in head))
    for name, row in figures.items():
        print(_line(name, row))
    saved = {}
    for name in replays if "ours" in replays else ():
        saved[name] = [round(each, 2) for each in saved_by(replays["ours"], replays[name], points=1.0)]
    print("trials to 1 point that ours saves, mean and 95 % interval:", json.dumps(saved))
    worse = {}
    if "tpe" in replays:
        worse = {name: _worse(replays, name=name, than="tpe") for name in replays if name.startswith(("ours", "prior"))}
        for name, places in worse.items():
            print(f"{name}: mean regret above TPE's at trials {places}")
    if options.out:
        several = len(table.epochs) > 1  # the mini zoo's tables have no numbers of shots
        _write(options, several=several, replays=replays, figures=figures, worse=worse, saved=saved)
    shown = (
        {name: {key: round(asdict(row)[key], 3) for key in _GOALS} for name, row in figures.items()}
        if options.quick
        else {name: row.rounded() for name, row in figures.items()}
    )
    print(json.dumps(shown))


def _write(
    options: argparse.Namespace,
    *,
    several: bool,
    replays: dict[str, Replay],
    figures: dict[str, Figures],
    worse: dict[str, list[int]],
    saved: dict[str, list[float]],
) -> None:
    label = {"-1": "full"}.get(options.shots, f"{options.shots}-shot") if several else ""
    stem = "-".join(filter(None, ("replay", options.table.stem.replace("_", "-"), label)))
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "table": options.table.name,
        "shots": options.shots if several else None,
        "seeds": options.seeds,
        "optuna": optuna.__version__,
        "strategies": {name: row.rounded() for name, row in figures.items()},
        "trials_to_1pt_that_ours_saves": saved,
        "trials_with_regret_above_tpe": worse,
        "mean_regret_by_trial": {
            name: [round(float(each), 3) for each in replay.by_trial.mean(axis=(0, 1))]
            for name, replay in replays.items()
        },
    }
    write_json(options.out / f"{stem}.json", content)


if __name__ == "__main__":
    main()
