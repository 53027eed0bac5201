"""QUESTION: What does choosing by few validation images cost, and what does weighing them save?

PAGE: docs/results/planning.md
RESULT: benchmarks/results/choice.json

Simulated searches on recorded trials: `next_trial` runs the search, with the ranking learned on
the other tasks, until as many seconds are spent as ``BUDGET`` fine-tuning trials take. Later trials of an arm
(candidate, method) are up to a few points worse than its first. Regret is to the best recorded arm, in points: of the
highest validation (``by validation``), of the highest expectation (`TrialEvidence.expectations`, what the search does),
and of the best trial that was run (``of the best tried``). Two worlds:

- ``images``: what every arm says of every test image of some tasks, as `tuned_truth.py --images` records it. Some of
  the images are drawn as validation, the others are the truth. ``without soft`` is the expectation from the metric
  alone. The errors that `planning.soft_metric` weighs by are measured on the same records.
- ``accuracies``: all tasks; a validation metric is the recorded accuracy with normal noise of the binomial variance,
  ``OWN`` of which is a candidate's own.

    python -m benchmarks.planning.choice                            # five minutes
    python -m benchmarks.planning.choice --quick
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.common import command_line, write_json
from vlmsel_auto.bench.case import Case
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.plan import Conditions, make_plan
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import Left, Tried
from vlmsel_auto.records import Basis, FloatArray, Interval, RankedCandidate, Ranking, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

Arm = tuple[str, str]  # candidate, method
OWN, STAYS = 0.6, 0.6  # shares of the sampling variance: a candidate's own; of that, the same in all trials of an arm


def recorded(path: Path, task: str) -> dict[Arm, tuple[float, float]]:
    """Accuracy and seconds of each arm on a task, first seed. Seconds above 60 are pauses of the machine."""
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["task"] == task and row["seed"] == "0"]
    return {(row["member"], row["method"]): (float(row["accuracy"]), min(60.0, float(row["seconds"]))) for row in rows}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one trial measures."""

    truth: float
    metric: float
    soft: float | None


class World(Protocol):
    """One task with one validation split."""

    @property
    def seconds(self) -> Mapping[Arm, float]:
        """What a trial takes."""
        ...

    @property
    def best(self) -> float:
        """Truth of the best arm."""
        ...

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of the metric."""
        ...


@dataclass(kw_only=True)
class Accuracies:
    """Validation metrics are recorded accuracies with binomial noise."""

    arms: Mapping[Arm, tuple[float, float]]  # accuracy, seconds
    images: int
    seed: int
    _luck: dict[Arm, float] = field(default_factory=dict)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, self.images])

    @property
    def seconds(self) -> Mapping[Arm, float]:
        """What a trial takes."""
        return {arm: seconds for arm, (_, seconds) in self.arms.items()}

    @property
    def best(self) -> float:
        """Accuracy of the best arm."""
        return max(accuracy for accuracy, _ in self.arms.values())

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of the metric."""
        truth = float(np.clip(self.arms[arm][0] - lost, 0.001, 0.999))
        own = self._luck.setdefault(arm, self._rng.normal())
        noise = np.sqrt(STAYS) * own + np.sqrt(1 - STAYS) * self._rng.normal()
        seen = truth + noise * np.sqrt(OWN * truth * (1 - truth) / self.images)
        return Trial(truth=truth, metric=round(float(np.clip(seen, 0, 1)) * self.images) / self.images, soft=None)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What every arm says of every test image of a task."""

    right: Mapping[Arm, FloatArray]  # (n,) 0 or 1
    probability: Mapping[Arm, FloatArray]  # (n,) of the true class

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(next(iter(self.right.values())))


def read_images(folder: Path) -> dict[str, Told]:
    """By task, as `tuned_truth.py --images` writes it; empty where there is no such folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        parts: dict[str, dict[Arm, FloatArray]] = {"right": {}, "probability": {}}
        for name, values in load_file(path).items():
            kind, member, method = name.split("|")
            parts[kind][member, method] = values.astype(np.float64)
        found[path.stem] = Told(right=parts["right"], probability=parts["probability"])
    return found


@dataclass(frozen=True, kw_only=True)
class Images:
    """Some test images are the validation split, the others the truth."""

    told: Told
    seconds: Mapping[Arm, float]
    chosen: NDArray[np.bool_]  # (n,) whether an image is a validation image

    @classmethod
    def draw(cls, told: Told, arms: Mapping[Arm, tuple[float, float]], *, images: int, seed: int) -> Self:
        """Draw the validation split."""
        chosen = np.zeros(told.images, dtype=bool)
        chosen[np.random.default_rng([seed, images]).choice(told.images, images, replace=False)] = True
        return cls(told=told, seconds={arm: arms[arm][1] for arm in told.right}, chosen=chosen)

    @property
    def best(self) -> float:
        """Accuracy of the best arm on the other images."""
        return max(float(values[~self.chosen].mean()) for values in self.told.right.values())

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of all three."""
        right, probability = self.told.right[arm], self.told.probability[arm]
        return Trial(
            truth=float(right[~self.chosen].mean()) - lost,
            metric=max(0.0, float(right[self.chosen].mean()) - lost),
            soft=max(0.0, float(probability[self.chosen].mean()) - lost),
        )


def errors_of(told: Told) -> dict[str, float]:
    """The constants of `vlmsel_auto.planning.soft_metric` on one task: what arms do not have in common on an image."""
    arms = list(told.right)
    right, sure = (np.stack([part[arm] for arm in arms]) for part in (told.right, told.probability))
    m, n = right.shape
    own_right, own_sure = (_own(part) for part in (right, sure))
    accuracy = right.mean(axis=1)
    metric, soft, both = (
        float((a * b).mean() * m / (m - 1))
        for a, b in ((own_right, own_right), (own_sure, own_sure), (own_right, own_sure))
    )
    gaps = sure.mean(axis=1) - accuracy
    return {
        "own": metric / float((accuracy * (1 - accuracy)).mean()),
        "soft": soft / metric,
        "both": both / metric,
        "calibration_sd": float(np.sqrt(max(0.0, gaps.var(ddof=1) - (metric + soft - 2 * both) / n))),
    }


def _own(table: FloatArray) -> FloatArray:
    """Deviations (arms, images) from the image's mean and from the arm's."""
    less = table - table.mean(axis=0)
    own: FloatArray = less - less.mean(axis=1, keepdims=True)
    return own


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
        conditions=Conditions(seed=seed, validation_images=images, policy=policy),
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
        for by in (measured, *(TrialEvidence(plan, trials).expectations() for trials in (history, without)), truth)
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
    parser = command_line(__doc__, quick="six tasks, one seed, 30 images")
    parser.add_argument(
        "--table", type=Path, default=RESULTS / "tuned-truth.csv", help="benchmarks/tuning/tuned_truth.py"
    )
    parser.add_argument(
        "--images", type=Path, default=RESULTS / "tuned-images", help="folder of tuned_truth.py --images"
    )
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--seeds", type=int, default=2, help="validation splits a task; ten times as many of images")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of planning.policy"
    )
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
    write_json(args.write, record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
