"""QUESTION: What does choosing by few validation images cost, and what does weighing them save?

PAGE: docs/planning.md
RESULT: benchmarks/results/choice.json

Simulated searches on recorded trials (`choice_worlds.py`): `next_trial` runs the search, with the ranking learned on
the other tasks, until as many seconds are spent as ``BUDGET`` fine-tuning trials take. Later trials of an arm
(candidate, method) are up to a few points worse than its first. Regret is to the best recorded arm, in points: of the
highest validation (``by validation``), of the highest expectation (`history.expectations`, what the search does), and
of the best trial that was run (``of the best tried``). Two worlds:

- ``images``: what every arm says of every test image of some tasks, as `tuned_truth.py --images` records it. Some of
  the images are drawn as validation, the others are the truth. ``without soft`` is the expectation from the metric
  alone. The errors that `planning.soft_metric` weighs by are measured on the same records.
- ``accuracies``: all tasks; a validation metric is the recorded accuracy with normal noise of the binomial variance,
  ``OWN`` of which is a candidate's own.

    python -m benchmarks.planning.choice                            # five minutes
    python -m benchmarks.planning.choice --quick
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.planning.choice_worlds import Accuracies, Images, World, errors_of, read_images, recorded
from vlmsel_auto.bench.case import Case
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import expectations
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.plan import make_plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.tried import Left, Tried
from vlmsel_auto.records import Basis, FloatArray, Interval, RankedCandidate, Ranking, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

RESULTS = Path(__file__).parents[1] / "results"
BUDGET = 8  # fine-tuning trials of mean duration
LOCAL_LOSS = 0.015  # standard deviation of what other hyperparameters lose
Json: TypeAlias = "str | int | float | list[Json] | dict[str, Json]"


def ranking_of(library: Library, column: int, *, reverse: bool) -> Ranking:
    """The fused ranking with 16 labels a class, learned on the other tasks; or the same the wrong way round."""
    case = Case(library=library, column=column, truth="tuned", shots=16)
    found = case.fused[0]
    if reverse:
        found = replace(found, score=-found.score)
    score, chances = found.score, case.chances(found)
    lines = [
        RankedCandidate(candidate=name, score=float(score[m]), sd=float(found.sd[m]), prior=None, evidence=None,
                        p_best=float(chances.p_best[m]), p_top5=float(chances.p_top5[m]),
                        rank_interval=Interval(low=1, high=len(score)), basis=Basis.LIBRARY_AND_LABELS)
        for m, name in enumerate(library.candidate_ids)
    ]  # fmt: skip
    return Ranking(task=library.task_names[column], ranked=tuple(sorted(lines, key=lambda line: -line.score)))


def simulate(world: World, ranking: Ranking, *, images: int, seed: int, policy: Policy) -> tuple[float, ...]:
    """Regret by validation, by expectation, by that without soft metrics, of the best tried (points); and trials."""
    members = catalogue.mini_zoo()
    plan = make_plan(
        ranking,
        candidates=members,
        methods=(PROBE, FINETUNE),
        seed=seed,
        validation_images=images,
        policy=policy,
    )
    rng = np.random.default_rng(seed)
    seconds = world.seconds
    left = BUDGET * float(np.mean([value for (_, method), value in seconds.items() if method == FINETUNE.name]))
    history: list[Tried] = []
    truths: list[float] = []
    while left > 0 and (step := next_trial(plan, history, left=Left(seconds=left))) is not None:
        arm = (step.candidate, step.method)
        first = all((trial.candidate, trial.method) != arm for trial in history)
        drawn = world.trial(arm, lost=0.0 if first else abs(rng.normal(0, LOCAL_LOSS)))
        left -= seconds[arm]
        truths.append(drawn.truth)
        history.append(
            Tried(
                candidate=step.candidate,
                method=step.method,
                origin=step.origin,
                state=TrialState.COMPLETE,
                validation=drawn.metric,
                soft=drawn.soft,
                seconds=seconds[arm],
                point={"learning_rate": rng.random()} if step.point is None else step.point,
                number=len(history),
                curve=Curve(values=(drawn.metric,), epochs=1) if step.method == FINETUNE.name else None,
            )
        )
    measured = {trial.number: trial.validation or 0.0 for trial in history}
    without = [replace(trial, soft=None) for trial in history]
    truth = dict(enumerate(truths))
    chosen = [
        max(history, key=lambda trial: (by.get(trial.number, -1.0), measured[trial.number])).number
        for by in (measured, expectations(plan, history), expectations(plan, without), truth)
    ]
    return (*(100 * (world.best - truths[number]) for number in chosen), float(len(history)))


def compare(
    title: str,
    worlds: Mapping[tuple[str, int], World],
    rankings: Mapping[tuple[str, bool], Ranking],
    *,
    images: int,
    policy: Policy,
) -> list[dict[str, Json]]:
    """Print and return a line for each kind of ranking."""
    rows: list[dict[str, Json]] = []
    names = np.array([name for name, _ in worlds])
    for reverse in (False, True):
        every = np.array(
            [
                simulate(world, rankings[name, reverse], images=images, seed=1000 * seed + place, policy=policy)
                for place, ((name, seed), world) in enumerate(worlds.items())
            ]
        )
        found = every.mean(axis=0)
        told = "reversed" if reverse else "as predicted"
        print(
            f"| {title} | {images} | {told} | {found[0]:.2f} | {found[1]:.2f} | {found[2]:.2f} | {found[3]:.2f} | "
            f"{found[4]:.0f} |",
            flush=True,
        )
        rows.append({"world": title, "images": images, "ranking": told, "by_validation": round(float(found[0]), 3),
                     "by_expectation": round(float(found[1]), 3), "without_soft": round(float(found[2]), 3),
                     "best_tried": round(float(found[3]), 3), "trials": round(float(found[4]), 1),
                     "by_expectation_of_tasks": _of_tasks(every[:, 1], names),
                     "without_soft_of_tasks": _of_tasks(every[:, 2], names)})  # fmt: skip
    return rows


def _of_tasks(losses: FloatArray, names: NDArray[np.str_]) -> dict[str, Json]:
    return {str(name): round(float(losses[names == name].mean()), 3) for name in np.unique(names)}


def policy_of(settings: Sequence[str]) -> Policy:
    """The planner's constants with some of them set anew."""
    found = asdict(POLICY)
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in found:
            raise SystemExit(f"--set must name one of {', '.join(found)}, but got {setting!r}")
        found[name] = type(found[name])(value)
    return Policy(**found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", type=Path, default=RESULTS / "tuned-truth.csv", help="benchmarks/tuning/tuned_truth.py"
    )
    parser.add_argument(
        "--images", type=Path, default=RESULTS / "tuned-images", help="folder of tuned_truth.py --images"
    )
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--seeds", type=int, default=2, help="validation splits a task; ten times as many of images")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of planning.policy"
    )
    parser.add_argument("--quick", action="store_true", help="six tasks, one seed, 30 images")
    args = parser.parse_args()
    policy = policy_of(args.set)
    library = load(args.library)
    tasks: Sequence[str] = library.task_names[:6] if args.quick else library.task_names
    told = read_images(args.images)
    shown = [name for name in told if name in library.task_names][: 3 if args.quick else None]
    rankings = {
        (name, reverse): ranking_of(library, library.task_names.index(name), reverse=reverse)
        for name in {*tasks, *shown}
        for reverse in (False, True)
    }
    print("| world | validation images | ranking | by validation | by expectation | without soft | of the best tried | "
          "trials |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    rows: list[dict[str, Json]] = []
    seeds = 1 if args.quick else args.seeds
    arms = {name: recorded(args.table, name) for name in {*tasks, *shown}}
    for images in (30,) if args.quick else (30, 100):
        drawn = {
            (name, seed): Images.draw(told[name], arms[name], images=images, seed=seed)
            for name in shown
            for seed in range(seeds if args.quick else 10 * seeds)
            if told[name].images >= 2 * images
        }
        if drawn:
            rows += compare("images", drawn, rankings, images=images, policy=policy)
    for images in (30,) if args.quick else (30, 100, 400):
        even = {
            (name, seed): Accuracies(arms=arms[name], images=images, seed=1000 * seed + place)
            for place, name in enumerate(tasks)
            for seed in range(seeds)
        }
        rows += compare("accuracies", even, rankings, images=images, policy=policy)
    errors: dict[str, Json] = {}
    for name in shown:
        found = errors_of(told[name])
        errors[name] = {key: round(value, 3) for key, value in found.items()}
        print(name, "; ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)
    record = {"rows": rows, "errors": errors}
    if args.write is not None:
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
