"""What the report shows of single images, from logits and images that the search kept: no model is run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.pipeline.joined import Joined, Trials, held_out_of
from vlmsel_auto.records import ImageView, Task, TrialResult
from vlmsel_auto.reporting.label_issues import (
    LabelIssues,
    LabelledImage,
    NearDuplicates,
    Opinion,
    contradicting_pairs,
    miniatures,
    suspect,
)
from vlmsel_auto.reporting.mistakes import SHOWN, Judged, Mistakes, judge, judged_images, thumbnail, with_thumbnails
from vlmsel_auto.tuning.checkpoints import load_trial

_MOST_COMPARED: Final = 10_000  # images: distances grow with their square, this many take seconds
_LISTED: Final = 100  # doubtful labels, at most
_BLOCK: Final = 256  # images that are read at a time


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


def find_label_issues(members: Sequence[TrialResult], trials: Trials, *, images: bool) -> LabelIssues | None:
    """Look for labels that the leading models hold for wrong, and for near-duplicates with different labels.

    Args:
        members: best trials of the leading candidates, the chosen model first.
        trials: of the search; told why there is nothing.
        images: whether thumbnails go into the report: what the chosen model saw.

    Returns:
        None without a trial, or where files cannot be read.
    """
    if not members:
        return None
    task, view = trials.task, trials.candidate_of(members[0]).view
    try:
        opinions = [one for each in members for one in _opinions(each, trials)]
        found = suspect(opinions, labels=task.labels, n_classes=task.n_classes)
        first = found.suspects[:_LISTED]
        suspects = judged_images(
            found.probabilities[first], labels=task.labels[first], classes=task.classes,
            paths=[task.paths[row] for row in first],
        )  # fmt: skip
        chances = zip(suspects, found.wrong.tolist(), strict=False)  # suspects are fewer, where there are many
        suspects = tuple(replace(one, true_probability=1.0 - wrong) for one, wrong in chances)
        compared, pairs = _contradicting(task, view)
        near = tuple(
            NearDuplicates(first=_labelled(task, a), second=_labelled(task, b), distance=distance)
            for a, b, distance in pairs[:SHOWN]
        )
        if images:
            suspects = with_thumbnails(suspects, pixels_of([one.path for one in suspects], task=task, view=view))
            near = tuple(_pictured(pair, task=task, view=view) for pair in near)
    except VlmselError as error:  # the report is worth having all the same
        trials.sink(Notice(text=f"the report shows no doubtful labels: {error}", level="warning"))
        return None
    return LabelIssues(
        models=len(members),
        judged=len(found.judged),
        suspects=suspects,
        suspected=len(found.suspects),
        precision=float(found.wrong.mean()) if len(found.wrong) else None,
        power=found.power,
        compared=compared,
        near_duplicates=near,
        near_duplicate_pairs=len(pairs),
    )


def _opinions(trial: TrialResult, trials: Trials) -> list[Opinion]:
    """What a trial says of the images that it held out, and of the test images."""
    held_out = held_out_of(trial, trials)
    of_test = load_trial(trials.workdir, trial, tower=False).test_logits
    found = [] if held_out is None else [Opinion(rows=held_out.rows, logs=held_out.logs)]
    if of_test is not None:
        found.append(Opinion(rows=np.sort(trials.task.test), logs=log_probabilities(of_test)))
    return found


def _contradicting(task: Task, view: ImageView) -> tuple[int, list[tuple[int, int, float]]]:
    """Images that were compared, in a view in which they are decoded, and the pairs."""
    count = len(task.paths)
    if count > _MOST_COMPARED:
        return 0, []
    blocks = np.array_split(np.arange(count, dtype=np.int64), -(-count // _BLOCK))
    small = np.concatenate([miniatures(task.pixels.read(view, rows)) for rows in blocks])
    return count, contradicting_pairs(small, task.labels)


def _labelled(task: Task, row: int) -> LabelledImage:
    return LabelledImage(path=task.paths[row], label=task.classes[task.labels[row]])


def _pictured(pair: NearDuplicates, *, task: Task, view: ImageView) -> NearDuplicates:
    first, second = pixels_of([pair.first.path, pair.second.path], task=task, view=view)
    return replace(
        pair,
        first=replace(pair.first, thumbnail=thumbnail(first)),
        second=replace(pair.second, thumbnail=thumbnail(second)),
    )
