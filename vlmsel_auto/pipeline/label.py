"""Which images to label next, asked by what the screened candidates say of them (docs/guide/labelling.md)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Store, default_cache_dir, write_atomically
from vlmsel_auto.csvcells import text_cell
from vlmsel_auto.errors import InputError, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.library.places import open_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.models.hub import hub_offline
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.affordable import affordable_sample
from vlmsel_auto.pipeline.choose import AUTO, choose
from vlmsel_auto.pipeline.label_session import LabelSession, Purpose, Standing, ToLabel
from vlmsel_auto.pipeline.rank import rank_task, views_of
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.pipeline.workdir import TO_LABEL, default_workdir
from vlmsel_auto.process import nearest_there, writing
from vlmsel_auto.reporting.formatting import plural
from vlmsel_auto.tasks.copies import left_out_notes
from vlmsel_auto.tasks.label_writing import read_known
from vlmsel_auto.tasks.task import TaskOptions, load_task

BATCH: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelResult:
    """What to label next, and who is best by the labels so far."""

    to_label: tuple[ToLabel, ...]  # the most wanted first
    standing: Standing
    path: Path  # of to_label.csv


def open_labelling(
    task_dir: str | Path,
    *,
    purpose: Purpose = "ranking",
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
) -> LabelSession:
    """Screen the candidates on a folder's images, and begin with the labels that it has.

    Arguments and errors as for `label`.
    """
    root = Path(cache_dir or default_cache_dir())
    known = read_known(Path(task_dir), classes=classes, unlabelled=unlabelled, exclude=(root,))
    place = str(pick_device(device))
    with hub_offline(offline), writing(root):
        listed = choose(candidates, limits=limits, offline=offline, device=device, sink=sink)
        sample = affordable_sample(listed.candidates, machine=listed.machine, device=device)
        options = TaskOptions(
            seed=seed, classes=known.classes, unlabelled=True, images=sample if images is None else images
        )
        task = load_task(Path(task_dir), options, workdir=root, views=views_of(listed.candidates), sink=sink)
        ranked = rank_task(
            Session(
                task=task, candidates=listed.candidates, library=open_library(library), device=place,
                store=Store(root / "targets"), sink=sink, failures=listed.failures, limits=limits,
                machine=listed.machine, downloads=listed.downloads, seed=seed,
            )
        )  # fmt: skip
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
    session = open_labelling(
        task_dir, purpose=purpose, candidates=candidates, limits=limits, offline=offline, classes=classes,
        unlabelled=unlabelled, images=images, seed=seed, library=library, cache_dir=cache_dir, device=device, sink=sink,
    )  # fmt: skip
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
    return LabelResult(to_label=wanted, standing=session.standing(), path=write_to_label(wanted, folder))


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
