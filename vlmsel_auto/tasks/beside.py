"""Images that screenings see beside the labelled ones: a ranking by few labels learns from more images than those.

What signals of unlabelled images say of a handful is mostly noise (docs/results/ranking.md has the figures). Where the
support set is small, further training images count, as if they had no labels, and files of the folder that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Sink
from vlmsel_auto.records import ImageView, IntArray, Task
from vlmsel_auto.tasks.progress import ImageProgress
from vlmsel_auto.tasks.sample import draw_sample
from vlmsel_auto.tasks.scan import Entry, Files, Scan
from vlmsel_auto.tasks.store import open_entry
from vlmsel_auto.tasks.unlabelled import task_without_labels

SCREENED_IMAGES: Final = (
    160  # images that a screening embeds, with the support set: as many as cells of the library are made of
)


def further_images(train: IntArray, support: IntArray, *, seed: int) -> IntArray:
    """Training images outside the support set, sorted: a draw by chance, so many that there are 160 with it."""
    rest = np.setdiff1d(train, support)
    drawn = np.random.default_rng([seed, 7]).permutation(rest)[: max(0, SCREENED_IMAGES - len(support))]
    return np.sort(drawn).astype(np.int64)


def with_heap_beside(
    task: Task, scan: Scan, *, views: Sequence[ImageView], workdir: Path, seed: int, sink: Sink
) -> Task:
    """The task of a partly labelled folder with a draw of its unlabelled files, so many that screenings see 160 images.

    Raises:
        WorkdirError: the decoded images cannot be written.
    """
    count, most = len(scan.unlabelled), SCREENED_IMAGES - len(task.support) - len(task.others)
    if not count:
        return task
    there = f"files without a label: {count:,}"
    if most <= 0:
        return replace(task, notes=(*task.notes, f"{there}; not used"))
    heap = replace(
        scan,
        entries=tuple(Entry(path=path, label="", part=None) for path in scan.unlabelled),
        source=Files(root=scan.root, paths=scan.unlabelled),
        stray=(),
        notes=(),
        labelled=False,
    )
    sample = draw_sample(heap, images=most, seed=seed)
    progress = ImageProgress(sink=sink, total=len(sample.positions), text=f"reading {len(sample.positions)} more")
    store = open_entry(
        root=workdir / "pixels",
        key=heap.source.key(sample.positions),
        count=len(sample.positions),
        sources=lambda: heap.source.images(sample.positions),
        identify="pixels",
        views=views,
        progress=progress,
        sink=sink,
    )
    try:
        beside = task_without_labels(heap, sample=sample, store=store, seed=seed, notes=(), sink=sink)
    except TaskError as error:
        store.discard()
        return replace(task, notes=(*task.notes, f"{there}; not used: {error}"))
    progress.finish("known from an earlier run" if store.reused else "decoded")
    note = f"{there}; the ranking looks at {len(beside.paths)} of them, no model learns from them"
    return replace(task, beside=beside, notes=(*task.notes, note))
