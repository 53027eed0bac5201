"""Task and candidates to a ranking: measure every candidate on the target, then fuse with the library.

One candidate that fails (weights missing, out of memory, no conductance) is named with its reason; the others go on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, RankingReady, Sink, StageFinished, StageProgress, StageStarted
from vlmsel_auto.library import published
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.measure import embed_target, find_measurement, measure_target
from vlmsel_auto.measuring.search import SEARCH
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import Unusable
from vlmsel_auto.process import is_out_of_memory
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, Ranking, Task
from vlmsel_auto.reporting.formatting import plural

_PROFILE_SHARE: Final = 0.25  # of the time for looking, at most, for conductance: labels already say most
_PROFILE_TIMES: Final = 4.0  # what conductance takes at least, in times of embedding
_NAMED: Final = 5  # own source tasks that a note names


@contextmanager
def _older_objects_left_alone() -> Iterator[None]:
    """Collections of garbage within skip the objects that exist now, which are many: all that was imported."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_older_objects_left_alone()
def _measure_all(
    candidates: Sequence[Candidate],
    task: Task,
    *,
    kept: Mapping[str, Measurement | None],
    device: str,
    store: Store,
    sink: Sink,
    deadline: float | None,
) -> tuple[dict[str, Measurement], dict[str, str], list[str]]:
    """Measure the candidates one after the other, but for what was ``kept`` of earlier runs.

    With a deadline, after which no further candidate is loaded, every candidate is embedded first; conductance comes
    after, for all or none of them, and only when it takes no more than a quarter of the time.

    Returns measurements by candidate, reasons of failures by candidate, and ids that the deadline left unmeasured.
    """
    began = time.monotonic()
    text = f"{'conductance' if deadline is None else 'embeddings'} of every candidate on the target"
    sink(StageStarted(stage="profiles", total=len(candidates), text=text))
    found: dict[str, Measurement] = {}
    failures: dict[str, str] = {}
    late: list[str] = []
    measure = measure_target if deadline is None else embed_target
    for done, candidate in enumerate(candidates, start=1):
        known = kept[candidate.id]
        if known is not None and (known.blocks or deadline is not None):
            found[candidate.id] = known
        elif deadline is not None and time.monotonic() > deadline:
            late.append(candidate.id)
        else:
            outcome = _attempt(measure, candidate, task, device=device, store=store, sink=sink)
            if isinstance(outcome, Measurement):
                found[candidate.id] = outcome
            else:
                failures[candidate.id] = outcome
                sink(Notice(text=f"{candidate.id} cannot be used: {outcome}", level="warning"))
        sink(StageProgress(stage="profiles", done=done, text=candidate.id))
    sink(StageFinished(stage="profiles", seconds=time.monotonic() - began))
    embedded = [one for one in candidates if one.id in found and not found[one.id].blocks]
    allowed = 0.0 if deadline is None else _PROFILE_SHARE * (deadline - began)
    if embedded and not late and _PROFILE_TIMES * (time.monotonic() - began) < allowed:
        found |= _profiled(embedded, task, device=device, store=store, sink=sink, allowed=allowed)
    return found, failures, late


def _profiled(
    candidates: Sequence[Candidate], task: Task, *, device: str, store: Store, sink: Sink, allowed: float
) -> dict[str, Measurement]:
    """Conductance of all candidates, or of none when it would take longer than ``allowed`` seconds: it is compared."""
    began = time.monotonic()
    found: dict[str, Measurement] = {}
    sink(StageStarted(stage="profiles", total=len(candidates), text="conductance of every candidate on the target"))
    for done, candidate in enumerate(candidates, start=1):
        outcome = _attempt(measure_target, candidate, task, device=device, store=store, sink=sink)
        if isinstance(outcome, Measurement):  # else there are still the embeddings
            found[candidate.id] = outcome
        spent = time.monotonic() - began
        sink(StageProgress(stage="profiles", done=done, text=candidate.id))
        if spent * len(candidates) / done > allowed:
            found = {}
            break
    sink(StageFinished(stage="profiles", seconds=time.monotonic() - began))
    return found


def _attempt(
    measure: Callable[..., Measurement], candidate: Candidate, task: Task, *, device: str, store: Store, sink: Sink
) -> Measurement | str:
    """The measurement, or why there is none."""
    try:
        return measure(zoo.load(candidate, device=device, sink=sink), task, store=store)
    except VlmselError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # torch: out of memory, operators a device lacks
        what = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return f"{what}: {' '.join(str(error).split())[:300]}"
    finally:
        gc.collect()


def rank_task(
    task: Task,
    candidates: Sequence[Candidate],
    *,
    library: Library,
    device: str,
    store: Store,
    sink: Sink,
    unusable: Sequence[Unusable] = (),
    seed: int = 0,
    deadline: float | None = None,
    earlier: Ranking | None = None,
) -> tuple[Ranking, list[Measurement]]:
    """Measure and rank ``candidates`` on ``task``: the ranking, and the measurements that it was made from.

    Candidates that fail, and those ``unusable`` from the start, stand in ``Ranking.failures`` and not in its order;
    those that the deadline left unmeasured are ranked by the library alone. With a deadline the candidates that the
    library likes are measured first. A ranking of an ``earlier`` run is followed as it is, and nothing is measured.
    """
    kept = {one.id: find_measurement(one, task, store=store) for one in candidates}
    if earlier is not None:
        sink(RankingReady(ranking=earlier))
        return earlier, [one for one in kept.values() if one is not None]
    for one in unusable:
        sink(Notice(text=f"{one.id} cannot be used: {one.reason}", level="warning"))
    # a prediction must not have seen its answer
    sources = library.select_tasks([one.name for one in library.tasks if one.digest != task.digest])
    bare = _bare_targets(candidates)
    order = list(candidates)
    if deadline is not None:
        liked = rank_candidates(task=task.name, targets=list(bare.values()), library=sources, seed=seed).order
        order.sort(key=lambda one: liked.index(one.id))
    found, failures, late = _measure_all(
        order, task, kept=kept, device=device, store=store, sink=sink, deadline=deadline
    )
    failures = {one.id: one.reason for one in unusable} | failures
    began = time.monotonic()
    sink(StageStarted(stage="ranking", text="source tasks and evidence"))
    targets = [
        replace(found.get(name, known), published=known.published)
        for name, known in bare.items()
        if name not in failures
    ]
    ranking = Ranking(task=task.name, ranked=(), failures=failures)
    if targets:
        with threadpool_limits(1):  # many small matrices: more threads wait for each other, and for other processes
            ranking = rank_candidates(
                task=task.name,
                targets=targets,
                labels=task.labels[task.support],
                library=sources,
                correlation=error_correlation([one for one in candidates if one.id not in failures]),
                failures=failures,
                seed=seed,
            )
    notes = list(ranking.notes)
    own = _from_searches(sources)
    if own and any(line.basis.has_library for line in ranking.ranked):
        names = ", ".join(own[:_NAMED]) + (", ..." if len(own) > _NAMED else "")
        notes.append(f"{plural(len(own), 'source task')} of your own earlier searches: {names}")
    if late:
        notes.append(f"no time to look at {len(late)} candidates; the library alone ranks {', '.join(late)}")
    ranking = replace(ranking, notes=tuple(notes))
    sink(StageFinished(stage="ranking", seconds=time.monotonic() - began))
    sink(RankingReady(ranking=ranking))
    return ranking, list(found.values())


def _from_searches(library: Library) -> list[str]:
    """Source tasks that came from finished searches."""
    searched = [number for number, build in enumerate(library.builds) if build.source == SEARCH]
    return [name for s, name in enumerate(library.task_names) if np.isin(library.build[:, s], searched).any()]


def _bare_targets(candidates: Sequence[Candidate]) -> dict[str, Measurement]:
    """What is known of each candidate before it is loaded: published zero-shot accuracies, averaged."""
    ids = [one.id for one in candidates]
    rows = [row[np.isfinite(row)] for row in published.zero_shot(ids)]
    return {
        name: Measurement(candidate=name, published=float(row.mean()) if len(row) else None)
        for name, row in zip(ids, rows, strict=True)
    }
