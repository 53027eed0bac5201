"""A search that runs: its candidates, its images and its work directory, then ranking, trials and report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from vlmsel_auto.cache import Json, Store, default_cache_dir, digest
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.library.places import open_library
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.models.hub import hub_offline
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.pipeline.affordable import affordable_sample
from vlmsel_auto.pipeline.choose import Chosen, choose
from vlmsel_auto.pipeline.rank import Ranked, rank_task
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.search import SearchRequest
from vlmsel_auto.pipeline.session import Run, Session, views_of
from vlmsel_auto.pipeline.time_shares import sample_seconds, seconds_for_screening
from vlmsel_auto.pipeline.with_labels import finish_with_labels
from vlmsel_auto.pipeline.without_labels import finish_without_labels
from vlmsel_auto.pipeline.workdir import (
    EarlierChoice,
    begin_in,
    check_usable,
    read_choice,
    read_ranking,
    save_ranking,
    task_in,
)
from vlmsel_auto.pipeline.workers import open_meanwhile
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.process import locked, older_objects_left_alone, writing
from vlmsel_auto.records import Task
from vlmsel_auto.reporting.formatting import duration
from vlmsel_auto.tasks.file_names import SEARCH_LOCK
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.unlabelled_pool import AsManyAsFit
from vlmsel_auto.tuning.methods import method_of


@older_objects_left_alone()
def run_search(request: SearchRequest, *, began: float, sink: Sink) -> SearchResult:
    """The search that is asked for; wall time counts from ``began`` (`time.monotonic`). Raises as `search` does."""
    folder, device, known = request.folder, str(pick_device(request.device)), open_library(request.library)
    seconds = request.budget.seconds
    check_usable(folder)
    images_of = task_in(folder, request.data, groups=request.groups)
    command = request.command(images_of)
    if request.storage is not None:
        from vlmsel_auto.study.storage import open_storage  # loads SQLAlchemy

        open_storage(request.storage)  # refuses one that cannot be used
    earlier = read_choice(folder, sink=sink)
    with hub_offline(request.offline):
        chosen = choose(request, sink=sink, earlier=earlier)
    started_after = time.monotonic() - began
    task, engine = open_meanwhile(
        lambda: _read(request, images_of, chosen, earlier, sink=sink),
        workers=request.workers, ray=request.ray, device=device,
    )  # fmt: skip
    ranked_before = default_cache_dir() / "targets" if request.cache_dir is None else None
    store = Store(Path(request.cache_dir or folder) / "targets", behind=ranked_before)
    with engine, hub_offline(request.offline), writing(folder), locked(folder / SEARCH_LOCK):
        settings = _settings(request, task, chosen)
        choice = EarlierChoice(
            candidates=tuple(one.id for one in chosen.candidates),
            left_out=chosen.failures,
            images=None if task.draw is None else task.draw.files,
        )
        begin_in(folder, settings=settings, choice=choice, sink=sink)  # before trackers leave files there
        about = {"task": task.name, "command": command}
        with _tracked(request, about=about, sink=sink) as heard:
            session = Session(
                **vars(chosen), task=task, library=known, device=device, store=store, sink=heard, limits=request.limits,
                objective=request.objective, seed=request.seed, price=request.price / 100,
                deadline=None if seconds is None else began + seconds_for_screening(seconds, labelled=task.is_labelled),
                engine=engine,
            )  # fmt: skip
            run = Run(
                request=request, session=session, command=command, settings=settings, began=began,
                started_after=started_after,
            )  # fmt: skip
            ranked = _rank(run)
            return (finish_with_labels if task.is_labelled else finish_without_labels)(run, ranked)


def _tracked(request: SearchRequest, *, about: Mapping[str, str], sink: Sink) -> AbstractContextManager[Sink]:
    if not request.logger:
        return nullcontext(sink)
    from vlmsel_auto.reporting.trackers import tracked  # loads Lightning

    return tracked(request.logger, folder=request.folder / "logs", about=about, sink=sink)


def _read(
    request: SearchRequest, images_of: Path, chosen: Chosen, earlier: EarlierChoice | None, *, sink: Sink
) -> Task:
    images: int | AsManyAsFit | None = request.images
    if images is None:
        images = affordable_sample(
            chosen.candidates, machine=chosen.machine, device=request.device,
            seconds=sample_seconds(request.budget.seconds), earlier=None if earlier is None else earlier.images,
        )  # fmt: skip
    options = TaskOptions(
        shots=request.shots, seed=request.seed, classes=request.classes, unlabelled=request.unlabelled, images=images,
        draw_test=request.test_split, needs_val=True, max_test_images=request.test_images,
        groups=request.groups_of_folder,
    )  # fmt: skip
    exclude = () if request.cache_dir is None else (Path(request.cache_dir),)
    return load_task(
        images_of, options, workdir=request.folder, views=views_of(chosen.candidates), exclude=exclude, sink=sink
    )


def _settings(request: SearchRequest, task: Task, chosen: Chosen) -> dict[str, Json]:
    """What a work directory is bound to: with other settings its trials would be of another search."""
    return {
        "task": task.digest,
        "candidates": digest([[one.id, fingerprint(one)] for one in chosen.candidates]),
        "limits": str(request.limits),
        "methods": ",".join(request.methods),
        "seed": request.seed,
        "shots": request.shots,
    }


def _rank(run: Run) -> Ranked:
    """The ranking of this run, or of an earlier one, kept where trials will be bound to it."""
    request, session = run.request, run.session
    before_screening, earlier = run.seconds, read_ranking(run.workdir, sink=session.sink)
    ranked = rank_task(
        session,
        earlier=earlier,
        profile_sources=request.learn and request.library is None,
        catches_interrupt=any(method_of(name).trains is not Trains.TOWER for name in request.methods),
    )
    if request.budget.seconds is not None and earlier is None:
        _warn_of_no_screening(ranked, spent=before_screening, seconds=request.budget.seconds, sink=session.sink)
    if session.task.is_labelled or not ranked.interrupted:  # without any trial, screenings can go on later
        save_ranking(run.workdir, ranked.ranking)
    return ranked


def _warn_of_no_screening(ranked: Ranked, *, spent: float, seconds: float, sink: Sink) -> None:
    """Without a screening the ranking says hardly more than published figures do."""
    if ranked.interrupted or ranked.measurements or not ranked.ranking.not_looked:
        return
    text = f"no candidate was screened: the start took {duration(spent)} of {duration(seconds)}; give more time"
    sink(Notice(text=text, level="warning"))
