"""A sample of a scan without labels becomes a task: its images, each different, and no split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Sink
from vlmsel_auto.records import UNLABELLED, BadFile, Draw, Task
from vlmsel_auto.tasks.identity import Identity
from vlmsel_auto.tasks.left_out import a_copy
from vlmsel_auto.tasks.names import printable, shown
from vlmsel_auto.tasks.pixels import pixels_of
from vlmsel_auto.tasks.sample import Sample
from vlmsel_auto.tasks.scan import Scan
from vlmsel_auto.tasks.store import StoreEntry

_DIGITS: Final = 15  # hexadecimal, of a digest: what an int64 holds


def task_without_labels(
    scan: Scan, *, sample: Sample, store: StoreEntry, seed: int, notes: tuple[str, ...], sink: Sink
) -> Task:
    """The task of a scan without labels.

    Raises:
        TaskError: not one image can be decoded.
    """
    found = _distinct(scan, sample=sample, rows=store.identities)
    told, nothing = scan.declaration, np.empty(0, dtype=np.int64)
    good = sorted(found.drawn)
    digests = [store.identities[row].digest for row in good]
    return Task(
        name=told.name,
        root=scan.root,
        classes=scan.classes,
        prompts=scan.prompts,
        templates=told.templates,
        domain=told.domain,
        metric=told.metric,
        paths=tuple(scan.entries[sample.positions[row]].path for row in good),
        labels=np.full(len(good), UNLABELLED, dtype=np.int64),
        train=nothing,
        val=nothing,
        test=nothing,
        support=nothing,
        shots=0,
        bad_files=tuple(sorted([*scan.stray, *found.bad_files], key=lambda one: (one.used, one.path))),
        pixels=pixels_of(
            scan,
            positions=sample.positions,
            store=store,
            good=good,
            peers=np.zeros(len(good), dtype=np.int64),
            sink=sink,
        ),
        digest=digest("no labels", list(scan.classes), list(scan.prompts), list(told.templates), list(digests)),
        seed=seed,
        notes=(*scan.notes, *notes),
        draw=Draw(
            files=len(sample.positions),
            order=np.searchsorted(good, found.drawn),
            ids=np.array([int(digest(one)[:_DIGITS], 16) for one in digests], dtype=np.int64),
            texts=_texts(scan.prompts, told.templates),
        ),
        names_templates=told.names_templates,
    )


def spoken_in(task: Task, templates: Sequence[str]) -> Task:
    """The same images without labels, and class names in these templates.

    Raises:
        ValueError: the task has labels.
    """
    if task.draw is None:
        raise ValueError(f"templates are chosen for a task without labels, but got {task.name!r}")
    return replace(
        task,
        templates=tuple(templates),
        digest=digest(task.digest, list(templates)),
        draw=replace(task.draw, texts=_texts(task.prompts, templates)),
    )


def _texts(prompts: Sequence[str], templates: Sequence[str]) -> str:
    return digest("no labels", list(prompts), list(templates))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Distinct:
    """Images of a sample that can be used."""

    drawn: tuple[int, ...]  # rows of the sample, in the order of the draw
    bad_files: tuple[BadFile, ...]  # damaged files, converted ones, and copies of others


def _distinct(scan: Scan, *, sample: Sample, rows: Sequence[Identity]) -> _Distinct:
    """The images of a sample that can be decoded, one of each picture: that which was drawn first.

    Raises:
        TaskError: there is none.
    """
    first: dict[str, str] = {}
    good: list[int] = []
    listed: list[BadFile] = []
    for place in sample.order.tolist():
        path, row = printable(scan.entries[sample.positions[place]].path), rows[place]
        if row.note:
            listed.append(BadFile(path=path, reason=row.note, used=bool(row.digest)))
        if row.digest and first.setdefault(row.digest, path) == path:
            good.append(place)
        elif row.digest:
            listed.append(a_copy(path, of=first[row.digest]))
    if not good:
        lost = [f"{one.path}: {one.reason}" for one in listed]
        raise TaskError(f"no image was found: not one file can be decoded, but got {shown(lost)}")
    return _Distinct(drawn=tuple(good), bad_files=tuple(listed))
