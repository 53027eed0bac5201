"""QUESTION: Does choosing templates by agreement help, also where no candidate knows the images?

PAGE: docs/results/without-labels.md
RESULT: benchmarks/results/templates-far.json

    python -m benchmarks.labels.templates TASKS --write benchmarks/results/templates-far.json

At most 400 test images of each task; near and far candidates as in `benchmarks.labels.belief`. Accuracy with the
templates that candidates agree on less that with "a photo of a {}.", in points: of all candidates, of the best of them,
and of the mean of their log-probabilities; mean over cases with its standard error, and the worst case. "Weak": cases
in which candidates hardly agree in any template (kappa below .1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.common import command_line, folders, print_head, print_row, write_json
from benchmarks.labels.labelling_heaps import HEAP
from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.cache import Store, default_cache_dir
from vlmsel_auto.measuring.reference_embeddings import mean_text, reference_embeddings
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.ranking.evidence.zeroshot import cosines
from vlmsel_auto.ranking.templates import Heard, choose_by_agreement
from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tasks.templates import BANK

_LEAST_FAR: Final = 6  # candidates
_WEAK: Final = 0.1  # kappa
_COLUMNS: Final = ("candidates", "best", "pool")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One task as some candidates see it."""

    kind: str
    kappa: float  # in the templates that were chosen
    gain: FloatArray  # (3,) by `_COLUMNS`
    moved: bool  # others than the plain template were chosen


def cases(path: Path, *, cache: Path) -> list[Case]:
    """Of all candidates, and of those that know little of the task."""
    task, store, everyone = load_task(path, workdir=cache), Store(cache / "targets"), mini_zoo()
    rows = np.sort(np.random.default_rng(1).permutation(task.test)[:HEAP])
    heard = []
    for one in everyone:
        load = partial(zoo.load, one)
        texts = reference_embeddings(one, task.prompts, BANK, load=load, store=store)
        images = embed(one, task, rows, load=load, store=store).images.astype(np.float64)
        heard.append(
            Heard(images=images, elsewhere=texts.elsewhere.astype(np.float64), captions=texts.captions)
        )  # fmt: skip
    far = {each.id for each in far_candidates(path.name)}
    truth = task.labels[rows]
    found = [case("near" if len(far) < len(everyone) else "far", heard, truth)]
    if _LEAST_FAR <= len(far) < len(everyone):
        those = [each for one, each in zip(everyone, heard, strict=True) if one.id in far]
        found.append(case("far", those, truth))
    return found


def case(kind: str, heard: Sequence[Heard], truth: IntArray) -> Case:
    """Choose templates and compare."""
    choice = choose_by_agreement(heard)
    gain = _accuracies(heard, choice.places, truth) - _accuracies(heard, (0,), truth)
    return Case(kind=kind, kappa=choice.kappa, gain=100 * gain, moved=choice.places != (0,))


def _accuracies(heard: Sequence[Heard], places: Sequence[int], truth: IntArray) -> FloatArray:
    """By `_COLUMNS`, with the mean text of these templates."""
    seen = [cosines(one.images, mean_text(one.captions[list(places)]).astype(np.float64)) for one in heard]
    each = [float((one.argmax(axis=1) == truth).mean()) for one in seen]
    pooled = np.mean([one / one.std() for one in seen], axis=0)
    return np.array([np.mean(each), max(each), (pooled.argmax(axis=1) == truth).mean()])


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "labelling")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = [one for path in folders(args.tasks) for one in cases(path, cache=args.cache)]
    rows: list[dict[str, object]] = []
    print_head("cases", "number", "other templates chosen", *(f"{name}: gain, error, worst" for name in _COLUMNS))
    for name, those in {
        "near": [one for one in found if one.kind == "near"],
        "far": [one for one in found if one.kind == "far"],
        "far, weak": [one for one in found if one.kind == "far" and one.kappa < _WEAK],
    }.items():
        gains = np.stack([one.gain for one in those])
        error = gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
        row: dict[str, object] = {"cases": name, "number": len(those), "moved": sum(one.moved for one in those)}
        for column, figures in zip(_COLUMNS, np.stack([gains.mean(axis=0), error, gains.min(axis=0)]).T, strict=True):
            row[column] = np.round(figures, 1).tolist()
        rows.append(row)
        print_row(*row.values())
    write_json(args.write, {"templates": rows})


if __name__ == "__main__":
    main()
