"""Source profiles in the same visit: a model that a screening loaded is profiled on the source pack, if it earned that.

Loading is what a screening pays for, so a candidate's profiles are made while it is loaded anyway, and stay in the
user's library. They serve later rankings, not this one, so their time is bounded, and they are made task by task, in
one order for all candidates: what one visit has no time for, the next one makes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from vlmsel_auto.cache import Store, default_cache_dir
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.library.places import remember
from vlmsel_auto.library.records import Cell, Library
from vlmsel_auto.measuring.cells import CellSettings, path_points
from vlmsel_auto.measuring.source_cells import measure_source
from vlmsel_auto.measuring.source_pack import load_pack
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.pipeline.each_candidate import attempt
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.reporting.formatting import plural

_PROFILE_SHARE: Final = 0.1  # of the time for looking, at most, where there is a deadline; our own choice
_SWEEP: Final = 3.0  # what a point of the path takes, in times of embedding: one pass forward, one back
_ENOUGH: Final = 5  # profiled tasks of other origin: a candidate needs no pack


@dataclass(kw_only=True, eq=False)
class SourceProfiles:
    """What the visits of one run have made, and may still make."""

    tasks: Sequence[Task]  # of the pack
    known: Library
    store: Store
    sink: Sink
    began: float = field(default_factory=time.monotonic)
    earned: float = 0.0  # seconds of screenings so far
    spent: float = 0.0  # seconds of profiles so far
    made: dict[str, int] = field(default_factory=dict)  # profiles by candidate

    def visit(
        self, model: LoadedModel, *, image_seconds: float, screening_seconds: float, deadline: float | None
    ) -> None:
        """Profile a loaded model on tasks of the pack that the library lacks, as long as the time is earned.

        All profiles of a run together take at most as long as its screenings so far; with a ``deadline``
        (`time.monotonic`) at most a tenth of the time from the beginning to it. Nothing is raised: what fails is told.

        Args:
            model: just screened.
            image_seconds: to embed an image; NaN: unknown, nothing is made.
            screening_seconds: that the screening took, download included.
            deadline: of the screenings.
        """
        self.earned += screening_seconds
        cells: list[Cell] = []
        expected = _SWEEP * path_points(model, CellSettings()) * image_seconds  # an image
        for task in missing_tasks(self.tasks, model.candidate, known=self.known):
            if not self._may_spend(expected * len(task.paths), deadline=deadline):
                break
            began = time.monotonic()
            outcome = attempt(partial(measure_source, model, task, store=self.store))
            seconds = time.monotonic() - began
            self.spent += seconds
            if isinstance(outcome, str):
                text = f"{model.candidate.id} has no source profile on {task.name}: {outcome}"
                self.sink(Notice(text=text, level="warning"))
                break  # the other tasks would most likely fail like it
            cells.append(outcome)
            expected = seconds / len(task.paths)
        self._keep(model.candidate, cells)

    def _may_spend(self, seconds: float, *, deadline: float | None) -> bool:
        allowed = self.earned if deadline is None else _PROFILE_SHARE * (deadline - self.began)
        in_time = deadline is None or time.monotonic() + seconds <= deadline
        return math.isfinite(seconds) and in_time and self.spent + seconds <= allowed

    def _keep(self, candidate: Candidate, cells: Sequence[Cell]) -> None:
        if not cells:
            return
        try:
            remember(cells)
        except LibraryError as error:
            self.sink(Notice(text=f"source profiles were not added to your library: {error}", level="warning"))
        else:
            self.made[candidate.id] = len(cells)

    def notes(self) -> list[str]:
        """What a reader should know of the visits; nothing where nothing was made."""
        if not self.made:
            return []
        made, models = plural(sum(self.made.values()), "source profile"), plural(len(self.made), "candidate")
        return [f"made {made} of {models} while they were loaded: later rankings use them"]


def open_source_profiles(library: Library, *, sink: Sink) -> SourceProfiles | None:
    """The profiles that visits may make; None without a pack of source images (``vlmsel-auto library sources``)."""
    tasks = load_pack()
    store = Store(default_cache_dir() / "library" / "store")
    return SourceProfiles(tasks=tasks, known=library, store=store, sink=sink) if tasks else None


def missing_tasks(tasks: Sequence[Task], candidate: Candidate, *, known: Library) -> list[Task]:
    """Tasks of the pack on which the library has no profile of the candidate.

    None where it has profiles on five tasks of other origin, such as those of the mini zoo: it is known better by them;
    and of a candidate without texts, which no library compares.
    """
    if not candidate.has_text:
        return []
    if candidate.id not in known.candidate_ids:
        return list(tasks)
    activity = known.activity[known.row(candidate.id)]
    have = {one.digest for s, one in enumerate(known.tasks) if np.isfinite(activity[s]).any()}
    if len(have - {one.digest for one in tasks}) >= _ENOUGH:
        return []
    return [one for one in tasks if one.digest not in have]
