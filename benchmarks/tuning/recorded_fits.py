"""QUESTION: What records the fits of towers that fits_worth.py reads?

PAGE: docs/results/tuning.md
RESULT: none

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.recorded_fits TARGETS --records RECORDS
    python -m benchmarks.tuning.recorded_fits TARGETS --records RECORDS --far
    python -m benchmarks.tuning.recorded_fits TARGETS --records RECORDS --quick

Of each target the five candidates with the lowest log loss of their probe; with ``--far`` of the candidates that read
little of the target's domain in pretraining (`domains`). One run each: the probe; the tower without the first and
without the second fold, and their mean weights; the tower on all labels by the default schedule, by one
of twice the epochs, by twice the rate, with a second seed; and the bare loop of `plain_lines`. `fits_worth` makes
tables of the records.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from benchmarks.tuning.domains import far_candidates
from benchmarks.tuning.plain_lines import Recipe, begin, fine_tune, head_of
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, FloatArray, Task, TrialSpec
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning import finetune, probe
from vlmsel_auto.tuning.averaging import averaged
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Splits, splits
from vlmsel_auto.tuning.features import features_of
from vlmsel_auto.tuning.methods import METHODS
from vlmsel_auto.tuning.work import Deadline, Outcome, Work, never

LEADERS = 5
EPOCHS = 25


def work_of(task: Task, candidate: Candidate, *, scratch: Path, epochs: int = EPOCHS) -> Work:
    """The default trial of a candidate's tower, scored on the first fold, with these epochs."""
    runner = TrialRunner(
        task=task, table={candidate.id: candidate}, methods={each.name: each for each in METHODS}, load=zoo.load,
        store=Store(scratch / "embeddings"), workdir=scratch, device=torch.device("cpu"), train_shots=None,
        images_per_trial=None, seed=0,
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


def said(outcome: Outcome) -> tuple[FloatArray, FloatArray]:
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
        features = features_of(every)
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--far", action="store_true", help="candidates that read little of the domain")
    parser.add_argument("--quick", action="store_true", help="the first target")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    only = set(args.only.split(",")) - {""}
    targets = sorted(each for each in args.targets.iterdir() if each.is_dir() and (not only or each.name in only))
    for target in targets[:1] if args.quick else targets:
        out = args.records / f"{target.name}.{'far' if args.far else 'near'}"
        if not (out.parent / f"{out.name}.safetensors").exists():
            record(target, out, far=args.far, scratch=args.records / "tasks")


if __name__ == "__main__":
    main()
