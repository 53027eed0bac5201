"""Where the best model is wrong, from the logits that it kept: no model is run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice
from vlmsel_auto.pipeline.joined import Joined, Trials
from vlmsel_auto.records import ImageView, Task
from vlmsel_auto.reporting.mistakes import Judged, Mistakes, judge, with_thumbnails


def find_mistakes(best: Joined | None, trials: Trials, *, images: bool) -> Mistakes | None:
    """Judge the chosen model on the test images, or on held-out ones where there is no test split.

    Args:
        best: the chosen model, at its temperature; its tower is not needed.
        trials: of the search; told why there is nothing.
        images: whether thumbnails go into the report: what the model saw, in its own view.

    Returns:
        None without a model, without logits of unseen images, or where files cannot be read.
    """
    task = trials.task
    if best is None:
        return None
    on_test = bool(len(task.test))
    said = best.checkpoint.test_logits if on_test else None if best.held_out is None else best.held_out.logs
    if said is None:
        return None
    rows = np.sort(task.test) if on_test or best.held_out is None else best.held_out.rows
    found = judge(
        softmax(said.astype(np.float64), axis=1),
        labels=task.labels[rows],
        classes=task.classes,
        paths=[task.paths[row] for row in rows],
        split="test" if on_test else "validation",
    )
    if not images:
        return found
    view = trials.candidate_of(best.trial).view

    def pictured(judged: Sequence[Judged]) -> tuple[Judged, ...]:
        return with_thumbnails(judged, pixels_of([one.path for one in judged], task=task, view=view))

    try:
        return replace(found, surest=pictured(found.surest), unsure=pictured(found.unsure))
    except VlmselError as error:  # the report is worth having all the same
        trials.sink(Notice(text=f"the report shows no mistakes of the best model: {error}", level="warning"))
        return None


def pixels_of(paths: Sequence[str], *, task: Task, view: ImageView) -> list[NDArray[np.uint8]]:
    """The images of the task at ``paths`` as a model of this ``view`` saw them, uint8 (H, W, 3) each."""
    if not paths:
        return []
    row_of = {path: row for row, path in enumerate(task.paths)}
    return list(task.pixels.read(view, np.array([row_of[path] for path in paths], dtype=np.int64)))
