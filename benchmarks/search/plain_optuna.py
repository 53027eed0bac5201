"""The row "plain Optuna" of `final_accuracy`: TPE with Hyperband over candidates, methods and settings."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """One target with one seed for so many seconds of wall time, which begin with the folder of images."""

    task: Path
    seed: int
    seconds: float
    out: Path
    threads: int

    @property
    def file(self) -> Path:
        """Where its record is kept."""
        return self.out / f"{self.task.name}.optuna.{self.seconds:g}s.{self.seed}.json"

    @property
    def scratch(self) -> Path:
        """Its work directory."""
        return self.out / "scratch" / self.file.stem


Point = tuple[float, float, float]  # seconds, validation and test metric of the best so far


def incumbents(trials: Sequence[Point]) -> list[Point]:
    """Only the trials that were better on the validation split than all before."""
    best: list[Point] = []
    for each in trials:
        if not best or each[1] > best[-1][1]:
            best.append(each)
    return best


def value_at(curve: Sequence[Point], seconds: float) -> float:
    """Test metric of the incumbent after so many seconds; 0 before the first."""
    return next((test for when, _, test in reversed(curve) if when <= seconds), 0.0)


def run_optuna(run: Run) -> dict[str, object]:
    """A candidate, a method and a point of its unit cube are suggested, with the product's training code."""
    import optuna

    from vlmsel_auto.cache import Store
    from vlmsel_auto.errors import TrialFailed
    from vlmsel_auto.models import candidates, zoo
    from vlmsel_auto.planning.curves import RUNGS, rung_of
    from vlmsel_auto.tasks.task import TaskOptions, load_task
    from vlmsel_auto.tuning.data import splits
    from vlmsel_auto.tuning.methods import FINETUNE, PROBE, method_of
    from vlmsel_auto.tuning.runner import Trial, TrialRunner

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials: list[Point] = []
    spent = 0.0
    began = time.monotonic()
    members = candidates.mini_zoo()
    views = tuple(dict.fromkeys(one.view for one in members))
    task = load_task(run.task, TaskOptions(seed=run.seed), views=views, workdir=run.scratch)
    images = len(splits(task).train)
    store = Store(run.scratch / "features")
    runner = TrialRunner(task=task, candidates=members, load=zoo.load, store=store, workdir=run.scratch)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=run.seed),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=2),
    )

    def objective(trial: optuna.Trial) -> float:
        nonlocal spent
        candidate = members[int(trial.suggest_categorical("candidate", list(range(len(members)))))]
        method = method_of(trial.suggest_categorical("method", [PROBE.name, FINETUNE.name]))
        place = {name: trial.suggest_float(f"{method.name}.{name}", 0.0, 1.0) for name in method.settings}
        spec = method.default(candidate, train_images=images, seed=run.seed, point=place)
        told = 0

        def report(epoch: int, validation: float, loss: float) -> bool:
            nonlocal told
            del loss
            rung = rung_of(epoch, epochs=spec.epochs)
            if method is not FINETUNE or rung <= told or rung >= RUNGS:
                return False
            told = rung
            trial.report(validation, step=rung)
            return trial.should_prune()

        try:
            once = Trial(number=trial.number, spec=spec, deadline=began + run.seconds)
            result = runner.run(once, report=report)
        except TrialFailed as error:
            raise optuna.TrialPruned from error
        spent += result.seconds
        if result.state != "complete" or result.validation is None or result.test is None:
            raise optuna.TrialPruned
        trials.append((time.monotonic() - began, result.validation, result.test))
        return result.validation

    while time.monotonic() - began < run.seconds:
        study.optimize(objective, n_trials=1)
    return {
        "seconds": time.monotonic() - began,
        "curve": incumbents(trials),
        "trials": len(study.trials),
        "best": members[study.best_params["candidate"]].id if trials else None,
        "trial_seconds": spent,
    }


def work(run: Run) -> None:
    """Do one run and write its record."""
    import torch

    torch.set_num_threads(run.threads)
    shutil.rmtree(run.scratch, ignore_errors=True)
    record = run_optuna(run)
    head = {"target": run.task.name, "strategy": "optuna", "seed": run.seed, "budget": run.seconds}
    shutil.rmtree(run.scratch, ignore_errors=True)
    partial = run.file.with_suffix(".part")
    partial.write_text(json.dumps(head | record))
    partial.replace(run.file)
