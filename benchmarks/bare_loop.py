"""The product's fine-tuning beside a bare loop of PyTorch: the same candidates, the same labelled images, all of them.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --train 16 --seed 5 --only cats_dogs,white_blood_cells,...
    python benchmarks/bare_loop.py TARGETS --records RECORDS --write benchmarks/results/bare-loop.json
    python benchmarks/bare_loop.py TARGETS --records RECORDS --quick

The cases and the product's fits (mean of four seeds) are those of `averaged_fits`, as they stand in its results; the
targets must be the same. The bare loop (`plain_lines.fine_tune`, two seeds) begins with logistic regression, C = 10, on
all labelled images. In brackets: standard error over targets, in points. A target that is on record is not measured
again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from paired import by_target, of_each_kind, standard_error
from plain_lines import Recipe, begin, fine_tune, head_of
from recorded_targets import read_command_line
from sklearn.linear_model import LogisticRegression

from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed_images
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.task import load_task

FITS = Path(__file__).parent / "results" / "averaged-fits.json"
SEEDS = 2
Case: TypeAlias = "dict[str, str | bool | float]"  # of `averaged_fits`


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One candidate on one target; test accuracies in [0, 1]."""

    target: str
    candidate: str
    far: bool  # pretrained on other things
    ours: float
    bare: tuple[float, ...]  # by seed


def bare(target: Path, candidate: Candidate, *, scratch: Path, seeds: int = SEEDS) -> tuple[float, ...]:
    """Test accuracy of the bare loop by each seed."""
    views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
    task = load_task(target, views=views, workdir=scratch / target.name)
    train, test = np.sort(np.concatenate([task.train, task.val])), np.sort(task.test)
    features = unit_rows(embed_images(zoo.load(candidate), task, train).astype(np.float64))
    weight, bias = head_of(LogisticRegression(C=10, max_iter=1_000).fit(features, task.labels[train]))
    found = []
    for seed in range(seeds):
        tuned = begin(candidate, weight=weight, bias=bias)
        fine_tune(task, tuned, train=train, recipe=Recipe(), seed=seed)
        found.append(float((tuned.logits(task, test).argmax(axis=1) == task.labels[test]).mean()))
    return tuple(found)


def measure(target: Path, *, cases: Sequence[Case], scratch: Path) -> list[Beside]:
    """All candidates of one target."""
    members = {each.id: each for each in mini_zoo()}
    return [
        Beside(
            target=target.name, candidate=str(each["candidate"]), far=bool(each["far"]), ours=float(each["one"]),
            bare=bare(target, members[str(each["candidate"])], scratch=scratch),
        )
        for each in cases
        if each["target"] == target.name
    ]  # fmt: skip


def table(found: Sequence[Beside]) -> list[dict[str, object]]:
    """Print ours, the bare loop and the difference: of all, of far and of first candidates."""
    print("\n| candidates | pairs | ours | bare loop | ours less the bare loop |\n|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for title, mine in of_each_kind(found):
        if not mine:
            continue
        gaps = by_target((each.target, 100 * (each.ours - float(np.mean(each.bare)))) for each in mine)
        error = standard_error(gaps)
        ours, plain = (float(np.mean(values)) for values in ([x.ours for x in mine], [x.bare for x in mine]))
        print(f"| {title} | {len(mine)} | {ours:.3f} | {plain:.3f} | {gaps.mean():+.1f} ({error:.1f}) |")
        rows.append({"candidates": title, "pairs": len(mine), "ours": ours, "bare": plain, "points": float(gaps.mean()),
                     "se": error, "worst": float(gaps.min())})  # fmt: skip
    return rows


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="the first target")
    cases: list[Case] = json.loads(FITS.read_text("utf-8"))["cases"]
    found = told.kept(Beside, partial(measure, cases=cases, scratch=told.scratch))
    told.finish({"rows": table(found), "pairs": [encode(each) for each in found]})


if __name__ == "__main__":
    main()
