"""A finished search as a source task of the user's library."""

from __future__ import annotations

from collections.abc import Sequence

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.library.places import default_library, remember
from vlmsel_auto.measuring.search import RUN_SOURCES, cells_of_search
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, Task, TrialResult


def learn_from(
    task: Task,
    candidates: Sequence[Candidate],
    measured: Sequence[Measurement],
    trials: Sequence[TrialResult],
    *,
    seed: int,
    sink: Sink,
) -> str:
    """Add the search to the user's library; a library that cannot be written costs a notice, not the search."""
    shipped = next((one.name for one in default_library().tasks if one.digest == task.digest), None)
    if shipped is not None:  # its figures come from whole test splits, a search's from a few trials
        return f"not added to the library: the shipped library has this task as {shipped!r}, better measured"
    try:
        cells = cells_of_search(task=task, candidates=candidates, measured=measured, trials=trials, seed=seed)
        if not cells:  # the time was over before the first look
            return "not added to the library: no candidate was looked at"
        path, name = remember(cells=cells, run_sources=RUN_SOURCES)
    except LibraryError as error:
        sink(Notice(text=f"the search was not added to your library: {error}", level="warning"))
        return f"not added to the library: {error}"
    return f"added to the library {path} as source task {name!r}"
