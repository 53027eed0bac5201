"""A run of the live comparison: our search, or plain Optuna, on one target for so many seconds; see live_search.py."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """One strategy on one target with one seed."""

    strategy: str
    task: Path | None  # None: digits
    name: str
    seed: int
    seconds: float
    out: Path
    threads: int = 1

    @property
    def file(self) -> Path:
        """Where its record is kept."""
        return self.out / f"{self.name}.{self.strategy}.{self.seconds:g}s.{self.seed}.json"

    @property
    def scratch(self) -> Path:
        """Its work directory."""
        return self.out / "scratch" / self.file.stem

    def folder(self) -> Path:
        """The images."""
        from vlmsel_auto.tasks.digits import write_digits

        return self.task or write_digits(self.out / "images").task


Point = tuple[float, float, float]  # seconds, validation and test metric of the best so far


def incumbents(trials: Sequence[Point]) -> list[Point]:
    """Only the trials that were better on the validation split than all before."""
    best: list[Point] = []
    for each in trials:
        if not best or each[1] > best[-1][1]:
            best.append(each)
    return best


def run_ours(run: Run) -> dict[str, object]:
    """`vlmsel_auto.search` with an event log."""
    import vlmsel_auto
    from vlmsel_auto.events import Event, RankingReady, StageFinished, TrialFinished
    from vlmsel_auto.library.places import default_library
    from vlmsel_auto.records import Budget

    folder = run.folder()
    shipped = default_library()
    library = shipped.select_tasks([name for name in shipped.task_names if name != run.name])
    search = vlmsel_auto.search  # imports all that it needs
    led: list[Point] = []
    study = updates = 0.0
    began = time.monotonic()

    def sink(event: Event) -> None:
        nonlocal study, updates
        if isinstance(event, TrialFinished) and event.leader is not None:
            validation, test = event.leader.validation, event.leader.test
            if validation is not None and test is not None and (not led or led[-1][1:] != (validation, test)):
                led.append((time.monotonic() - began, validation, test))
        elif isinstance(event, StageFinished) and event.stage == "trials":
            study = event.seconds
        elif isinstance(event, RankingReady):
            updates += 1

    result = search(
        folder,
        candidates="mini-zoo",
        budget=Budget(seconds=run.seconds),
        seed=run.seed,
        workdir=run.scratch,
        library=library,
        learn=False,
        sink=sink,
    )
    seconds = time.monotonic() - began
    spent = sum(trial.seconds for trial in result.trials)
    return {
        "seconds": seconds,
        "curve": led,
        "trials": len(result.trials),
        "paused": sum(trial.state == "pruned" for trial in result.trials),
        "continued": sum(trial.continues is not None for trial in result.trials),
        "best": None if result.best is None else result.best.candidate,
        "study_seconds": study,
        "trial_seconds": spent,
        "overhead": (study - spent) / study,
        "rankings": updates,
    }


def run_optuna(run: Run) -> dict[str, object]:
    """TPE with Hyperband; a candidate, a method and a point of its unit cube are suggested."""
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
    folder = run.folder()
    trials: list[Point] = []
    spent = 0.0
    began = time.monotonic()
    members = candidates.mini_zoo()
    views = tuple(dict.fromkeys(one.view for one in members))
    task = load_task(folder, TaskOptions(seed=run.seed), views=views, workdir=run.scratch)
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
    record = run_ours(run) if run.strategy == "ours" else run_optuna(run)
    head = {"target": run.name, "strategy": run.strategy, "seed": run.seed, "budget": run.seconds}
    shutil.rmtree(run.scratch, ignore_errors=True)
    partial = run.file.with_suffix(".part")
    partial.write_text(json.dumps(head | record))
    partial.replace(run.file)
