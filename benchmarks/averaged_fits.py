"""What the mean of several fits' weights is worth: test accuracy of a tower that was fitted again with other seeds.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --train 16 --seed 5 --only cats_dogs,white_blood_cells,...
    python benchmarks/averaged_fits.py TARGETS --records RECORDS --write benchmarks/results/averaged-fits.json
    python benchmarks/averaged_fits.py TARGETS --records RECORDS --quick

On each target three candidates, by the log loss of their regression out of fold: the first of all, and the first two of
those that were pretrained on other things (drawings on photographs, photographs on drawings), where tuning pays. Each
is fine-tuned on all labelled images as a search does it at the end, by four seeds. Rows: one fit (mean of the four),
the mean weights of the first two and of all four (`tuning.averaging`), the mean predictions of the four. In brackets:
standard error of the difference to one fit over targets, in points. A run that is on record is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from paired import by_target, of_each_kind, standard_error
from recorded_targets import read_command_line
from target_heads import Look, look

from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.pooling import log_probabilities, pool
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import FloatArray, Task
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.averaging import MOST_FITS, averaged
from vlmsel_auto.tuning.data import Splits, splits
from vlmsel_auto.tuning.methods import METHODS
from vlmsel_auto.tuning.work import Deadline, Work, never

DRAWINGS = {"emoji_groups", "omniglot_alphabets", "sign_digits", "synth_sentiment"}
_FAR = 2  # candidates that were pretrained on other things


@dataclass(frozen=True, kw_only=True)
class Case:
    """One candidate on one target; accuracies in [0, 1]."""

    target: str
    candidate: str
    far: bool
    head: float  # regression with zero-shot
    one: float
    two_weights: float
    four_weights: float
    four_predictions: float


ROWS = {
    "one fit": "one", "mean weights of two": "two_weights", "mean weights of four": "four_weights",
    "mean predictions of four": "four_predictions", "head: regression with zero-shot": "head",
}  # fmt: skip


def chosen(seen: Look, name: str) -> tuple[list[int], list[int]]:
    """Places in the mini zoo for the target of this name: the first, and those that were pretrained on other things."""
    others = ("photo-", "synth-") if name in DRAWINGS else ("glyph-", "synth-")
    far = [place for place in seen.order if any(f".{kind}" in mini_zoo()[place].id for kind in others)][:_FAR]
    return list(dict.fromkeys([seen.order[0], *far])), far


def work_of(task: Task, place: int, *, scratch: Path) -> Work:
    """Fine-tuning one member of the mini zoo on all labelled images."""
    candidate = mini_zoo()[place]
    runner = TrialRunner(
        task=task, table={candidate.id: candidate}, methods={each.name: each for each in METHODS}, load=zoo.load,
        store=Store(scratch / "embeddings"), workdir=scratch, device=torch.device("cpu"), train_shots=None,
        images_per_trial=2_500, seed=0,
    )  # fmt: skip
    parts = splits(task)
    return Work(
        spec=runner.spec("finetune", candidate.id, DEFAULT), task=task, candidate=candidate,
        splits=Splits(train=parts.labelled, val=parts.val, test=parts.test), load=partial(zoo.load),
        store=runner.store, hook=never, deadline=Deadline(), workdir=scratch, device=torch.device("cpu"),
    )  # fmt: skip


def measure(target: Path, *, scratch: Path) -> list[Case]:
    """All candidates of one target."""
    seen = look(target, scratch=scratch)
    task, parts = seen.task, splits(seen.task)
    truth = task.labels[parts.test]
    places, far = chosen(seen, target.name)

    def right(logits: FloatArray) -> float:
        return float((logits.argmax(axis=1) == truth).mean())

    found = []
    for place in places:
        work = work_of(task, place, scratch=scratch)
        fits = [finetune.run(replace(work, spec=replace(work.spec, seed=seed))) for seed in range(MOST_FITS)]
        logs = [
            log_probabilities(each.checkpoint.test_logits)
            for each in fits
            if each.checkpoint is not None and each.checkpoint.test_logits is not None
        ]
        case = Case(
            target=target.name, candidate=work.candidate.id, far=place in far,
            head=right(seen.heads[place]["with text"][1]),
            one=float(np.mean([right(each) for each in logs])),
            two_weights=averaged(fits[:2], work).test or 0.0,
            four_weights=averaged(fits, work).test or 0.0,
            four_predictions=right(pool(logs, [1 / len(logs)] * len(logs))),
        )  # fmt: skip
        print(case, flush=True)
        found.append(case)
    return found


def table(cases: Sequence[Case]) -> list[dict[str, object]]:
    """Print means of all, far and near candidates; differences are averaged over a target's cases first."""
    rows: list[dict[str, object]] = []
    for title, mine in of_each_kind(cases):
        print(f"\n| {title}: {len(mine)} | accuracy | to one fit |\n|---|---|---|")
        for name, field in ROWS.items():
            gaps = by_target((each.target, 100 * (getattr(each, field) - each.one)) for each in mine)
            error = standard_error(gaps)
            accuracy = float(np.mean([getattr(each, field) for each in mine]))
            print(f"| {name} | {accuracy:.3f} | {gaps.mean():+.1f} ({error:.1f}) |")
            rows.append({"cases": title, "row": name, "accuracy": accuracy, "points": float(gaps.mean()), "se": error})
    return rows


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="the first target")
    cases = told.kept(Case, partial(measure, scratch=told.scratch))
    told.finish({"rows": table(cases), "cases": [encode(each) for each in cases]})


if __name__ == "__main__":
    main()
