"""QUESTION: What are schedules, seeds, parts left out and members of fits on few labels worth?

PAGE: docs/results/tuning.md
RESULT: benchmarks/results/fits-worth.json

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.fits_worth TARGETS --records RECORDS
    python -m benchmarks.tuning.fits_worth TARGETS --records RECORDS --far --write benchmarks/results/fits-worth.json
    python -m benchmarks.tuning.fits_worth TARGETS --records RECORDS --quick

Of each target the five candidates with the lowest log loss of their probe; with ``--far`` of the candidates that read
little of the target's domain in pretraining (`fresh_targets`). One run each is recorded: the probe; the tower without
the first and without the second fold, and their mean weights; the tower on all labels by the default
schedule, by one of twice the epochs, by twice the rate, with a second seed; and the bare loop of `plain_lines`.

Tables of all records, far and near targets apart. One fit: mean test accuracy over the five candidates of a target;
mean of two fits of a candidate; mean of the fits of three and of five candidates (of their probabilities). Then the
same beside five and eight heads, weighed as the product does it, by what the towers say of the parts that they left
out. Last the error (root mean square) of a fit's accuracy on its part against test, as it is and on the level of all
parts that heads give. In brackets the standard error over targets of the difference to the first row, in points.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from benchmarks.common import command_line, folders, print_head, print_row, standard_error, write_json
from benchmarks.tuning.fresh_targets import far_candidates
from benchmarks.tuning.plain_lines import Recipe, begin, fine_tune, head_of
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.pooling import fit_weights, log_probabilities, pool
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task, TrialSpec
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning import finetune, probe
from vlmsel_auto.tuning.averaging import averaged
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Splits, splits
from vlmsel_auto.tuning.runner import TrialRunner
from vlmsel_auto.tuning.work import Deadline, MethodOutcome, Work, never

LEADERS = 5
EPOCHS = 25
FITS = {
    "head": ("head",), "without a part": ("fold0",), "without two parts in turn": ("fold0", "fold1"),
    "their mean weights": ("joined",),
    "all labels": ("all",), "all labels, two seeds": ("all", "seed"), "all labels, twice the epochs": ("long",),
    "all labels, twice the rate": ("fast",), "bare loop": ("bare",),
}  # fmt: skip
TEMPER = 20.0  # as the product's
Record = Mapping[str, FloatArray]


def work_of(task: Task, candidate: Candidate, *, scratch: Path, epochs: int = EPOCHS) -> Work:
    """The default trial of a candidate's tower, scored on the first fold, with these epochs."""
    runner = TrialRunner(
        task=task, candidates=[candidate], load=zoo.load, store=Store(scratch / "embeddings"), workdir=scratch,
    )  # fmt: skip
    return Work(
        spec=replace(runner.spec("finetune", candidate.id, DEFAULT), epochs=epochs), task=task, candidate=candidate,
        splits=splits(task), load=zoo.load, store=runner.store, hook=never, deadline=Deadline(), workdir=scratch,
        device=torch.device("cpu"),
    )  # fmt: skip


def on_all(work: Work) -> Work:
    """The same on all labelled images."""
    parts = splits(work.task)
    return replace(work, splits=Splits(train=parts.labelled, val=parts.val, test=parts.test))


def said(outcome: MethodOutcome) -> tuple[FloatArray, FloatArray]:
    """Log-probabilities of held-out and of test images."""
    kept = outcome.checkpoint
    if kept is None or kept.held_out_logits is None or kept.test_logits is None:
        raise ValueError(f"a whole fit is needed, but got {outcome.ending}")
    return log_probabilities(kept.held_out_logits), log_probabilities(kept.test_logits)


def faster(spec: TrialSpec) -> TrialSpec:
    """The same at twice the rate."""
    return replace(spec, settings={**spec.settings, "learning_rate": 2 * spec.settings["learning_rate"]})


def record(target: Path, out: Path, *, far: bool, scratch: Path) -> None:
    """All runs of one target."""
    pool = far_candidates(target.name) if far else mini_zoo()
    views = tuple(dict.fromkeys(each.view for each in pool))
    task = load_task(target, TaskOptions(needs_val=True), views=views, workdir=scratch / out.name)
    labelled, test = splits(task).labelled, np.sort(task.test)
    whole = {"labels": task.labels[labelled], "truth": task.labels[test]}
    for number, part in enumerate(task.folds):
        whole[f"part{number}"] = np.searchsorted(labelled, np.sort(part)).astype(np.int64)
    found: dict[str, FloatArray] = {name: values.astype(np.float64) for name, values in whole.items()}
    losses = []
    for place, candidate in enumerate(pool):
        held, of_test = said(probe.run(work_of(task, candidate, scratch=scratch / out.name)))
        found[f"{place}.head.held"], found[f"{place}.head.test"] = held, of_test
        losses.append(-float(held[np.arange(len(labelled)), task.labels[labelled]].mean()))
    found["loss"] = np.array(losses)
    for place in np.argsort(losses)[:LEADERS].tolist():
        work = work_of(task, pool[place], scratch=scratch / out.name)
        every = on_all(work)
        usual = every.spec
        runs = {
            "fold0": work,
            "fold1": replace(work, splits=splits(task, fold=1)),
            "all": every,
            "long": replace(every, spec=replace(usual, epochs=2 * EPOCHS)),
            "fast": replace(every, spec=faster(usual)),
            "seed": replace(every, spec=replace(usual, seed=1)),
        }
        made: dict[str, Checkpoint] = {}
        for name, each in runs.items():
            begun = time.monotonic()
            outcome = finetune.run(each)
            held, of_test = said(outcome)
            if outcome.checkpoint is not None:
                made[name] = outcome.checkpoint
            found[f"{place}.{name}.held"], found[f"{place}.{name}.test"] = held, of_test
            found[f"{place}.{name}.seconds"] = np.array(time.monotonic() - begun)
        joined = averaged(
            [made["fold0"], made["fold1"]], task=task, candidate=pool[place], load=zoo.load, known=labelled, least=0.0
        )
        if joined is not None and joined.test_logits is not None:
            found[f"{place}.joined.test"] = log_probabilities(joined.test_logits)
        features = every.features()
        weight, bias = head_of(
            LogisticRegression(C=10, max_iter=1_000).fit(features.of(labelled).numpy(), task.labels[labelled])
        )
        begun = time.monotonic()
        tuned = begin(pool[place], weight=weight, bias=bias)
        fine_tune(task, tuned, train=labelled, recipe=Recipe(), seed=0)
        found[f"{place}.bare.test"] = log_probabilities(tuned.logits(task, test))
        found[f"{place}.bare.seconds"] = np.array(time.monotonic() - begun)
        truth = task.labels[test]
        told = {
            name.split(".")[1]: round(float((value.argmax(axis=1) == truth).mean()), 3)
            for name, value in found.items()
            if name.startswith(f"{place}.") and name.endswith(".test")
        }
        print(out.name, pool[place].id, told, flush=True)
    unfinished = out.parent / f"{out.name}.part"
    save_file({name: np.ascontiguousarray(values) for name, values in found.items()}, unfinished)
    unfinished.replace(out.parent / f"{out.name}.safetensors")


def leaders(record: Record) -> list[int]:
    """Places of the candidates whose towers were tuned, best probe first."""
    tuned = {int(name.split(".")[0]) for name in record if name.endswith(".all.test")}
    return sorted(tuned, key=lambda place: float(record["loss"][place]))


def right(logs: FloatArray, truth: IntArray) -> float:
    """Accuracy."""
    return float((logs.argmax(axis=1) == truth).mean())


def together(logs: Sequence[FloatArray]) -> FloatArray:
    """Log of mean probabilities."""
    return np.asarray(np.log(np.mean([np.exp(each) for each in logs], axis=0)))


def with_heads(record: Record, fits: Sequence[str], *, count: int, heads: int) -> FloatArray:
    """The pool of some heads and towers, weighed by two parts: the first towers left out one of them each."""
    places, labels = leaders(record), record["labels"].astype(np.int64)
    others = [place for place in np.argsort(record["loss"]).tolist() if place not in places]
    rows = {part: record[f"part{part}"].astype(np.int64) for part in (0, 1)}
    asked = [(place, turn % 2) for turn, place in enumerate(places[:count])]
    of_heads = np.concatenate([record[f"{place}.head.held"][rows[part]] for place, part in asked])
    towers = np.concatenate([record[f"{place}.fold{part}.held"] for place, part in asked])
    known = np.concatenate([labels[rows[part]] for _, part in asked])
    weights = fit_weights([of_heads, towers], known, start=(1.0, 0.1))
    pooled = [*places, *others][:heads]
    likely = [record[f"{place}.head.held"][np.arange(len(labels)), labels].sum() for place in pooled]
    of_head = np.tensordot(softmax(np.array(likely) / TEMPER), [record[f"{p}.head.test"] for p in pooled], axes=1)
    of_tower = np.mean([record[f"{place}.{fit}.test"] for place in places[:count] for fit in fits], axis=0)
    return pool([of_head, of_tower], weights.tolist())


def values_of(record: Record) -> dict[str, float]:
    """All rows of one target."""
    places, truth, found = leaders(record), record["truth"].astype(np.int64), {}
    for name, fits in FITS.items():
        if f"{places[0]}.{fits[0]}.test" not in record:
            continue
        each = [together([record[f"{place}.{fit}.test"] for fit in fits]) for place in places]
        found[name] = float(np.mean([right(one, truth) for one in each]))
        for count in (3, 5):
            found[f"{name}: {count} candidates"] = right(together(each[:count]), truth)
            if name != "head":
                for heads in (5, 8):
                    pooled = with_heads(record, fits, count=count, heads=heads)
                    found[f"{name}: {count} candidates with {heads} heads"] = right(pooled, truth)
    return found


def part_errors(record: Record) -> list[tuple[float, float]]:
    """Of each fit that left out a part: its accuracy there less that on test, as it is and put on the level of all."""
    places, truth, labels = leaders(record), record["truth"].astype(np.int64), record["labels"].astype(np.int64)
    heads = [name for name in record if name.endswith(".head.held")]
    of_heads = np.mean([record[name].argmax(axis=1) == labels for name in heads], axis=0)
    found = []
    for part in (0, 1):
        rows = record[f"part{part}"].astype(np.int64)
        ease = float(of_heads[rows].mean() - of_heads.mean())
        for place in places:
            error = right(record[f"{place}.fold{part}.held"], labels[rows])
            error -= right(record[f"{place}.fold{part}.test"], truth)
            found.append((error, error - ease))
    return found


def table(kind: str, files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Print what fits are worth on far or near targets, and return it."""
    records = [load_file(file) for file in files]
    values = [values_of(each) for each in records]
    print(f"\n{kind}: {', '.join(file.name.split('.')[0] for file in files)}")
    print_head("fits", "accuracy", "to the head")
    result = {}
    for name in values[0]:
        mine = np.array([each[name] for each in values])
        gaps = 100 * (mine - np.array([each["head"] for each in values]))
        error = standard_error(gaps)
        print_row(name, f"{mine.mean():.3f}", f"{gaps.mean():+.1f} ({error:.1f})")
        result[name] = {
            "accuracy": round(float(mine.mean()), 4), "points": round(float(gaps.mean()), 2), "se": round(error, 2),
        }  # fmt: skip
    errors = np.concatenate([np.array(part_errors(each)) for each in records])
    plain, level = np.sqrt(np.mean(errors**2, axis=0)).tolist()
    print(f"\nerror of a part: {plain:.3f}; on the level of all parts: {level:.3f}")
    result["error of a part"] = {"as it is": round(plain, 4), "on the level of all": round(level, 4)}
    return result


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="the first target")
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--far", action="store_true", help="candidates that read little of the domain")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    for target in folders(args.targets, only=args.only, quick=args.quick):
        out = args.records / f"{target.name}.{'far' if args.far else 'near'}"
        if not (out.parent / f"{out.name}.safetensors").exists():
            record(target, out, far=args.far, scratch=args.records / "tasks")
    files = {kind: sorted(args.records.glob(f"*.{kind}.safetensors")) for kind in ("far", "near")}
    result = {kind: table(kind, each) for kind, each in files.items() if each}
    write_json(args.write, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
