"""Classes that the mini zoo named on the library's tasks, with the true ones: what two benchmarks of beliefs share.

The library keeps each candidate's zero-shot classes of at most 160 images a task, and no label of these; labels come
from the folders of the tasks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.bench.case import Case
from vlmsel_auto.cache import default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.cells import CellSettings, labelled_draws, unlabelled_images
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray
from vlmsel_auto.tasks.task import load_task

_VOTE: Final = 2.0  # log-odds


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Classes of the images whose predictions the library keeps."""

    labels: Mapping[str, IntArray]  # by task, in the order of the predictions
    drawn: Mapping[tuple[str, int], IntArray]  # by task and labels a class: 1 where the first draw labels the image

    def at(self, task: str, shots: int) -> IntArray:
        """Labels that are known at so many a class."""
        if not shots:
            return np.full(len(self.labels[task]), UNLABELLED)
        return np.where(self.drawn[task, shots] > 0, self.labels[task], UNLABELLED)


def read_labels(library: Library, tasks: Path, *, cache: Path) -> Known:
    """The classes, from the folders of the tasks."""
    settings, labels, drawn = CellSettings(), {}, {}
    for name in library.task_names:
        task = load_task(tasks / name, workdir=cache)
        images = unlabelled_images(task, settings)[: settings.signal_images]
        labels[name] = task.labels[images]
        for (draw, shots), chosen in labelled_draws(task, settings).items():
            if draw == 0:
                drawn[name, shots] = np.isin(images, chosen).astype(np.int64)
    return Known(labels=labels, drawn=drawn)


def named_classes(case: Case, column: int) -> IntArray:
    """Classes (M, n) that the candidates of a case named on a task of its library."""
    named = case.library.predicted[case.rows, column]
    return np.asarray(named[:, np.isfinite(named).all(axis=0)].astype(np.int64))


def hard_votes(named: IntArray, *, n_classes: int) -> FloatArray:
    """Log-odds (M, n, K): two for the class that a candidate named."""
    return np.asarray(_VOTE * (named[:, :, None] == np.arange(n_classes)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What the command line said, with what it stands for."""

    library: Library
    known: Known
    quick: bool
    write: Path | None

    def finish(self, content: object) -> None:
        """Write the rows where they are wanted; the last line is one JSON object."""
        if self.write is not None:
            self.write.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        print(json.dumps(content))


def read_command_line(about: str | None, *, quick: str) -> Told:
    """Read the command line, the library and the classes of its tasks; ``quick`` says what --quick leaves out."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of the library's task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "kept-predictions")
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    parser.add_argument("--quick", action="store_true", help=quick)
    args = parser.parse_args()
    library = default_library()
    if args.quick:
        library = library.select_tasks(library.task_names[::3])
    known = read_labels(library, args.tasks, cache=args.cache)
    return Told(library=library, known=known, quick=args.quick, write=args.write)
