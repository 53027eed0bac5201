"""A sample of a scan without labels becomes a task: its images, each different, and no split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Sink
from vlmsel_auto.records import UNLABELLED, BadFile, IntArray, Task
from vlmsel_auto.tasks.identity import Identity
from vlmsel_auto.tasks.pixels import pixels_of
from vlmsel_auto.tasks.scan import Scan, printable, shown
from vlmsel_auto.tasks.store import StoreEntry


def task_without_labels(
    scan: Scan, *, positions: IntArray, store: StoreEntry, seed: int, notes: tuple[str, ...], sink: Sink
) -> Task:
    """The task of a scan without labels.

    Raises:
        TaskError: not one image can be decoded.
    """
    found = _distinct(scan, positions=positions, rows=store.identities)
    told, nothing = scan.declaration, np.empty(0, dtype=np.int64)
    return Task(
        name=told.name,
        root=scan.root,
        classes=scan.classes,
        prompts=scan.prompts,
        templates=told.templates,
        domain=told.domain,
        metric=told.metric,
        paths=tuple(scan.entries[positions[row]].path for row in found.good),
        labels=np.full(len(found.good), UNLABELLED, dtype=np.int64),
        train=nothing,
        val=nothing,
        test=nothing,
        support=nothing,
        shots=0,
        bad_files=tuple(sorted([*scan.stray, *found.bad_files], key=lambda one: (one.used, one.path))),
        pixels=pixels_of(
            scan,
            positions=positions,
            store=store,
            good=found.good,
            peers=np.zeros(len(found.good), dtype=np.int64),
            sink=sink,
        ),
        digest=digest(
            "no labels",
            list(scan.classes),
            list(scan.prompts),
            list(told.templates),
            [store.identities[row].digest for row in found.good],
        ),
        seed=seed,
        notes=(*scan.notes, *notes),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Distinct:
    """Images of a sample that can be used."""

    good: tuple[int, ...]  # rows of the sample
    bad_files: tuple[BadFile, ...]  # damaged files, converted ones, and copies of others


def _distinct(scan: Scan, *, positions: IntArray, rows: Sequence[Identity]) -> _Distinct:
    """The images of a sample that can be decoded, one of each picture.

    Raises:
        TaskError: there is none.
    """
    first: dict[str, str] = {}
    good: list[int] = []
    listed: list[BadFile] = []
    for place, (position, row) in enumerate(zip(positions, rows, strict=True)):
        path = printable(scan.entries[position].path)
        if row.note:
            listed.append(BadFile(path=path, reason=row.note, used=bool(row.digest)))
        if row.digest and first.setdefault(row.digest, path) == path:
            good.append(place)
        elif row.digest:
            listed.append(BadFile(path=path, reason=f"same image as {first[row.digest]}"))
    if not good:
        lost = [f"{one.path}: {one.reason}" for one in listed]
        raise TaskError(f"no image was found: not one file can be decoded, but got {shown(lost)}")
    return _Distinct(good=tuple(good), bad_files=tuple(listed))
