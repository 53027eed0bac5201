"""What a reader must know of a ranking: whose source tasks it rests on, and who was not looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.search import SEARCH
from vlmsel_auto.measuring.source_cells import PACK
from vlmsel_auto.pipeline.look import Looked
from vlmsel_auto.ranking.sources import Truth, source_truth
from vlmsel_auto.records import Ranking
from vlmsel_auto.reporting.formatting import plural

_NAMED: Final = 5  # own source tasks, or candidates, that a note names


def notes_of(ranking: Ranking, looked: Looked, library: Library, *, truth: Truth, candidates: int) -> list[str]:
    """Sentences for the report, of a ranking by looks at some of so many candidates.

    Args:
        ranking: of the candidates.
        looked: who was looked at.
        library: the source tasks.
        truth: what of them the ranking learned from.
        candidates: how many there are.
    """
    notes = []
    learned = np.isfinite(source_truth(library, ranking.order, truth=truth)).any(axis=0)
    own = _from_searches(library.select_tasks(np.array(library.task_names)[learned].tolist()))
    if own and any(line.basis.has_library for line in ranking.ranked):
        notes.append(f"{plural(len(own), 'source task')} of your own earlier searches: {_some(own)}")
    by_pack = _profiled_on_pack(library) & {line.candidate for line in ranking.ranked if line.basis.has_library}
    if by_pack:
        notes.append(
            f"source profiles of {plural(len(by_pack), 'candidate')} come from your source images "
            "(vlmsel-auto library sources)"
        )
    if looked.passed_over:
        notes.append(
            f"{len(looked.found)} of {candidates} candidates were looked at; the others are placed by what is known "
            f"of them without: {_some(list(looked.passed_over))}"
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _from_searches(library: Library) -> list[str]:
    """Source tasks that came from finished searches."""
    searched = [number for number, build in enumerate(library.builds) if build.source == SEARCH]
    return [name for s, name in enumerate(library.task_names) if np.isin(library.build[:, s], searched).any()]


def _profiled_on_pack(library: Library) -> set[str]:
    """Candidates with profiles on source images that the user keeps."""
    packed = [number for number, build in enumerate(library.builds) if build.source == PACK]
    return {name for m, name in enumerate(library.candidate_ids) if np.isin(library.build[m], packed).any()}
