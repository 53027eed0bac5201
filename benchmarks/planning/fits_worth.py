"""QUESTION: What are schedules, seeds, parts left out and members of fits on few labels worth?

PAGE: docs/results/tuning.md
RESULT: benchmarks/results/fits-worth.json

    python -m benchmarks.tuning.recorded_fits TARGETS --records RECORDS --far
    python -m benchmarks.planning.fits_worth RECORDS --write benchmarks/results/fits-worth.json

One fit: mean test accuracy over the five candidates of a target; mean of two fits of a candidate; mean of the fits of
three and of five candidates (of their probabilities). Then the same beside five and eight heads, weighed as the
product does it, by what the towers say of the parts that they left out. Last the error (root mean square) of a fit's
accuracy on its part against test, as it is and on the level of all parts that heads give. Far and near targets apart;
in brackets the standard error over targets of the difference to the first row, in points.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import softmax

from benchmarks.common import standard_error
from vlmsel_auto.models.pooling import fit_weights, pool
from vlmsel_auto.records import FloatArray, IntArray

FITS = {
    "head": ("head",), "without a part": ("fold0",), "without two parts in turn": ("fold0", "fold1"),
    "their mean weights": ("joined",),
    "all labels": ("all",), "all labels, two seeds": ("all", "seed"), "all labels, twice the epochs": ("long",),
    "all labels, twice the rate": ("fast",), "bare loop": ("bare",),
}  # fmt: skip
TEMPER = 20.0  # as the product's
Record = Mapping[str, FloatArray]


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--write", type=Path, help="JSON")
    args = parser.parse_args()
    result: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("far", "near"):
        files = sorted(args.records.glob(f"*.{kind}.safetensors"))
        records = [load_file(file) for file in files]
        values = [values_of(each) for each in records]
        if not values:
            continue
        print(f"\n{kind}: {', '.join(file.name.split('.')[0] for file in files)}")
        print("| fits | accuracy | to the head |\n|---|---|---|")
        result[kind] = {}
        for name in values[0]:
            mine = np.array([each[name] for each in values])
            gaps = 100 * (mine - np.array([each["head"] for each in values]))
            print(f"| {name} | {mine.mean():.3f} | {gaps.mean():+.1f} ({standard_error(gaps):.1f}) |")
            result[kind][name] = {
                "accuracy": round(float(mine.mean()), 4), "points": round(float(gaps.mean()), 2),
                "se": round(standard_error(gaps), 2),
            }  # fmt: skip
        errors = np.concatenate([np.array(part_errors(each)) for each in records])
        plain, level = np.sqrt(np.mean(errors**2, axis=0)).tolist()
        print(f"\nerror of a part: {plain:.3f}; on the level of all parts: {level:.3f}")
        result[kind]["error of a part"] = {"as it is": round(plain, 4), "on the level of all": round(level, 4)}
    if args.write:
        args.write.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
