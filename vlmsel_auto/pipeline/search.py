"""The whole loop: from a folder of images to a ranking, trials, an exported model, a report and a new source task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlmsel_auto.cache import Json, Store, default_cache_dir, digest
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.library.places import open_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.models.fingerprint import fingerprint
from vlmsel_auto.models.hub import hub_offline
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.affordable import affordable_sample
from vlmsel_auto.pipeline.choose import AUTO, choose
from vlmsel_auto.pipeline.command import PRICE, SHOTS, command_of
from vlmsel_auto.pipeline.finish import Delivery
from vlmsel_auto.pipeline.numbers import check_numbers
from vlmsel_auto.pipeline.rank import Ranked, rank_task, views_of
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.time_shares import looking_seconds, sample_seconds
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
from vlmsel_auto.pipeline.workers import check_workers, open_meanwhile
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.planning.objective import ACCURACY, Objective, read_objective
from vlmsel_auto.planning.plan import ACTIVE
from vlmsel_auto.process import locked, older_objects_left_alone, writing
from vlmsel_auto.records import Budget
from vlmsel_auto.reporting.formatting import duration
from vlmsel_auto.reporting.tracked import names_of, tracked
from vlmsel_auto.study.mirror import mirrored
from vlmsel_auto.tasks.datasets import TaskData
from vlmsel_auto.tasks.names import SEARCH_LOCK
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.methods import METHODS, methods_of

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
    nothing is tuned: the zero-shot classifier that ranks first is the best model (docs/without-labels.md).

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
            `Objective` or a text such as "latency=1,params=.5"; looks, trials, best model and ensemble follow it. The
            ranking and the trials' figures stay those of the metric.
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
        storage: ``postgresql://USER@HOST/DATABASE`` that keeps the study's record too, for dashboards and for a search
            that takes over elsewhere; one search at a time works on it.
        workers: processes of this machine that looks and trials run in, so many at once; None: one after the other in
            this process.
        ray: they run on a Ray cluster: "local" starts one on this machine, "auto" joins the one that runs on it,
            otherwise its address; see docs/many-machines.md.
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
    check_numbers(price=price, ensemble=ensemble, seed=seed)
    aim = read_objective(objective) if isinstance(objective, str) else objective
    check_workers(workers=workers, ray=ray)
    began = time.monotonic() if since is None else since
    spend = budget if isinstance(budget, Budget) else Budget(seconds=budget)
    named = METHODS if method == "all" else methods_of([method] if isinstance(method, str) else method)
    methods = tuple(each.name for each in named)
    known = open_library(library)
    place = str(pick_device(device))
    folder = Path(workdir) if workdir is not None else default_workdir(task_dir)
    check_usable(folder)
    images_of = task_in(folder, task_dir)
    command = command_of(
        images_of, candidates, limits=limits, offline=offline, budget=spend, price=price, objective=aim,
        methods=methods, shots=shots, seed=seed, workdir=folder, classes=classes, unlabelled=unlabelled, images=images,
        trackers=names_of(logger), workers=workers, ray=ray, test_split=test_split,
        test_images=test_images, thumbnails=thumbnails, storage=storage,
    )  # fmt: skip
    earlier = read_choice(folder, sink=sink)
    with hub_offline(offline):
        listed = choose(candidates, limits=limits, offline=offline, device=device, sink=sink, earlier=earlier)
    chosen = listed.candidates
    sample = affordable_sample(
        chosen, machine=listed.machine, device=device, seconds=sample_seconds(spend.seconds),
        earlier=None if earlier is None else earlier.images,
    )  # fmt: skip
    started_after = time.monotonic() - began
    task, engine = open_meanwhile(
        partial(
            load_task, images_of, views=views_of(chosen), shots=shots, seed=seed, workdir=folder, sink=sink,
            exclude=() if cache_dir is None else (Path(cache_dir),),
            needs_val=True, classes=classes, unlabelled=unlabelled, images=sample if images is None else images,
            draw_test=test_split, max_test_images=test_images,
        ),
        workers=workers, ray=ray, device=place,
    )  # fmt: skip
    ranked_before = default_cache_dir() / "targets" if cache_dir is None else None
    store = Store(Path(cache_dir or folder) / "targets", behind=ranked_before)
    with (
        engine,
        hub_offline(offline),
        writing(folder),
        locked(folder / SEARCH_LOCK),
        mirrored(storage, task=task.digest, workdir=folder, sink=sink) as mirror,
    ):
        settings: dict[str, Json] = {
            "task": task.digest,
            "candidates": digest([[one.id, fingerprint(one)] for one in chosen]),
            "limits": str(limits),
            "methods": ",".join(methods),
            "seed": seed,
            "shots": shots,
        }
        choice = EarlierChoice(
            candidates=tuple(one.id for one in chosen),
            left_out=listed.failures,
            images=None if task.draw is None else task.draw.files,
        )
        begin_in(folder, settings=settings, choice=choice, sink=sink)  # before trackers leave files there
        with tracked(logger, folder=folder / "logs", about={"task": task.name, "command": command}, sink=sink) as sink:  # noqa: PLR1704 - the sink of all that follows
            before_looks, earlier_ranking = time.monotonic() - began, read_ranking(folder, sink=sink)
            ranked = rank_task(
                task,
                chosen,
                library=known,
                device=place,
                store=store,
                sink=sink,
                failures=listed.failures,
                limits=limits,
                objective=aim,
                machine=listed.machine,
                downloads=listed.downloads,
                price=price / 100,
                seed=seed,
                deadline=None
                if spend.seconds is None
                else began + looking_seconds(spend.seconds, labelled=task.is_labelled),
                earlier=earlier_ranking,
                profile_sources=learn and library is None,
                catches_interrupt=any(each.trains is not Trains.TOWER for each in named),
                engine=engine,
            )
            ranking = ranked.ranking
            if spend.seconds is not None and earlier_ranking is None:
                _warn_of_no_look(ranked, spent=before_looks, seconds=spend.seconds, sink=sink)
            if task.is_labelled or not ranked.interrupted:  # trials are bound to it; without any, looks can go on later
                save_ranking(folder, ranking)
            usable = [one for one in chosen if one.id not in ranking.failures]
            delivery = Delivery(
                task=ranked.task,
                candidates=usable,
                size=ensemble,
                limits=limits,
                objective=aim,
                store=store,
                workdir=folder,
            )
            if not task.is_labelled:
                return finish_without_labels(
                    delivery,
                    chosen,
                    ranked=ranked,
                    budget=spend,
                    command=command,
                    settings={**settings, "device": place},
                    began=began,
                    started_after=started_after,
                    device=place,
                    sink=sink,
                )
            return finish_with_labels(
                delivery,
                chosen,
                ranked=ranked,
                engine=engine,
                mirror=mirror,
                methods=methods,
                machine=listed.machine,
                budget=spend,
                price=price,
                top_k=top_k,
                learn=learn,
                thumbnails=thumbnails,
                command=command,
                settings=settings,
                seed=seed,
                began=began,
                started_after=started_after,
                device=place,
                sink=sink,
            )


def _warn_of_no_look(ranked: Ranked, *, spent: float, seconds: float, sink: Sink) -> None:
    """A ranking that no look stands behind is little more than the order of published figures."""
    if ranked.interrupted or ranked.measurements or not ranked.ranking.not_looked:
        return
    text = f"no candidate was looked at: the start took {duration(spent)} of {duration(seconds)}; give more time"
    sink(Notice(text=text, level="warning"))
