"""QUESTION: Is the search better than plain Optuna with real training, in equal wall time?

PAGE: docs/results/speed.md
RESULT: benchmarks/results/live-search-fresh.json, benchmarks/results/live-search-fresh-2.json

    python -m benchmarks.search.live_search --quick
    python -m benchmarks.search.live_search --tasks FOLDER --only ants_bees,trash --seconds 120 --seeds 2 --out RUNS

Both get the same candidates, space, training code and seconds of wall time, which begin with the folder of images.
"ours" is `vlmsel_auto.search`: it looks at the candidates, ranks them and tunes; the target itself is taken out of its
library. "optuna" is TPE with Hyperband over all candidates, methods and hyperparameters. Without ``--tasks`` the target
is scikit-learn's digits. The two runs of a (target, seed) go side by side, so that both meet the same load; a run that
is on file is not done again. The last line is one JSON object.

For each run: the test accuracy of the trial that would be chosen (by plain Optuna the best by validation, by the search
its own choice), against wall time; what the search spent outside
of trials (``overhead``); and, for ours, the share of the budget after which it was as good as plain Optuna at its end,
for each run and (``share_of_means``) for the mean over runs, which noise of single test splits moves less.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from benchmarks.common import command_line, folders, write_json
from benchmarks.search.live_search_runs import Point, Run, work

STRATEGIES = ("ours", "optuna")
_SHARES = tuple(place / 20 for place in range(1, 22))  # of the budget; the last trial may end a little later


def reached(curve: Sequence[Point], level: float) -> float | None:
    """Seconds until the test metric of the incumbent was at least ``level``; None: never."""
    return next((seconds for seconds, _, test in curve if test >= level), None)


def value_at(curve: Sequence[Point], seconds: float) -> float:
    """Test metric of the incumbent after so many seconds; 0 before the first."""
    return next((test for when, _, test in reversed(curve) if when <= seconds), 0.0)


def _mean_at(records: Sequence[dict[str, object]], share: float) -> float:
    """Mean over runs when this share of the budget is spent."""
    found = [value_at(_points(each), share * float(str(each["budget"]))) for each in records]
    return round(sum(found) / max(1, len(found)), 4)


def summary(records: Sequence[dict[str, object]]) -> dict[str, object]:
    """Means over targets and seeds, and how soon ours was as good as plain Optuna in the end."""
    pairs: dict[tuple[object, object], dict[object, dict[str, object]]] = {}
    for each in records:
        pairs.setdefault((each["target"], each["seed"]), {})[each["strategy"]] = each
    rows = []
    for (target, seed), found in sorted(pairs.items(), key=str):
        if set(found) != set(STRATEGIES):
            continue
        mine, theirs = (_points(found[name]) for name in STRATEGIES)
        level = theirs[-1][2] if theirs else 0.0
        when = reached(mine, level)
        budget = float(str(found["ours"]["budget"]))
        rows.append(
            {
                "target": target,
                "seed": seed,
                "ours": mine[-1][2] if mine else 0.0,
                "optuna": level,
                "share": None if when is None else round(when / budget, 3),
                "overhead": round(float(str(found["ours"]["overhead"])), 4),
                "seconds": round(float(str(found["ours"]["seconds"])), 1),
                "trials": [found[name]["trials"] for name in STRATEGIES],
            }
        )
    count = max(1, len(rows))
    whole = [found for found in pairs.values() if set(found) == set(STRATEGIES)]
    means = {name: [_mean_at([found[name] for found in whole], share) for share in _SHARES] for name in STRATEGIES}
    level = sum(float(str(row["optuna"])) for row in rows) / count
    shares = sorted(float(str(row["share"])) if row["share"] is not None else 1.0 for row in rows)
    return {
        "runs": rows,
        "ours": round(sum(float(str(row["ours"])) for row in rows) / count, 4),
        "optuna": round(sum(float(str(row["optuna"])) for row in rows) / count, 4),
        "not_worse": sum(row["share"] is not None for row in rows),
        "mean_by_share": {"share": list(_SHARES), **means},
        "share_of_means": next(
            (share for share, mean in zip(_SHARES, means["ours"], strict=True) if mean >= level), None
        ),
        "median_share": shares[len(shares) // 2] if shares else None,
        "overhead": round(sum(float(str(row["overhead"])) for row in rows) / count, 4),
    }


def _points(record: dict[str, object]) -> list[Point]:
    curve = cast("list[list[float]]", record["curve"])
    return [(seconds, validation, test) for seconds, validation, test in curve]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="digits, 30 seconds, one seed")
    parser.add_argument("--tasks", type=Path, help="folder of task folders; default: scikit-learn's digits")
    parser.add_argument("--only", default="", help="comma list of task names; default: all")
    parser.add_argument("--seconds", type=float, default=120.0, help="wall time of each run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("live-search-runs"), help="folder of records")
    args = parser.parse_args()
    targets: list[Path | None] = [None] if args.tasks is None else [*folders(args.tasks, only=args.only)]
    seconds, seeds = (30.0, 1) if args.quick else (args.seconds, args.seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # of the workers
    records = []
    for task in targets:
        for seed in range(seeds):
            name = "digits" if task is None else task.name
            runs = [
                Run(strategy=each, task=task, name=name, seed=seed, seconds=seconds, out=args.out)
                for each in STRATEGIES
            ]
            runs[0].folder()  # before the clocks start
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=work, args=(run,)) for run in runs if not run.file.exists()]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            for run in runs:
                if run.file.exists():
                    records.append(json.loads(run.file.read_text()))
                    last = records[-1]["curve"][-1] if records[-1]["curve"] else [0.0, 0.0, 0.0]
                    print(
                        f"{name:20s} seed {seed} {run.strategy:7s} {records[-1]['trials']:3d} trials, "
                        f"test {last[2]:.3f} since {last[0]:.0f} s, {records[-1]['best']}",
                        flush=True,
                    )
    found = summary(records)
    rows = cast("list[dict[str, float | None]]", found["runs"])
    print(f"{'target':20s} {'seed':>4s} {'ours':>7s} {'optuna':>7s} {'share of the budget until as good':>34s}")
    for row in rows:
        share = "-" if row["share"] is None else f"{row['share']:.2f}"
        print(f"{row['target']!s:20s} {row['seed']:4d} {row['ours']:7.3f} {row['optuna']:7.3f} {share:>34s}")
    write_json(args.write, {"seconds": seconds, **found})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
