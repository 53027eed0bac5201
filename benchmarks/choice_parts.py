"""What it is worth to score a leading tower on further parts of the labelled images, before the search chooses.

    python benchmarks/choice_parts.py --write benchmarks/results/choice-parts.json
    python benchmarks/choice_parts.py --quick

Simulated searches as in `choice.py`, in its world of recorded test images: some are drawn as the labelled images and
divided into five parts, the others are the truth. Probes are scored on all labelled images, a tower on one part, so as
a search does it; the same settings on another part cost another trial. Regret of the model that is expected to be best,
to the best recorded arm, in points, after so many trials' time of fine-tuning. Rows: `Policy.measuring`, by which what
a measurement alone is worth is multiplied; at 0 none is made. "On all parts": every tower is scored on all labelled
images for the time of one trial, which no search can do. In brackets: standard error over tasks of the difference to
the first row. A search that has ended keeps its model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from choice import LOCAL_LOSS, RESULTS, ranking_of
from choice_worlds import Arm, Told, read_images, recorded
from numpy.typing import NDArray
from paired import standard_error

from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import expectations
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.parts import Settings, level_folds, settings_of
from vlmsel_auto.planning.plan import make_plan
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.tried import FoldScore, Left, Tried
from vlmsel_auto.records import Ranking, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

PARTS = 5
MARKS = (4, 8, 16)  # fine-tuning trials of mean duration
VALUES = (0.0, 3.0, 10.0, 30.0)
ALL_PARTS = "on all parts"


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """One task with some of its images labelled."""

    told: Told
    seconds: Mapping[Arm, float]
    part: NDArray[np.int64]  # (n,) of each image; -1: not labelled

    @staticmethod
    def of(told: Told, arms: Mapping[Arm, tuple[float, float]], *, images: int, seed: int) -> Draw:
        """Draw the labelled images."""
        part = np.full(told.images, -1)
        part[np.random.default_rng([seed, images]).permutation(told.images)[:images]] = np.arange(images) % PARTS
        return Draw(told=told, seconds={arm: arms[arm][1] for arm in told.right}, part=part)

    def truth(self, arm: Arm) -> float:
        """Accuracy on the other images."""
        return float(self.told.right[arm][self.part < 0].mean())

    def score(self, arm: Arm, *, part: int | None, lost: float) -> FoldScore:
        """Metric and soft metric on a part, or on all labelled images, of settings that lose so much of both."""
        shown = self.part >= 0 if part is None else self.part == part
        found = (
            max(0.0, float(values[arm][shown].mean()) - lost) for values in (self.told.right, self.told.probability)
        )
        metric, soft = found
        return FoldScore(metric=metric, soft=soft)


def trial_of(draw: Draw, step: NextTrial, *, number: int, lost: float, part: int | None) -> Tried:
    """The trial of a step; ``part`` None: scored on all labelled images."""
    arm, tower = (step.candidate, step.method), step.method == FINETUNE.name
    found = draw.score(arm, part=part, lost=lost)
    return Tried(
        candidate=step.candidate, method=step.method, origin=step.origin, state=TrialState.COMPLETE,
        validation=found.metric, soft=found.soft, seconds=draw.seconds[arm],
        point={"learning_rate": number / 1000} if step.point is None else step.point, number=number,
        images=int(np.sum(draw.part >= 0 if part is None else draw.part == part)),
        curve=Curve(values=(found.metric,), epochs=1) if tower else None, fold=part,
        folds=() if tower else tuple(draw.score(arm, part=each, lost=lost) for each in range(PARTS)),
    )  # fmt: skip


def simulate(draw: Draw, ranking: Ranking, *, seed: int, measuring: float | None) -> list[float]:
    """Regret in points at each of `MARKS`. ``measuring`` None: towers are scored on all parts at once."""
    plan = make_plan(
        ranking, candidates=catalogue.mini_zoo(), methods=(PROBE, FINETUNE), top_k=5, audits=0, seed=seed,
        validation_images=int(np.sum(draw.part >= 0)), folds=PARTS, policy=replace(POLICY, measuring=measuring or 0.0),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    mean = float(np.mean([value for (_, method), value in draw.seconds.items() if method == FINETUNE.name]))
    best = max(draw.truth(arm) for arm in draw.told.right)
    history: list[Tried] = []
    lost: dict[Settings, float] = {}
    regret: list[tuple[float, float]] = []
    spent = 0.0
    while spent < MARKS[-1] * mean:
        step = next_trial(plan, level_folds(history), left=Left(seconds=MARKS[-1] * mean - spent))
        if step is None:
            break
        arm = step.candidate, step.method
        first = all((trial.candidate, trial.method) != arm for trial in history)
        drawn = 0.0 if first else abs(rng.normal(0, LOCAL_LOSS))
        loses = drawn if step.point is None else lost.get(settings_of(*arm, step.point), drawn)
        tower = step.method == FINETUNE.name and measuring is not None
        trial = trial_of(draw, step, number=len(history), lost=loses, part=step.fold if tower else None)
        lost[settings_of(*arm, trial.point)] = loses
        history.append(trial)
        spent += draw.seconds[arm]
        believed = expectations(plan, level_folds(history))
        chosen = max(history, key=lambda one: (believed.get(one.number, -1.0), one.validation or 0.0))
        left = draw.truth((chosen.candidate, chosen.method)) - lost[settings_of(*_arm(chosen), chosen.point)]
        regret.append((spent / mean, 100 * (best - left)))
    return [next(value for at, value in reversed(regret) if at <= mark or at == regret[0][0]) for mark in MARKS]


def _arm(trial: Tried) -> Arm:
    return trial.candidate, trial.method


def compare(
    images: int, draws: Mapping[tuple[str, int], Draw], rankings: Mapping[str, Ranking]
) -> list[dict[str, object]]:
    """Print and return a line for each value."""
    names = [name for name, _ in draws]
    rows: list[dict[str, object]] = []
    base: NDArray[np.float64] | None = None
    for value in (*VALUES, None):
        every = np.array([
            simulate(draw, rankings[name], seed=1000 * seed + place, measuring=value)
            for place, ((name, seed), draw) in enumerate(draws.items())
        ])  # fmt: skip
        of_tasks = np.array([every[[name == one for one in names]].mean(axis=0) for name in dict.fromkeys(names)])
        base = of_tasks if base is None else base
        gaps = of_tasks - base
        told = ALL_PARTS if value is None else f"{value:g}"
        errors = [standard_error(gaps[:, at]) for at in range(len(MARKS))]
        cells = " | ".join(f"{m:.2f} ({e:.2f})" for m, e in zip(of_tasks.mean(axis=0), errors, strict=True))
        print(f"| {images} | {told} | {cells} |", flush=True)
        regret = of_tasks.mean(axis=0).round(3).tolist()
        rows.append({"images": images, "measuring": told, "after": list(MARKS), "regret": regret,
                     "error": np.round(errors, 3).tolist()})  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="draws of labelled images a task")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="two draws, 30 images")
    args = parser.parse_args(arguments)
    library = load(default_library_path())
    told = {name: each for name, each in read_images(RESULTS / "tuned-images").items() if name in library.task_names}
    rankings = {name: ranking_of(library, library.task_names.index(name), reverse=False) for name in told}
    arms = {name: recorded(RESULTS / "tuned-truth.csv", name) for name in told}
    print(
        "| labelled images | measuring | "
        + " | ".join(f"after {mark} trials" for mark in MARKS)
        + " |\n|---|---|---|---|---|"
    )
    rows = []
    for images in (30,) if args.quick else (30, 100):
        draws = {
            (name, seed): Draw.of(told[name], arms[name], images=images, seed=seed)
            for name in told
            for seed in range(2 if args.quick else args.seeds)
            if told[name].images >= 2 * images
        }
        rows += compare(images, draws, rankings)
    if args.write is not None:
        args.write.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
