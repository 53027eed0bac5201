"""Which images to label next, asked by what the screened candidates say of them (docs/guide/labelling.md)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from vlmsel_auto.cache import default_cache_dir, write_atomically
from vlmsel_auto.csvcells import text_cell
from vlmsel_auto.errors import InputError, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.label_session import LabelScores, LabelSession, Purpose, ToLabel
from vlmsel_auto.pipeline.rank import rank_task
from vlmsel_auto.pipeline.request import AUTO, TaskRequest
from vlmsel_auto.pipeline.session import opened
from vlmsel_auto.pipeline.workdir import TO_LABEL, default_workdir
from vlmsel_auto.process import nearest_there
from vlmsel_auto.reporting.formatting import plural
from vlmsel_auto.tasks.copies import left_out_notes
from vlmsel_auto.tasks.label_writing import read_known

BATCH: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelResult:
    """What to label next, and who is best by the labels so far."""

    to_label: tuple[ToLabel, ...]  # the most wanted first
    scores: LabelScores
    path: Path  # of to_label.csv


def open_labelling(request: TaskRequest, *, purpose: Purpose, sink: Sink) -> LabelSession:
    """Screen the candidates on a folder's images, and begin with the labels that it has. Raises as `label`."""
    folder, root = cast("Path", request.data), Path(request.cache_dir or default_cache_dir())
    known = read_known(folder, classes=request.classes, unlabelled=request.unlabelled, exclude=(root,))
    with opened(replace(request, classes=known.classes, unlabelled=True), sink=sink) as opening:
        task, ranked = opening.task, rank_task(opening)
    session = LabelSession(
        ranked.task, ranking=ranked.ranking, measured=ranked.measurements, labels=known.labels, purpose=purpose
    )
    for note in left_out_notes(task.bad_files):
        sink(Notice(text=note))
    beyond = len(set(known.labels) - set(task.paths))
    if beyond:
        sink(Notice(text=f"{plural(beyond, 'label')} of images that are not among those screened stay unused here"))
    return session


def label(
    task_dir: str | Path,
    *,
    count: int = BATCH,
    purpose: Purpose = "ranking",
    workdir: str | Path | None = None,
    candidates: str | Sequence[str] | Path = AUTO,
    limits: Limits = NO_LIMITS,
    offline: bool = False,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
    images: int | None = None,
    seed: int = 0,
    library: Library | str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str = "auto",
    sink: Sink = discard,
) -> LabelResult:
    """Say which images of a folder to label next, and write them to ``workdir/to_label.csv``.

    Labels that the folder has, in labels.csv or as ``labelled/<class>/*``, count.

    Args:
        task_dir: a folder of images.
        count: images to name.
        purpose: "ranking": what tells most about which candidate is best zero-shot; "tuning": what a head learns most
            from.
        workdir: None: ``vlmsel-NAME`` in the current folder, as for a search.
        candidates: as for `rank`.
        limits: as for `rank`.
        offline: as for `rank`.
        classes: as for `rank`.
        unlabelled: names of folders are no classes; labels in labels.csv count all the same.
        images: as for `rank`; only those that are screened are asked for.
        seed: as for `rank`.
        library: as for `rank`.
        cache_dir: as for `rank`.
        device: as for `rank`.
        sink: takes events.

    Raises:
        InputError: the folder, a candidate's name, the library or the work directory cannot be used.
        ValueError: count below 1, or an unknown purpose.
    """
    if count < 1 or purpose not in {"ranking", "tuning"}:
        raise ValueError(f"count must be 1 or more and purpose ranking or tuning, but got {count} and {purpose!r}")
    folder = folder_of(task_dir, workdir)
    request = TaskRequest(
        data=Path(task_dir), candidates=candidates, limits=limits, offline=offline, classes=classes,
        unlabelled=unlabelled, images=images, seed=seed, library=library, cache_dir=cache_dir, device=device,
    )  # fmt: skip
    session = open_labelling(request, purpose=purpose, sink=sink)
    return finish_labelling(session, count=count, folder=folder)


def folder_of(task_dir: str | Path, workdir: str | Path | None) -> Path:
    """The folder of to_label.csv.

    Raises:
        InputError: the images are in no folder.
        WorkdirError: it lies in the task folder, where the file would be taken for an image, or cannot be written.
    """
    if not isinstance(task_dir, (str, os.PathLike)):
        raise InputError(f"label needs a folder, in which labels are kept, but got a {type(task_dir).__name__}")
    folder = Path(workdir) if workdir is not None else default_workdir(Path(task_dir))
    if folder.resolve().is_relative_to(Path(task_dir).resolve()):
        raise WorkdirError(f"the work directory must lie outside the task folder, but got {str(folder)!r}")
    there = nearest_there(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise WorkdirError(f"the work directory cannot be written here; choose another, but got {str(folder)!r}")
    return folder


def finish_labelling(session: LabelSession, *, count: int, folder: Path) -> LabelResult:
    """Write what a session would ask for next to ``folder/to_label.csv``.

    Raises:
        WorkdirError: it cannot be written.
    """
    wanted = session.suggest(count)
    return LabelResult(to_label=wanted, scores=session.scores(), path=write_to_label(wanted, folder))


def write_to_label(wanted: Iterable[ToLabel], workdir: Path) -> Path:
    """Write ``workdir/to_label.csv``. Cells that a spreadsheet would take for formulas begin with an apostrophe.

    Raises:
        WorkdirError: the file cannot be written.
    """
    rows = [(f"./{one.path}", one.suggested, f"{one.probability:.3f}", one.why) for one in wanted]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(
        [("path", "suggested", "probability", "why"), *([text_cell(text) for text in row] for row in rows)]
    )
    path = workdir / TO_LABEL
    try:
        write_atomically(path, stream.getvalue().encode(errors="replace"))  # file names need not be UTF-8
    except OSError as error:
        raise WorkdirError(f"what to label cannot be written ({error.strerror}), but got {str(path)!r}") from error
    return path
