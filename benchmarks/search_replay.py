"""Replay of search strategies on recorded tuning trials: how soon is a good setting found?

    python benchmarks/search_replay.py probe_trials.csv [--quick] [--shots 10] [--seeds 20] [--plot regret.svg]
    python benchmarks/search_replay.py tuned_truth.csv

Two tables are understood: the CLIP benchmark's probe trials (model, pretrained, dataset, fewshot_k, lr, epochs,
lp_acc1, gmacs_total) and the mini zoo's tuned accuracies (member, task, finetune_*). Regret is the best accuracy of the
whole table of a data set minus the best found so far, in points. What a strategy knows of a data set comes from the
OTHER data sets only. With --quick the last line is one JSON object: strategy -> medians, means and regrets.

Strategies: random; tpe, gp (Optuna over model, learning rate and epochs); tpe_hyperband (epochs as rungs: a pruned
trial has the accuracy of its last rung); hard_top3, hard_top5 (TPE over the best models by average rank only);
average_rank (TPE, its first trials on the models in average-rank order); prior_sampler (the integration for a user's
own study: TPE with the candidate drawn from the posterior, first trials at the setting that is best on average); ours
(arms.py: belief over settings, learned from past trials); ours_wrong (the same with every past result negated).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from vlmsel_auto.integrations.optuna_prior import CandidatePrior, PriorSampler, enqueue
from vlmsel_auto.records import Candidate, FloatArray, ImageView, IntArray, Interval, RankedCandidate, Ranking
from vlmsel_auto.trials.arms import learn_arms, next_arm

TRIALS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Recorded accuracies of every arm (model x setting) on every data set."""

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    rates: tuple[str, ...]
    epochs: tuple[str, ...]
    values: FloatArray  # (S, M, R, E) in [0, 1]
    costs: FloatArray  # (S, M, R, E), relative

    @property
    def flat(self) -> FloatArray:
        """(S, A)."""
        return self.values.reshape(len(self.datasets), -1)

    @property
    def candidates(self) -> IntArray:
        """(A,) model of each arm."""
        return np.repeat(np.arange(len(self.models)), len(self.rates) * len(self.epochs))

    @property
    def settings(self) -> IntArray:
        """(A,) setting of each arm."""
        return np.tile(np.arange(len(self.rates) * len(self.epochs)), len(self.models))


def read_table(path: Path, *, shots: str) -> Table:
    """Read either kind of table."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if "fewshot_k" in rows[0]:
        cells = [
            (
                row["dataset"],
                f"{row['model']}/{row['pretrained']}",
                row["lr"],
                row["epochs"],
                float(row["lp_acc1"]),
                float(row["gmacs_total"] or 1),
            )
            for row in rows
            if row["fewshot_k"] == shots
        ]
    else:
        names = [name for name in rows[0] if name.startswith("finetune")]
        cells = [(row["task"], row["member"], name, "60", float(row[name]), 1.0) for row in rows for name in names]
    axes = [tuple(sorted({str(cell[axis]) for cell in cells}, key=_natural)) for axis in range(4)]
    values, costs = np.full([len(axis) for axis in axes], np.nan), np.ones([len(axis) for axis in axes])
    for cell in cells:
        place = tuple(axis.index(str(key)) for axis, key in zip(axes, cell[:4], strict=True))
        values[place], costs[place] = cell[4], cell[5]
    whole = ~np.isnan(values).any(axis=(1, 2, 3))
    return Table(
        datasets=tuple(name for name, kept in zip(axes[0], whole.tolist(), strict=True) if kept),
        models=axes[1],
        rates=axes[2],
        epochs=axes[3],
        values=values[whole],
        costs=costs[whole] / costs[whole].mean(axis=(1, 2, 3), keepdims=True),
    )


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return 0.0, text


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One data set to search on, and the others to learn from."""

    table: Table
    target: int

    @property
    def values(self) -> FloatArray:
        """(M, R, E) of the target."""
        return np.asarray(self.table.values[self.target])

    @property
    def others(self) -> FloatArray:
        """(S - 1, A)."""
        return np.delete(self.table.flat, self.target, axis=0)

    def scores(self) -> FloatArray:
        """(M,) minus the average rank of each model's best accuracy on the others."""
        best = np.delete(self.table.values, self.target, axis=0).max(axis=(2, 3))
        ranks: FloatArray = (-best).argsort(axis=1).argsort(axis=1).mean(axis=0)
        return -ranks


Path_ = list[int]  # arms in the order in which they were tried
Strategy = Callable[[Scene, int], Path_]


def _arm(table: Table, model: int, rate: int, epoch: int) -> int:
    return (model * len(table.rates) + rate) * len(table.epochs) + epoch


def _study(
    scene: Scene, *, sampler: BaseSampler, models: list[int], queue: list[dict[str, int]] | None = None
) -> Path_:
    """Plain Optuna over model, learning rate and epochs; models as an index into the kept ones."""
    table, path = scene.table, []
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for params in queue or []:
        study.enqueue_trial(params)

    def objective(trial: optuna.Trial) -> float:
        model = models[trial.suggest_categorical("model", list(range(len(models))))]
        rate = trial.suggest_categorical("rate", list(range(len(table.rates))))
        epoch = trial.suggest_categorical("epoch", list(range(len(table.epochs))))
        path.append(_arm(table, model, rate, epoch))
        return float(scene.values[model, rate, epoch])

    study.optimize(objective, n_trials=TRIALS)
    return path


def _everyone(scene: Scene) -> list[int]:
    return list(range(len(scene.table.models)))


def _order(scene: Scene) -> list[int]:
    return [int(model) for model in np.argsort(-scene.scores(), kind="stable")]


def random(scene: Scene, seed: int) -> Path_:
    """Uniform."""
    return _study(scene, sampler=RandomSampler(seed=seed), models=_everyone(scene))


def tpe(scene: Scene, seed: int) -> Path_:
    """Optuna's default."""
    return _study(scene, sampler=TPESampler(seed=seed), models=_everyone(scene))


def gp(scene: Scene, seed: int) -> Path_:
    """Optuna's Gaussian process."""
    return _study(scene, sampler=GPSampler(seed=seed), models=_everyone(scene))


def hard_top3(scene: Scene, seed: int) -> Path_:
    """TPE over three models."""
    return _study(scene, sampler=TPESampler(seed=seed), models=_order(scene)[:3])


def hard_top5(scene: Scene, seed: int) -> Path_:
    """TPE over five models."""
    return _study(scene, sampler=TPESampler(seed=seed), models=_order(scene)[:5])


def average_rank(scene: Scene, seed: int) -> Path_:
    """TPE whose first trials follow the average rank."""
    queue = [{"model": model} for model in _order(scene)]
    return _study(scene, sampler=TPESampler(seed=seed), models=_everyone(scene), queue=queue)


def tpe_hyperband(scene: Scene, seed: int) -> Path_:
    """TPE over model and learning rate, epochs as rungs of Hyperband."""
    table, path = scene.table, []
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=len(table.epochs), reduction_factor=2)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seed), pruner=pruner)

    def objective(trial: optuna.Trial) -> float:
        model = trial.suggest_categorical("model", _everyone(scene))
        rate = trial.suggest_categorical("rate", list(range(len(table.rates))))
        for epoch in range(len(table.epochs)):
            value = float(scene.values[model, rate, epoch])
            trial.report(value, step=epoch + 1)
            if epoch == len(table.epochs) - 1 or trial.should_prune():
                path.append(_arm(table, model, rate, epoch))
                if epoch < len(table.epochs) - 1:
                    raise optuna.TrialPruned
                return value
        raise AssertionError

    study.optimize(objective, n_trials=TRIALS)
    return path


def prior_sampler(scene: Scene, seed: int) -> Path_:
    """The integration for a user's own study."""
    table, scores = scene.table, scene.scores()
    standard = (scores - scores.mean()) / scores.std()
    lines = [
        RankedCandidate(
            candidate=name,
            score=float(score),
            sd=0.7,
            prior=float(score),
            evidence=None,
            p_best=0.0,
            p_top5=0.0,
            rank_interval=Interval(low=1, high=len(scores)),
            basis="library",
        )
        for name, score in zip(table.models, standard, strict=True)
    ]
    candidates = [
        Candidate(
            id=name,
            source="open_clip",
            arch=name.partition("/")[0],
            tag=name.partition("/")[2],
            view=ImageView(size=224),
            family=name[:5],
        )
        for name in table.models
    ]
    prior = CandidatePrior.of(Ranking(task="replay", ranked=tuple(lines)), candidates=candidates, parameter="model")
    setting = int(scene.others.reshape(len(table.datasets) - 1, len(table.models), -1).mean(axis=(0, 1)).argmax())
    rate, epoch = divmod(setting, len(table.epochs))
    path: Path_ = []
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior, TPESampler(seed=seed), seed=seed))
    enqueue(study, prior, count=3, params={"rate": rate, "epoch": epoch})

    def objective(trial: optuna.Trial) -> float:
        model = trial.suggest_int("model", 0, len(table.models) - 1)
        at = trial.suggest_categorical("rate", list(range(len(table.rates))))
        until = trial.suggest_categorical("epoch", list(range(len(table.epochs))))
        path.append(_arm(table, model, at, until))
        return float(scene.values[model, at, until])

    study.optimize(objective, n_trials=TRIALS)
    return path


def _arms(scene: Scene, *, sign: float) -> Path_:
    belief = learn_arms(sign * scene.others, candidates=scene.table.candidates, settings=scene.table.settings)
    values = scene.values.ravel()
    tried: Path_ = []
    while len(tried) < min(TRIALS, len(values)):
        arm = next_arm(belief, tried=tried, values=[float(values[each]) for each in tried])
        if arm is None:
            break
        tried.append(arm)
    return tried


def ours(scene: Scene, seed: int) -> Path_:
    """Belief over settings, learned on the other data sets. Deterministic."""
    del seed
    return _arms(scene, sign=1.0)


def ours_wrong(scene: Scene, seed: int) -> Path_:
    """The same, misled."""
    del seed
    return _arms(scene, sign=-1.0)


STRATEGIES: dict[str, Strategy] = {
    each.__name__: each
    for each in (random, tpe, gp, tpe_hyperband, hard_top3, hard_top5, average_rank, prior_sampler, ours, ours_wrong)
}
SEEDED = frozenset(STRATEGIES) - {"ours", "ours_wrong"}


def regret_curve(scene: Scene, path: Path_) -> FloatArray:
    """(TRIALS,) in points."""
    values = scene.values.ravel()
    found = np.maximum.accumulate(values[path])
    curve: FloatArray = 100 * (values.max() - found)
    return np.concatenate([curve, np.full(TRIALS - len(curve), curve[-1])])


def cost_to(scene: Scene, path: Path_, curve: FloatArray, *, points: float) -> float:
    """Cost until within ``points`` of the best, in mean trials; the whole cost when never."""
    costs = np.cumsum(np.asarray(scene.table.costs[scene.target]).ravel()[path])
    hit = np.flatnonzero(curve[: len(path)] <= points)
    return float(costs[hit[0]] if len(hit) else costs[-1])


def trials_to(curve: FloatArray, *, points: float) -> int:
    """Trials until within ``points`` of the best; one more than were made when never."""
    hit = np.flatnonzero(curve <= points)
    return int(hit[0]) + 1 if len(hit) else TRIALS + 1


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over data sets; ``values`` (S,)."""
    draws = np.random.default_rng(0).choice(values, size=(2_000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def replay(table: Table, name: str, *, seeds: int) -> tuple[FloatArray, dict[str, float]]:
    """Curves (S, seeds, TRIALS) and the figures of one strategy."""
    begun = time.perf_counter()
    curves, costs = [], []
    for target in range(len(table.datasets)):
        scene = Scene(table=table, target=target)
        paths = [STRATEGIES[name](scene, seed) for seed in range(seeds if name in SEEDED else 1)]
        curves.append([regret_curve(scene, path) for path in paths])
        costs.append(
            np.mean([cost_to(scene, path, curve, points=1.0) for path, curve in zip(paths, curves[-1], strict=True)])
        )
    shown = np.asarray(curves)
    near = np.array([[trials_to(curve, points=1.0) for curve in row] for row in shown], dtype=np.float64)
    nearer = np.array([[trials_to(curve, points=0.3) for curve in row] for row in shown], dtype=np.float64)
    low, high = interval(near.mean(axis=1))
    return shown, {
        "median_trials_1pt": float(np.median(near)),
        "mean_trials_1pt": float(near.mean()),
        "mean_trials_1pt_low": low,
        "mean_trials_1pt_high": high,
        "median_trials_03pt": float(np.median(nearer)),
        "mean_trials_03pt": float(nearer.mean()),
        "cost_1pt": float(np.mean(costs)),
        "regret_5": float(shown[:, :, 4].mean()),
        "regret_10": float(shown[:, :, 9].mean()),
        "regret_40": float(shown[:, :, TRIALS - 1].mean()),
        "seconds": time.perf_counter() - begun,
    }


def plot(curves: dict[str, FloatArray], path: Path) -> None:
    """Mean regret against trials."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, curve in curves.items():
        axes.plot(np.arange(1, TRIALS + 1), curve.mean(axis=(0, 1)), label=name)
    axes.set(xlabel="trials", ylabel="mean regret, points", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run the replay and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--shots", default="10", help="10, 25 or -1 (all images)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="3 seeds, without the Gaussian process")
    parser.add_argument("--strategies", default="", help="comma-separated; default: all")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table = read_table(options.table, shots=options.shots)
    names = options.strategies.split(",") if options.strategies else list(STRATEGIES)
    if options.quick and not options.strategies:
        names.remove("gp")
    figures, curves = {}, {}
    print(f"{len(table.datasets)} data sets, {table.flat.shape[1]} arms; regret in points; cost in mean trials")
    head = ("median 1pt", "mean 1pt [95 %]", "mean 0.3pt", "cost 1pt", "regret@5", "@10", "@40", "s")
    print(f"{'strategy':15s} " + " ".join(f"{each:>16s}" for each in head))
    for name in names:
        curves[name], row = replay(table, name, seeds=3 if options.quick else options.seeds)
        figures[name] = row
        span = f"{row['mean_trials_1pt']:.1f} [{row['mean_trials_1pt_low']:.1f}, {row['mean_trials_1pt_high']:.1f}]"
        cells = [f"{row['median_trials_1pt']:.1f}", span]
        cells += [f"{row[key]:.2f}" for key in ("mean_trials_03pt", "cost_1pt", "regret_5", "regret_10", "regret_40")]
        cells.append(f"{row['seconds']:.0f}")
        print(f"{name:15s} " + " ".join(f"{each:>16s}" for each in cells), flush=True)
    if options.plot:
        plot(curves, options.plot)
    print(json.dumps({name: {key: round(value, 4) for key, value in row.items()} for name, row in figures.items()}))


if __name__ == "__main__":
    main()
