"""Task and candidates to a ranking: screen candidates, take conductance where it is compared, fuse with the library.

One candidate that fails (weights missing, out of memory) is named with its reason; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice, RankingReady, Sink, StageFinished, StageStarted, discard
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.measuring.search_cells import SEARCH
from vlmsel_auto.measuring.source_cells import PACK
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.profiles import with_profiles
from vlmsel_auto.pipeline.request import AUTO, SHOTS, TaskRequest
from vlmsel_auto.pipeline.result import RankResult
from vlmsel_auto.pipeline.screen import ScreeningResult, screen
from vlmsel_auto.pipeline.session import Session, opened
from vlmsel_auto.pipeline.source_profiles import open_source_profiles
from vlmsel_auto.pipeline.templates import choose_templates
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.sources import Truth, source_truth
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, Ranking, Task
from vlmsel_auto.reporting.formatting import plural
from vlmsel_auto.tasks.copies import left_out_notes
from vlmsel_auto.tasks.datasets import TaskData
from vlmsel_auto.tasks.group_names import Groups, as_groups
from vlmsel_auto.tasks.unlabelled_pool import spoken_in

NEEDS_LABELS: Final = "a visual tower without texts knows no class names and needs labels"
_NAMED: Final = 5  # own source tasks, or candidates, that a note names


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """A ranking, and what it was made from."""

    ranking: Ranking
    measurements: Sequence[Measurement]
    task: Task  # in the templates that were chosen, if any
    usable: Sequence[Candidate]
    interrupted: bool = False  # someone asked to end while candidates were screened


def rank(
    task_dir: TaskData,
    *,
    candidates: str | Sequence[str] | Path = AUTO,
    limits: Limits = NO_LIMITS,
    offline: bool = False,
    shots: int = SHOTS,
    classes: Sequence[str] | None = None,
    groups: Groups | None = None,
    unlabelled: bool = False,
    images: int | None = None,
    truth: Truth | None = None,
    seed: int = 0,
    library: Library | str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str = "auto",
    sink: Sink = discard,
) -> RankResult:
    """Predict how candidates will rank on a folder of images once tuned, or zero-shot.

    Nothing is trained.

    Args:
        task_dir: the task folder, see `task.load_task` for its layouts; or a data set in memory, see
            `datasets.write_dataset`.
        candidates: "auto": what suits this machine, see docs/guide/models.md; "mini-zoo", a preset ("tiny", "laptop",
            "server", "all"), ids, "ARCH/TAG" of open_clip, "local-dir:FOLDER", or a list of these.
        limits: what a candidate may take; those that take more are named in ``failures``.
        offline: no hub is asked; what is not on this disk cannot be used.
        shots: labelled training images a class that the ranking may look at.
        classes: names of all classes, which images without labels need; None: what task.toml, or else the labels, say.
        groups: images that belong together, as frames of one video do: no split or fold divides them. Of a folder
            "parent" (those in folders of one name), a regular expression whose one (...) finds the group in the file
            name, or a mapping of paths in the folder to groups; of data in memory one an image. None, NaN and "" are no
            group. None at all: the column group of labels.csv, or group in task.toml.
        unlabelled: names of folders are no classes, and labels are not used.
        images: most images that are screened where there are no labels; None: as many as 60 seconds and half a
            gigabyte allow, at least 100, see `unlabelled_pool.AsManyAsFit`.
        truth: what is predicted: "tuned" accuracy, which images without labels predict, too, for the day when they have
            some, or that of the "zero_shot" classifier; None: tuned where there are labels, else zero-shot.
        seed: of split, few-shot set and sample.
        library: source tasks, or the file of a library; None: the shipped library merged with the user's own.
        cache_dir: derived data; None: ``$VLMSEL_CACHE`` or the platform's user cache folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        sink: takes events.

    Returns:
        The ranking, best first; candidates that failed stand in its ``failures``.

    Raises:
        InputError: the folder, a candidate name or the library cannot be used, or no candidate can.
    """
    request = TaskRequest(
        data=task_dir, candidates=candidates, limits=limits, offline=offline, shots=shots, classes=classes,
        groups=as_groups(groups), unlabelled=unlabelled, images=images, seed=seed, library=library,
        cache_dir=cache_dir, device=device,
    )  # fmt: skip
    with opened(request, sink=sink) as session:
        ranked = rank_task(session, profile_sources=library is None, truth=truth)
        task = session.task
    ranking = ranked.ranking
    return RankResult.of(replace(ranking, notes=(*task.notes, *left_out_notes(task.bad_files), *ranking.notes)))


def rank_task(
    session: Session,
    *,
    earlier: Ranking | None = None,
    profile_sources: bool = False,
    catches_interrupt: bool = False,
    truth: Truth | None = None,
) -> Ranked:
    """Screen the candidates of a session and rank them on its task.

    Candidates that fail stand in ``Ranking.failures`` beside those of the session, and not in its order; those that
    were not screened stand in its order by what is known without.

    Args:
        session: the task and its candidates.
        earlier: a ranking of an earlier run: it is followed as it is, and nothing is measured.
        profile_sources: screenings make source profiles for the user's library, where there is a pack of source images.
        catches_interrupt: as for `screen.screen`.
        truth: as for `rank`.

    Raises:
        CandidateError: every candidate failed.
    """
    if truth == "zero_shot" or not session.task.is_labelled:
        session = _named(session)
    task, candidates, sink, store = session.task, session.candidates, session.sink, session.store
    spoken = task if earlier is None or not earlier.templates else spoken_in(task, earlier.templates)
    kept = {one.id: seen for one in candidates if (seen := find_measurement(one, spoken, store=store)) is not None}
    if earlier is not None:
        sink(RankingReady(ranking=earlier))
        usable = [one for one in candidates if one.id not in earlier.failures]
        return Ranked(ranking=earlier, measurements=tuple(kept.values()), task=spoken, usable=usable)
    profiles = open_source_profiles(session.library, sink=sink) if profile_sources else None
    screening = screen(session, kept=kept, profiles=profiles, catches_interrupt=catches_interrupt)
    chosen = choose_templates(session, screening)
    session, screening = replace(session, task=chosen.task), chosen.screening
    found = screening.found if screening.interrupted else with_profiles(session, screening)
    ranking = _fused(session, screening, found, truth=truth or ("tuned" if task.is_labelled else "zero_shot"))
    notes = [*([chosen.note] if chosen.note else []), *ranking.notes, *([] if profiles is None else profiles.notes())]
    ranking = replace(ranking, notes=tuple(notes), templates=chosen.chosen)
    sink(RankingReady(ranking=ranking))
    return Ranked(
        ranking=ranking,
        measurements=tuple(found.values()),
        task=chosen.task,
        usable=[one for one in candidates if one.id not in ranking.failures],
        interrupted=screening.interrupted,
    )


def _named(session: Session) -> Session:
    """The session without candidates that know no class names: without labels there is nothing else to go by.

    Raises:
        CandidateError: nobody is left.
    """
    silent = {one.id: NEEDS_LABELS for one in session.candidates if not one.has_text}
    if not silent:
        return session
    if len(silent) == len(session.candidates):
        raise CandidateError(f"{NEEDS_LABELS}: label images, or name other candidates too, but got {_some([*silent])}")
    session.sink(Notice(text=f"left out: {_some([*silent])}: {NEEDS_LABELS}", level="warning"))
    kept = tuple(one for one in session.candidates if one.id not in silent)
    return replace(session, candidates=kept, failures={**session.failures, **silent})


def _fused(session: Session, screening: ScreeningResult, found: Mapping[str, Measurement], *, truth: Truth) -> Ranking:
    """The ranking by what was ``found``, with notes on it.

    Raises:
        CandidateError: every candidate failed.
    """
    task, candidates = session.task, session.candidates
    failures = {**session.failures, **screening.failures}
    usable = [one for one in candidates if one.id not in failures]
    if not usable:
        reasons = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise CandidateError(f"no candidate can be used: mend one or name others, but got {reasons}")
    began = time.monotonic()
    session.sink(StageStarted(stage="ranking", text="source tasks and evidence"))
    if task.is_labelled:
        import sklearn.mixture  # noqa: F401 - the limit reaches only libraries that are loaded
    with threadpool_limits(1):  # many small matrices: more threads wait for each other, and for other processes
        ranking = rank_candidates(
            task=task.name,
            targets=[found.get(one.id, Measurement(candidate=one.id)) for one in usable],
            labels=task.known_labels,
            library=session.sources,
            truth=truth,
            forecast=screening.forecast.of([place for place, one in enumerate(candidates) if one.id not in failures]),
            correlation=error_correlation(usable),
            seed=session.seed,
        )
    more = notes_of(ranking, screening, session.sources, truth=truth, candidates=len(candidates))
    session.sink(StageFinished(stage="ranking", seconds=time.monotonic() - began))
    notes = (*ranking.notes, *more)
    return replace(ranking, failures=failures, notes=notes, not_looked=screening.passed_over)


def notes_of(
    ranking: Ranking, screening: ScreeningResult, library: Library, *, truth: Truth, candidates: int
) -> list[str]:
    """Sentences for the report, of a ranking by screenings at some of so many candidates.

    Args:
        ranking: of the candidates.
        screening: who was screened.
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
    if screening.passed_over:
        notes.append(
            f"{len(screening.found)} of {candidates} candidates were screened; the others are placed by what is known "
            f"of them without: {_some(list(screening.passed_over))}"
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
