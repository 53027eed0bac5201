"""Builds a library: every candidate on every task, cell by cell, each kept as soon as it is finished.

A finished cell is a one-cell library file under the digest of what determines it (weights, task, settings). A killed
build loses at most the cells that were being made; a build with one more candidate or task makes only the new cells.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Store, default_cache_dir
from vlmsel_auto.engines.each_job import as_they_end, why_not
from vlmsel_auto.engines.engine import Channel, Resources
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.errors import LibraryError, TaskError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.library.assemble import assemble, merge
from vlmsel_auto.library.file import load, save
from vlmsel_auto.library.records import Cell, CellFailure, Library
from vlmsel_auto.measuring.cells import CellSettings, cell_key, measure_cell, source_task
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.task import TaskOptions, load_task

_ONE_THREAD: Final = Resources(threads=1)  # parallel are the jobs, not the arithmetic in them


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where a library's cells are made, and kept until it is written."""

    cache: Path  # folder of finished cells and decoded images
    jobs: int = 1  # processes, each with one torch thread
    device: str = "cpu"  # where the models run

    @property
    def store(self) -> Store:
        """Embeddings and profiles."""
        return Store(self.cache / "store")


def build(
    *,
    tasks: Sequence[Path],
    candidates: Sequence[Candidate],
    out: Path,
    settings: CellSettings | None = None,
    base: Library | None = None,
    leave_out: Sequence[str] = (),
    place: Workplace | None = None,
    sink: Sink = discard,
) -> Library:
    """Measure every candidate on every task and write the library; run it again after a kill to go on.

    Args:
        tasks: task folders; see `source_folders.task_folders` for a folder that holds many.
        candidates: from `candidates.resolve`.
        out: the library file, written once at the end, whole.
        settings: number of images, shots, seed and the like.
        base: a library that the cells are added to; its tuned accuracies and other cells stay.
        leave_out: names of tasks, or of their folders, that must not enter.
        place: default: this process, ``library`` in the cache folder.
        sink: takes the events of stage "library".

    Returns:
        The library as written. A cell that failed is NaN and listed in ``failures``.

    Raises:
        LibraryError: nothing to build, two tasks of one name, or ``out`` cannot be written.
        TaskError: a task folder cannot be used.
    """
    settings = settings or CellSettings()
    place = place or Workplace(cache=default_cache_dir() / "library")
    if place.jobs < 1:
        raise LibraryError(f"jobs must be at least 1, but got {place.jobs!r}")
    began = time.monotonic()
    loaded = load_tasks(
        tasks, candidates=candidates, settings=settings, leave_out=leave_out, cache=place.cache, sink=sink
    )
    if not loaded or not candidates:
        raise LibraryError(
            f"a library needs at least one task and one candidate, but got {len(loaded)} and {len(candidates)}"
        )
    silent = [one.id for one in candidates if not one.has_text]
    if silent:
        raise LibraryError(
            f"a library compares candidates by class names: leave out towers without texts, but got {silent}"
        )
    grid = [_CellJob(candidate=one, task=task, settings=settings, place=place) for one in candidates for task in loaded]
    cells, failures = _measure(grid, place=place, sink=sink)
    made = assemble(cells, failures=failures)
    made = merge(base, made) if base is not None else made
    save(made, out)
    sink(StageFinished(stage="library", seconds=time.monotonic() - began, text=f"{len(cells):,} cells in {out}"))
    return made


def load_tasks(
    tasks: Sequence[Path],
    *,
    candidates: Sequence[Candidate],
    settings: CellSettings,
    leave_out: Sequence[str],
    cache: Path,
    sink: Sink,
) -> tuple[Task, ...]:
    """Load task folders with the views of all candidates; images are decoded once and kept in ``cache``.

    Raises:
        LibraryError: two tasks share a name.
        TaskError: a folder cannot be used.
    """
    views = tuple(dict.fromkeys(one.view for one in candidates))
    options = TaskOptions(shots=max(settings.shots), seed=settings.seed)
    found: dict[str, Task] = {}
    for path in tasks:
        if path.name in leave_out:
            continue
        try:
            task = load_task(path, options, workdir=cache, views=views, sink=sink)
        except TaskError as error:
            raise TaskError(f"task folder {path}: {error}") from error
        if task.name in leave_out:
            continue
        if task.name in found:
            raise LibraryError(
                f"two tasks are called {task.name!r}; rename one, but got {found[task.name].root} and {path}"
            )
        if len(task.train) == 0 or len(task.test) == 0:
            raise TaskError(
                f"a source task needs training and test images, but got {len(task.train)}, {len(task.test)} in {path}"
            )
        found[task.name] = task
    return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class _CellJob:
    candidate: Candidate
    task: Task
    settings: CellSettings
    place: Workplace

    @property
    def label(self) -> str:
        return f"{self.candidate.id} on {self.task.name}"

    @property
    def path(self) -> Path:
        key = cell_key(candidate=self.candidate, task=self.task, settings=self.settings)
        return self.place.cache / "cells" / key[:2] / f"{key}.safetensors"

    def kept(self) -> Cell | None:
        """The finished cell; None when there is none, or it is damaged and must be made again."""
        try:
            (known,) = load(self.path).cells()
        except ValueError:  # LibraryError is one; so is another number of cells
            return None
        # names may have changed since; the content has not, or the path would be another
        one = self.candidate
        named = replace(known.candidate, id=one.id, arch=one.arch, tag=one.tag, params=one.params, flops=one.flops)
        return replace(known, candidate=named, task=source_task(self.task))

    def run(self, channel: Channel) -> None:  # noqa: ARG002 - the signature of a job
        cell = measure_cell(
            model=_model(self.candidate, self.place.device),
            task=self.task,
            settings=self.settings,
            code_version=version("vlmsel-auto"),
            store=self.place.store,
        )
        save(assemble([cell]), self.path)


def _measure(grid: Sequence[_CellJob], *, place: Workplace, sink: Sink) -> tuple[list[Cell], list[CellFailure]]:
    """The cells of jobs, those that are missing made now, and why some could not be made; both in the jobs' order."""
    found = {at: cell for at, job in enumerate(grid) if (cell := job.kept()) is not None}
    failures: dict[int, CellFailure] = {}
    known, began = len(found), time.monotonic()
    missing = [at for at in range(len(grid)) if at not in found]
    sink(StageStarted(stage="library", total=len(grid), text=f"{known:,} of {len(grid):,} cells are known"))
    waiting = iter([(at, grid[at]) for at in missing])
    workers = min(place.jobs, max(1, len(missing)))
    with (
        InProcess() if workers == 1 else LocalEngine(workers, threads=1) as engine,
        # one waits in line, and no more, for pickled jobs are large
        closing(as_they_end(engine, lambda: next(waiting, None), resources=_ONE_THREAD, in_line=1)) as ending,
    ):
        for done, (at, ended) in enumerate(ending, start=1):
            job, reason = grid[at], why_not(ended)
            cell = None if reason else job.kept()
            if cell is not None:
                found[at] = cell
            else:
                reason = reason or "the result cannot be read back"
                failures[at] = CellFailure(candidate=job.candidate.id, task=job.task.name, reason=reason)
                sink(Notice(level="warning", text=f"{job.label} failed: {reason}"))
            left = (time.monotonic() - began) / done * (len(missing) - done)
            sink(StageProgress(stage="library", done=known + done, text=f"{job.label}; about {left / 60:.1f} min left"))
    return [found[at] for at in sorted(found)], [failures[at] for at in sorted(failures)]


@lru_cache(maxsize=1)  # one is enough: cells come candidate by candidate
def _model(candidate: Candidate, device: str) -> LoadedModel:
    return zoo.load(candidate, device=device)
