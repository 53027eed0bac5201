"""Whether class weights help metrics that weigh classes alike, on targets with unlike numbers of images a class.

On each target the three candidates whose regression has the lowest log loss get a head (regression with zero-shot) and
a tower (the bare loop of `plain_lines`, all labels), each with and without weights n / (K n_k) in its loss.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 40 --test 480 --tail 10 --only ...
    python -m benchmarks.tuning.class_weights TARGETS --scratch FOLDER --write benchmarks/results/class-weights.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import standard_error
from benchmarks.tuning.plain_lines import Recipe, fine_tune
from benchmarks.tuning.target_heads import Look, look, with_fitted_head
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.records import FloatArray, Metric
from vlmsel_auto.tuning.data import score, splits

_CANDIDATES = 3
Row = dict[str, float]  # metric -> its value on the test images


def measure(target: Path, *, scratch: Path) -> list[dict[str, Row]]:
    """All rows of one target, for each candidate."""
    plain = look(target, scratch=scratch)
    weighted = look(target, scratch=scratch, metric="balanced_accuracy")
    found = []
    for number, place in enumerate(plain.order[:_CANDIDATES]):
        rows = {
            "head": _row(plain, plain.heads[place]["with text"][1]),
            "head, class weights": _row(plain, weighted.heads[place]["with text"][1]),
        }
        for name, recipe in {"tower": Recipe(), "tower, class weights": Recipe(class_weights=True)}.items():
            train = splits(plain.task).labelled
            tuned = with_fitted_head(plain.task, plain.features[place], place, train=train)
            fine_tune(plain.task, tuned, train=train, recipe=recipe, seed=number)
            rows[name] = _row(plain, tuned.logits(plain.task, splits(plain.task).test))
        print(f"{target.name}: {mini_zoo()[place].id}", flush=True)
        found.append(rows)
    return found


def _row(seen: Look, of_test: FloatArray | NDArray[np.float32]) -> Row:
    truth = seen.task.labels[splits(seen.task).test]
    metrics: tuple[Metric, ...] = get_args(Metric)
    return {metric: score(metric, labels=truth, predicted=of_test.argmax(axis=1)) for metric in metrics}


def table(found: Mapping[str, Sequence[Mapping[str, Row]]]) -> dict[str, dict[str, float]]:
    """Means over targets and candidates; of rows with weights also the paired difference in points and its error."""
    every = [one for each in found.values() for one in each]
    means: dict[str, dict[str, float]] = {}
    for name in every[0]:
        means[name] = {}
        cells = []
        for metric in get_args(Metric):
            values = np.array([one[name][metric] for one in every])
            gap = 100 * (values - [one[name.removesuffix(", class weights")][metric] for one in every])
            error = standard_error(gap)
            means[name] |= {metric: float(values.mean()), f"{metric}_gap": float(gap.mean()), f"{metric}_se": error}
            cells.append(f"{values.mean():.3f} {gap.mean():+.1f} ({error:.1f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    return means


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for embeddings")
    parser.add_argument("--write", type=Path, help="JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {each.name: measure(each, scratch=args.scratch) for each in sorted(args.targets.iterdir()) if each.is_dir()}
    means = {"all": table(found), **{name: table({name: each}) for name, each in found.items()}}
    if args.write:
        args.write.write_text(json.dumps(means, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
