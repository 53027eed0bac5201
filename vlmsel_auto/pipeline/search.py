"""The whole loop: from a folder of images to a ranking, trials, an exported model, a report and a new source task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmsel_auto.cache import Json, Store, default_cache_dir, digest
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.library.places import open_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.models.hub import hub_offline
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.pipeline.affordable import affordable_sample
from vlmsel_auto.pipeline.choose import AUTO, Chosen, choose
from vlmsel_auto.pipeline.rank import SHOTS, Ranked, rank_task, views_of
from vlmsel_auto.pipeline.request import PRICE, Aim, Compute, Images, Places, SearchRequest, Wanted
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.run import Run
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.pipeline.time_shares import sample_seconds, seconds_for_screening
from vlmsel_auto.pipeline.with_labels import finish_with_labels
from vlmsel_auto.pipeline.without_labels import finish_without_labels
from vlmsel_auto.pipeline.workdir import (
    EarlierChoice,
    begin_in,
    check_usable,
    default_workdir,
    read_choice,
    read_ranking,
    save_ranking,
    task_in,
)
from vlmsel_auto.pipeline.workers import open_meanwhile
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.objective import ACCURACY, Objective, read_objective
from vlmsel_auto.planning.plan import ACTIVE
from vlmsel_auto.process import locked, older_objects_left_alone, writing
from vlmsel_auto.records import Budget, Task
from vlmsel_auto.reporting.formatting import duration
from vlmsel_auto.reporting.trackers import tracked
from vlmsel_auto.tasks.datasets import TaskData
from vlmsel_auto.tasks.file_names import SEARCH_LOCK
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.methods import METHODS, method_of, methods_of

if TYPE_CHECKING:
    from vlmsel_auto.reporting.loggers import Loggers  # imports Lightning


@older_objects_left_alone()
def search(
    task_dir: TaskData,
    *,
    candidates: str | Sequence[str] | Path = AUTO,
    limits: Limits = NO_LIMITS,
    offline: bool = False,
    top_k: int = ACTIVE,
    ensemble: int = 8,
    budget: Budget | float | None = None,
    price: float = PRICE,
    objective: Objective | str = ACCURACY,
    method: str | Sequence[str] = "all",
    shots: int = SHOTS,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
    images: int | None = None,
    test_split: bool = True,
    test_images: int | None = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    library: Library | str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str = "auto",
    storage: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    learn: bool = True,
    logger: Loggers = (),
    thumbnails: bool = True,
    since: float | None = None,
    sink: Sink = discard,
) -> SearchResult:
    """Find and fine-tune the best candidate for a folder of images.

    The same call on the same work directory resumes: what is finished is kept, also after a kill. Without labels
    nothing is tuned: the zero-shot classifier that ranks first is the best model (docs/guide/without-labels.md).

    Args:
        task_dir: the task folder, see `task.load_task` for its layouts; or a data set in memory, see
            `datasets.write_dataset`, which is written to ``workdir/task``.
        candidates: as for `rank`.
        limits: as for `rank`; the best model and the ensemble keep to them.
        offline: as for `rank`.
        top_k: candidates that the plan tunes first; the others are postponed, not lost.
        ensemble: the ensemble beside the best model has at most so many heads and so many tuned towers, 0 to 10; 0
            or 1: none is exported.
        budget: wall time of this call, trials of all calls on this work directory, or both; a number is seconds of
            wall time; None: until no trial promises enough.
        price: points of the metric (hundredths) that a trial must promise for each minute that it takes, on top of .3.
        objective: what half the latency, parameters or memory of a model is worth, in points of the metric, as an
            `Objective` or a text such as "latency=1,params=.5"; screenings, trials, best model and ensemble follow it.
            The ranking and the trials' figures stay those of the metric.
        method: names of methods of tuning, such as "probe" (linear probe on cached features) or "finetune" (the whole
            visual tower); "all": every one that there is.
        shots: labelled training images a class that the ranking may look at; trials learn from all of them.
        classes: as for `rank`.
        unlabelled: as for `rank`.
        images: as for `rank`; None: of a budget of less than five minutes a fifth of it.
        test_split: draw one where the folder gives none; without, every label is learned from, and what comes out is
            known by cross-validation alone.
        test_images: most images of a test split that the folder gives; None: as many as are used outside it, at least
            1,000. Every trial is measured on them, and none is chosen by them.
        seed: of split, few-shot set or sample, plan and trials.
        workdir: everything that the search makes; None: ``vlmsel-NAME`` in the current folder.
        library: as for `rank`.
        cache_dir: measurements of candidates on tasks; None: inside the work directory, beside what `rank` and `label`
            kept in the user's cache.
        device: as for `rank`.
        storage: ``postgresql://USER@HOST/DATABASE``, ``sqlite:///FILE`` or ``journal:///FILE`` of Optuna that finished
            trials are copied to, for dashboards.
        workers: processes of this machine that screenings and trials run in, so many at once; None: one after the other
            in this process.
        ray: they run on a Ray cluster: "local" starts one on this machine, "auto" joins the one that runs on it,
            otherwise its address; see docs/guide/workers.md.
        learn: add the outcome to the user's library as a source task, and source profiles of models that are loaded.
        logger: experiment trackers: names ("tensorboard", "csv", "mlflow", "wandb"), or Lightning's loggers of these
            kinds; they get one run for the search and one below it for each trial.
        thumbnails: whether the report shows mistakes and images that are hard to tell.
        since: `time.monotonic` from which wall time counts; None: this call.
        sink: takes events.

    Returns:
        The best model, all trials, the ranking and how well it agreed with what came out.

    Raises:
        InputError: task, candidates, budget, library or work directory cannot be used, ensemble, price or seed is
            out of range, or the objective cannot be read. Nothing was written, but where no candidate can be used, or
            another search owns the work directory, decoded images.
        MissingDependency: the package of a logger is not installed.
    """
    folder = Path(workdir) if workdir is not None else default_workdir(task_dir)
    named = METHODS if method == "all" else methods_of([method] if isinstance(method, str) else method)
    request = SearchRequest(
        images=Images(
            source=task_dir, shots=shots, classes=classes, unlabelled=unlabelled, most=images, test_split=test_split,
            most_test=test_images,
        ),
        wanted=Wanted(names=candidates, limits=limits, offline=offline),
        aim=Aim(
            objective=read_objective(objective) if isinstance(objective, str) else objective, price=price,
            methods=tuple(each.name for each in named), ensemble=ensemble, top_k=top_k,
        ),
        compute=Compute(device=str(pick_device(device)), workers=workers, ray=ray),
        places=Places(
            workdir=folder, library=library, cache_dir=None if cache_dir is None else Path(cache_dir), storage=storage
        ),
        budget=budget if isinstance(budget, Budget) else Budget(seconds=budget), seed=seed, learn=learn,
        thumbnails=thumbnails, loggers=logger,
    )  # fmt: skip
    return run_search(request, began=time.monotonic() if since is None else since, sink=sink)


def run_search(request: SearchRequest, *, began: float, sink: Sink) -> SearchResult:
    """The search that is asked for; wall time counts from ``began`` (`time.monotonic`). Raises as `search` does."""
    places, wanted, compute, folder = request.places, request.wanted, request.compute, request.places.workdir
    known = open_library(places.library)
    check_usable(folder)
    images_of = task_in(folder, request.images.source)
    command = request.command(images_of)
    if places.storage is not None:
        from vlmsel_auto.study.storage import open_storage  # loads SQLAlchemy

        open_storage(places.storage)  # refuses one that cannot be used
    earlier = read_choice(folder, sink=sink)
    with hub_offline(wanted.offline):
        listed = choose(
            wanted.names, limits=wanted.limits, offline=wanted.offline, device=compute.device, sink=sink,
            earlier=earlier,
        )  # fmt: skip
    started_after = time.monotonic() - began
    task, engine = open_meanwhile(
        lambda: _read(request, images_of, listed, earlier, sink=sink),
        workers=compute.workers, ray=compute.ray, device=compute.device,
    )  # fmt: skip
    ranked_before = default_cache_dir() / "targets" if places.cache_dir is None else None
    store = Store((places.cache_dir or folder) / "targets", behind=ranked_before)
    with engine, hub_offline(wanted.offline), writing(folder), locked(folder / SEARCH_LOCK):
        settings = _settings(request, task, listed)
        choice = EarlierChoice(
            candidates=tuple(one.id for one in listed.candidates),
            left_out=listed.failures,
            images=None if task.draw is None else task.draw.files,
        )
        begin_in(folder, settings=settings, choice=choice, sink=sink)  # before trackers leave files there
        with tracked(
            request.loggers, folder=folder / "logs", about={"task": task.name, "command": command}, sink=sink
        ) as heard:
            session = Session(
                task=task, candidates=listed.candidates, library=known, device=compute.device, store=store, sink=heard,
                failures=listed.failures, limits=wanted.limits, objective=request.aim.objective,
                machine=listed.machine, downloads=listed.downloads, seed=request.seed, price=request.aim.price / 100,
                deadline=_until(request.budget, began=began, labelled=task.is_labelled), engine=engine,
            )  # fmt: skip
            run = Run(
                request=request, session=session, workdir=folder, command=command, settings=settings, began=began,
                started_after=started_after,
            )  # fmt: skip
            ranked = _rank(run)
            return (finish_with_labels if task.is_labelled else finish_without_labels)(run, ranked)


def _read(
    request: SearchRequest, images_of: Path, listed: Chosen, earlier: EarlierChoice | None, *, sink: Sink
) -> Task:
    images, compute, cache_dir = request.images, request.compute, request.places.cache_dir
    sample = affordable_sample(
        listed.candidates, machine=listed.machine, device=compute.device,
        seconds=sample_seconds(request.budget.seconds), earlier=None if earlier is None else earlier.images,
    )  # fmt: skip
    options = TaskOptions(
        shots=images.shots, seed=request.seed, classes=images.classes, unlabelled=images.unlabelled,
        images=sample if images.most is None else images.most, draw_test=images.test_split, needs_val=True,
        max_test_images=images.most_test,
    )  # fmt: skip
    return load_task(
        images_of, options, workdir=request.places.workdir, views=views_of(listed.candidates),
        exclude=() if cache_dir is None else (cache_dir,), sink=sink,
    )  # fmt: skip


def _settings(request: SearchRequest, task: Task, listed: Chosen) -> dict[str, Json]:
    """What a work directory is bound to: with other settings its trials would be of another search."""
    return {
        "task": task.digest,
        "candidates": digest([[one.id, fingerprint(one)] for one in listed.candidates]),
        "limits": str(request.wanted.limits),
        "methods": ",".join(request.aim.methods),
        "seed": request.seed,
        "shots": request.images.shots,
    }


def _until(budget: Budget, *, began: float, labelled: bool) -> float | None:
    """When looking must have ended."""
    return None if budget.seconds is None else began + seconds_for_screening(budget.seconds, labelled=labelled)


def _rank(run: Run) -> Ranked:
    """The ranking of this run, or of an earlier one, kept where trials will be bound to it."""
    request, session = run.request, run.session
    before_screening, earlier = run.seconds, read_ranking(run.workdir, sink=session.sink)
    ranked = rank_task(
        session,
        earlier=earlier,
        profile_sources=request.learn and request.places.library is None,
        catches_interrupt=any(method_of(name).trains is not Trains.TOWER for name in request.aim.methods),
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
