"""Which labels the user should look at, from logits and images that the search kept: no model is run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.pipeline.joined import Trials, held_out_of
from vlmsel_auto.pipeline.mistakes import pixels_of
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
from vlmsel_auto.reporting.mistakes import SHOWN, judged_images, thumbnail, with_thumbnails
from vlmsel_auto.tuning.checkpoints import load_trial

_MOST_COMPARED: Final = 10_000  # images: distances grow with their square, this many take seconds
_LISTED: Final = 100  # doubtful labels, at most
_BLOCK: Final = 256  # images that are read at a time


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
