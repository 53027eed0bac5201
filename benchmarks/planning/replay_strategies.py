"""The strategies that are replayed: each maps a scene and a seed to the arms in the order in which it tries them.

They run in several processes; runs that need Optuna only are recorded and not done again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from benchmarks.planning.replay_table import Scene, Table
from vlmsel_auto.integrations._arms import learn_arms, posterior_arms
from vlmsel_auto.integrations.optuna_prior import CandidatePrior, PriorSampler
from vlmsel_auto.records import Basis, Candidate, FloatArray, ImageView, Interval, RankedCandidate, Ranking


@dataclass(kw_only=True)
class Runs:
    """Arms in the order in which they were tried, by strategy, data set and seed."""

    table: Table
    path: Path | None = None  # JSON lines; None: nothing is recorded
    known: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what was recorded; a line that was cut off while being written is passed over."""
        if self.path is None or not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[row["key"]] = row["arms"]

    def key(self, name: str, target: int, seed: int) -> str:
        """Names one run: another table or Optuna gives other runs."""
        return "|".join((self.table.digest, optuna.__version__, name, self.table.datasets[target], str(seed)))

    def add(self, name: str, target: int, seed: int, arms: list[int]) -> None:
        """Keep a run, and record it where it can be taken again."""
        key = self.key(name, target, seed)
        self.known[key] = arms
        if self.path is not None and name in OPTUNA_ONLY:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "arms": arms}) + "\n")

    def of(self, name: str, *, seeds: int) -> list[list[list[int]]]:
        """Data sets x seeds x trials; one seed where chance has no part."""
        count = 1 if name in DETERMINISTIC else seeds
        return [
            [self.known[self.key(name, target, seed)] for seed in range(count)]
            for target in range(len(self.table.datasets))
        ]


def _quiet(nice: int) -> None:
    os.nice(nice)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def _run(name: str, table: Table, target: int, seed: int) -> tuple[str, int, int, list[int]]:
    own = 1_000 * seed + target  # else all data sets would share one stream of chance
    return name, target, seed, STRATEGIES[name](Scene(table=table, target=target), own)


def run_all(runs: Runs, *, names: Sequence[str], seeds: int, jobs: int, nice: int = 0) -> int:
    """Do every run that is not known yet; return how many were done."""
    table = runs.table
    wanted = [
        (name, target, seed)
        for name in names
        for seed in range(1 if name in DETERMINISTIC else seeds)
        for target in range(len(table.datasets))
        if runs.key(name, target, seed) not in runs.known
    ]
    with ProcessPoolExecutor(max_workers=jobs, initializer=_quiet, initargs=(nice,)) as pool:
        futures = [pool.submit(_run, name, table, target, seed) for name, target, seed in wanted]
        for future in as_completed(futures):
            runs.add(*future.result())
    return len(wanted)


TRIALS = 40
Strategy = Callable[[Scene, int], list[int]]


def _search(scene: Scene, *, sampler: BaseSampler, models: list[int] | None = None, queued: bool = False) -> list[int]:
    """Optuna over model, learning rate and epochs.

    With ``models`` only those; ``queued``: their first trials at the setting that is best on average elsewhere.
    """
    shown = list(range(len(scene.table.models))) if models is None else models
    study = optuna.create_study(direction="maximize", sampler=sampler)
    at, until = scene.usual_setting()
    for place in range(len(shown) if queued else 0):
        study.enqueue_trial({"model": scene.table.models[shown[place]], "rate": at, "epoch": until})
    return _path(study, scene, shown)


def _path(study: optuna.Study, scene: Scene, shown: list[int]) -> list[int]:
    """Arms of the study's trials over the models ``shown``."""
    table, path = scene.table, []

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("model", [table.models[model] for model in shown])
        model = table.models.index(name)
        rate = trial.suggest_int("rate", 0, len(table.rates) - 1)
        epoch = trial.suggest_int("epoch", 0, len(table.epochs) - 1)
        path.append(table.arm(model, rate, epoch))
        return float(scene.values[model, rate, epoch])

    study.optimize(objective, n_trials=TRIALS)
    return path


def random(scene: Scene, seed: int) -> list[int]:
    """Uniform."""
    return _search(scene, sampler=RandomSampler(seed=seed))


def tpe(scene: Scene, seed: int) -> list[int]:
    """Optuna's default."""
    return _search(scene, sampler=TPESampler(seed=seed))


def gp(scene: Scene, seed: int) -> list[int]:
    """Optuna's Gaussian process."""
    return _search(scene, sampler=GPSampler(seed=seed))


def tpe_hyperband(scene: Scene, seed: int) -> list[int]:
    """TPE over model and learning rate; epochs are the rungs, and a pruned trial has its last rung's accuracy."""
    table, path = scene.table, []
    last = len(table.epochs) - 1
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=last + 1, reduction_factor=2)
    # Hyperband draws a trial's bracket from the study's name, which is else random.
    study = optuna.create_study(
        direction="maximize", sampler=TPESampler(seed=seed), pruner=pruner, study_name=f"replay {seed}"
    )

    def objective(trial: optuna.Trial) -> float:
        model = trial.suggest_categorical("model", list(range(len(table.models))))
        rate = trial.suggest_int("rate", 0, len(table.rates) - 1)
        pruned = False
        for epoch in range(last + 1):
            trial.report(float(scene.values[model, rate, epoch]), step=epoch + 1)
            pruned = epoch < last and trial.should_prune()
            if pruned or epoch == last:
                break
        path.append(table.arm(model, rate, epoch))
        if pruned:
            raise optuna.TrialPruned
        return float(scene.values[model, rate, epoch])

    study.optimize(objective, n_trials=TRIALS)
    return path


def hard_top3(scene: Scene, seed: int) -> list[int]:
    """TPE over the three models of best average rank, each at the usual setting first."""
    return _search(scene, sampler=TPESampler(seed=seed), models=scene.order()[:3], queued=True)


def hard_top5(scene: Scene, seed: int) -> list[int]:
    """The same with five."""
    return _search(scene, sampler=TPESampler(seed=seed), models=scene.order()[:5], queued=True)


def average_rank(scene: Scene, seed: int) -> list[int]:
    """TPE over all models, its first trials in average-rank order at the usual setting."""
    return _search(scene, sampler=TPESampler(seed=seed), models=scene.order(), queued=True)


def _prior(scene: Scene) -> CandidatePrior:
    scores = scene.scores()
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
            basis=Basis.LIBRARY,
        )
        for name, score in zip(scene.table.models, standard, strict=True)
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
        for name in scene.table.models
    ]
    rate, epoch = scene.usual_setting()
    return CandidatePrior.of(
        Ranking(task="replay", ranked=tuple(lines)),
        candidates=candidates,
        parameter="model",
        settings={"rate": rate, "epoch": epoch},
    )


def _with_prior(scene: Scene, seed: int, *, prior: CandidatePrior) -> list[int]:
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior, TPESampler(seed=seed)))
    return _path(study, scene, list(range(len(scene.table.models))))


def prior_sampler(scene: Scene, seed: int) -> list[int]:
    """The integration for a user's own study: TPE, each model's first trial when the posterior says so."""
    return _with_prior(scene, seed, prior=_prior(scene))


def prior_sampler_wrong(scene: Scene, seed: int) -> list[int]:
    """The same with the order of the models reversed."""
    prior = _prior(scene)
    return _with_prior(scene, seed, prior=replace(prior, belief=replace(prior.belief, mean=-prior.belief.mean)))


def _arms(scene: Scene, *, past: FloatArray | None = None, per_cost: bool = False) -> list[int]:
    """The project's own search over arms, from ``past`` (S', A) or else the other data sets."""
    table, values = scene.table, scene.values.ravel()
    belief = learn_arms(scene.others if past is None else past, candidates=table.candidates, settings=table.settings)
    tried: list[int] = []
    for _ in range(min(TRIALS, len(values))):
        gain = posterior_arms(belief, tried=tried, values=values[tried].tolist()).gain.copy()
        if per_cost and tried:
            gain /= scene.costs
        gain[tried] = -np.inf
        tried.append(int(gain.argmax()))
    return tried


def ours(scene: Scene, seed: int) -> list[int]:
    """Belief over arms, learned on the other data sets."""
    del seed
    return _arms(scene)


def ours_per_cost(scene: Scene, seed: int) -> list[int]:
    """The same, choosing by gain per cost."""
    del seed
    return _arms(scene, per_cost=True)


def ours_wrong(scene: Scene, seed: int) -> list[int]:
    """The same, misled: every past accuracy negated, so that the order of arms is reversed."""
    del seed
    return _arms(scene, past=-scene.others)


def ours_shuffled(scene: Scene, seed: int) -> list[int]:
    """The same, misled otherwise: models and settings of the past stand under each other's names."""
    rng = np.random.default_rng(seed)
    past = scene.others.reshape(len(scene.others), len(scene.table.models), -1)
    past = past[:, rng.permutation(past.shape[1])][:, :, rng.permutation(past.shape[2])]
    return _arms(scene, past=past.reshape(scene.others.shape))


def source_ceiling(scene: Scene, seed: int) -> list[int]:
    """No strategy but a bound: the arms' order on that other data set whose order, in hindsight, regrets least."""
    del seed
    values = scene.values.ravel()
    orders = [np.argsort(-row, kind="stable")[:TRIALS] for row in scene.others]
    regrets = [float((values.max() - np.maximum.accumulate(values[order])).mean()) for order in orders]
    best: list[int] = orders[int(np.argmin(regrets))].tolist()
    return best


_OPTUNA: tuple[Strategy, ...] = (random, tpe, gp, tpe_hyperband, hard_top3, hard_top5, average_rank)
_OURS: tuple[Strategy, ...] = (ours, ours_per_cost, ours_wrong)
STRATEGIES: dict[str, Strategy] = {
    each.__name__: each
    for each in (*_OPTUNA, prior_sampler, prior_sampler_wrong, *_OURS, ours_shuffled, source_ceiling)
}
OPTUNA_ONLY = frozenset(each.__name__ for each in _OPTUNA)  # they do not change with this project's code
DETERMINISTIC = frozenset(each.__name__ for each in (*_OURS, source_ceiling))
