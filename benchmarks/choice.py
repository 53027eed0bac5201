"""What choosing by few validation images costs, and what weighing them by their sampling error saves.

Simulated searches on recorded accuracies: every (candidate, method) has its recorded test accuracy as truth, the
ranking is learned on the other tasks, and `next_step` runs the search until as many seconds are spent as ``BUDGET``
fine-tuning trials take. A trial's validation metric is its truth with normal noise of the binomial variance on n
images, ``OWN`` of which is a candidate's own (what all share changes nothing); of that, ``STAYS`` is the same in all
trials of an arm. Later trials of an arm are up to a few points worse than its first. Regret is to the best recorded
arm, in points: of the highest validation (``by validation``), of the highest expectation (`history.expectations`, what
the search does), and of the best trial that was run (``of the best tried``).

With ``--targets`` the share of the sampling variance that is a candidate's own is measured: all members are probed on
each task folder, and the covariance of being right on the test images is averaged within and between them.

    python benchmarks/choice.py                            # two minutes
    python benchmarks/choice.py --targets FOLDER           # folders of benchmarks/fresh_targets.py
    python benchmarks/choice.py --quick
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlmsel_auto.library.library import default_library_path, load
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.ranking.bench_rankings import Case
from vlmsel_auto.ranking.divergence import DEFAULT
from vlmsel_auto.ranking.fusion import places
from vlmsel_auto.records import FloatArray, Interval, RankedCandidate, Ranking
from vlmsel_auto.trials.history import Left, Tried, expectations
from vlmsel_auto.trials.prior import make_plan
from vlmsel_auto.trials.rungs import Curve
from vlmsel_auto.trials.space import Point
from vlmsel_auto.trials.steps import next_step

TABLE = Path(__file__).parent / "results" / "tuned-truth.csv"
BUDGET = 8  # fine-tuning trials of mean duration
OWN, STAYS = 0.6, 0.6  # shares of the sampling variance: a candidate's own; of that, the same in all trials of an arm
LOCAL_LOSS = 0.015  # standard deviation of what other hyperparameters lose
Trials = Mapping[tuple[str, str], tuple[float, float]]  # (candidate, method) -> accuracy, seconds


def recorded(path: Path, task: str) -> Trials:
    """Accuracy and seconds of each arm on a task, first seed. Seconds above 60 are pauses of the machine."""
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["task"] == task and row["seed"] == "0"]
    return {(row["member"], row["method"]): (float(row["accuracy"]), min(60.0, float(row["seconds"]))) for row in rows}


def ranking_of(library: Library, column: int, *, reverse: bool) -> Ranking:
    """The fused ranking with 16 labels a class, learned on the other tasks; or the same the wrong way round."""
    rows = np.arange(len(library.candidates))
    case = Case(library=library, column=column, rows=rows, truth="tuned", shots=16, form=DEFAULT, seed=0)
    found = case.fused[0]
    score = -found.score if reverse else found.score
    chances = places(score, found.sd)
    lines = [
        RankedCandidate(candidate=name, score=float(score[m]), sd=float(found.sd[m]), prior=None, evidence=None,
                        p_best=float(chances.p_best[m]), p_top5=float(chances.p_top5[m]),
                        rank_interval=Interval(low=1, high=len(rows)), basis="library and labels")
        for m, name in enumerate(library.candidate_ids)
    ]  # fmt: skip
    return Ranking(task=library.task_names[column], ranked=tuple(sorted(lines, key=lambda line: -line.score)))


def simulate(arms: Trials, ranking: Ranking, *, images: int, seed: int) -> tuple[float, float, float, float]:
    """Regret by validation, by expectation and of the best tried, in points; and how many trials."""
    members = catalogue.mini_zoo()
    plan = make_plan(ranking, candidates=members, top_k=5, audits=0, seed=seed, validation_images=images)
    rng = np.random.default_rng(seed)
    left = BUDGET * float(np.mean([seconds for (_, method), (_, seconds) in arms.items() if method == "finetune"]))
    history: list[Tried] = []
    truths: list[float] = []
    luck: dict[tuple[str, str], float] = {}
    while left > 0 and (step := next_step(plan, history, left=Left(seconds=left))) is not None:
        arm = (step.candidate, step.method)
        accuracy, seconds = arms[arm]
        first = arm not in luck
        truth = float(np.clip(accuracy - (0 if first else abs(rng.normal(0, LOCAL_LOSS))), 0.001, 0.999))
        own = luck.setdefault(arm, rng.normal())
        noise = np.sqrt(STAYS) * own + np.sqrt(1 - STAYS) * rng.normal()
        seen = truth + noise * np.sqrt(OWN * truth * (1 - truth) / images)
        value = round(float(np.clip(seen, 0, 1)) * images) / images
        left -= seconds
        truths.append(truth)
        curve = Curve(values=(value,), epochs=1) if step.method == "finetune" else None
        point = step.point or Point(learning_rate=rng.random())
        history.append(
            Tried(
                candidate=step.candidate,
                method=step.method,
                origin=step.origin,
                state="complete",
                validation=value,
                seconds=seconds,
                point=point,
                number=len(history),
                curve=curve,
            )
        )
    expected = expectations(plan, history)
    measured = [float(trial.validation or 0.0) for trial in history]
    promised = [
        (expected[trial.candidate, trial.method], value) for trial, value in zip(history, measured, strict=True)
    ]
    order = range(len(history))
    chosen = (
        max(order, key=measured.__getitem__),
        max(order, key=promised.__getitem__),
        max(order, key=truths.__getitem__),
    )
    best = max(accuracy for accuracy, _ in arms.values())
    losses = [100 * (best - truths[index]) for index in chosen]
    return losses[0], losses[1], losses[2], float(len(history))


def own_share(folder: Path) -> tuple[float, float]:
    """Share of the variance of being right on a test image that is a candidate's own: all, and the best fifteen."""
    import torch

    from vlmsel_auto.cache import Store
    from vlmsel_auto.models import zoo
    from vlmsel_auto.models.classifier import class_logits
    from vlmsel_auto.tasks.task import load_task
    from vlmsel_auto.trials.data import splits
    from vlmsel_auto.trials.probe import Deadline, features
    from vlmsel_auto.trials.probing import never, probe_trial
    from vlmsel_auto.trials.space import default_point, space_for

    members = catalogue.mini_zoo()
    right = []
    with tempfile.TemporaryDirectory() as scratch:
        task = load_task(folder, views=tuple({one.view for one in members}), workdir=Path(scratch), needs_val=True)
        parts, store = splits(task), Store(Path(scratch) / "cache")
        indices = np.concatenate([parts.train, parts.val, parts.test])
        for member in members:
            room = space_for("probe", candidate=member, train_images=len(parts.train))
            spec = room.spec(default_point(), candidate=member.id, seed=0)
            head = probe_trial(spec, task=task, candidate=member, load=zoo.load, store=store, parts=parts, hook=never,
                               deadline=Deadline()).checkpoint  # fmt: skip
            assert head is not None  # noqa: S101 - no hook ended it
            seen = features(
                candidate=member, task=task, load=zoo.load, store=store, indices=indices, deadline=Deadline()
            )
            logits = class_logits(seen.values[-len(parts.test) :], head=torch.from_numpy(head.weight),
                                  bias=torch.from_numpy(head.bias), scale=head.scale)  # fmt: skip
            right.append(logits.argmax(dim=1).numpy() == task.labels[parts.test])
    table = np.array(right, dtype=np.float64)
    best = np.argsort(-table.mean(axis=1))[:15]
    return _own(np.cov(table)), _own(np.cov(table[best]))


def _own(covariance: FloatArray) -> float:
    m = len(covariance)
    between = (covariance.sum() - np.trace(covariance)) / (m * (m - 1))
    return float(1 - between / (np.trace(covariance) / m))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="recorded trials (benchmarks/tuned_truth.py)")
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--targets", type=Path, help="also measure the own share of the sampling variance there")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="six tasks, one seed, 30 images")
    args = parser.parse_args()
    library = load(args.library)
    tasks = library.task_names[:6] if args.quick else library.task_names
    arms = {name: recorded(args.table, name) for name in tasks}
    rankings = {
        (name, reverse): ranking_of(library, library.task_names.index(name), reverse=reverse)
        for name in tasks
        for reverse in (False, True)
    }
    rows: list[dict[str, object]] = []
    print("| validation images | ranking | by validation | by expectation | of the best tried | trials |")
    print("|---|---|---|---|---|---|")
    for images in (30,) if args.quick else (30, 100, 400):
        for reverse in (False, True):
            found = np.array(
                [
                    simulate(arms[name], rankings[name, reverse], images=images, seed=1000 * seed + column)
                    for column, name in enumerate(tasks)
                    for seed in range(1 if args.quick else args.seeds)
                ]
            ).mean(axis=0)
            told = "reversed" if reverse else "as predicted"
            print(
                f"| {images} | {told} | {found[0]:.2f} | {found[1]:.2f} | {found[2]:.2f} | {found[3]:.0f} |", flush=True
            )
            rows.append({"images": images, "ranking": told, "by_validation": found[0], "by_expectation": found[1],
                         "best_tried": found[2], "trials": found[3]})  # fmt: skip
    shares: dict[str, list[float]] = {}
    for folder in sorted(args.targets.iterdir()) if args.targets is not None else ():
        shares[folder.name] = [round(one, 3) for one in own_share(folder)]
        print(
            f"{folder.name}: own share {shares[folder.name][0]:.2f}, of the best fifteen {shares[folder.name][1]:.2f}",
            flush=True,
        )
    record = {"rows": [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
              "own_share": shares}  # fmt: skip
    if args.write is not None:
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
