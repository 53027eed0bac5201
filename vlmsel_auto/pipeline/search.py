"""A search: what it is asked, as a record that checks itself and gives its command line, and the function that asks.

An option of `search` is a field of `SearchRequest` and a keyword of `search`; the command line is made of the field.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.pipeline.options import Option, option, options, words
from vlmsel_auto.pipeline.request import AUTO, SHOTS, TaskRequest
from vlmsel_auto.planning.objective import ACCURACY, Objective, read_objective
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.tasks.group_names import Groups, as_groups

if TYPE_CHECKING:  # these load NumPy
    from vlmsel_auto.events import Sink
    from vlmsel_auto.library.records import Library
    from vlmsel_auto.models.limits import Limits
    from vlmsel_auto.pipeline.result import SearchResult
    from vlmsel_auto.records import Budget
    from vlmsel_auto.reporting.trackers import Loggers
    from vlmsel_auto.tasks.datasets import TaskData

PRICE: Final = 100 * POLICY.price  # points a minute
_ALL: Final = "all"
_TRACKERS: Final = ("tensorboard", "csv", "mlflow", "wandb")


def _no_budget() -> Budget:
    from vlmsel_auto.records import Budget

    return Budget()


def _read_budget(time_budget: str | None, max_trials: int | None) -> Budget:
    from vlmsel_auto.records import Budget
    from vlmsel_auto.units import parse_duration

    return Budget(seconds=None if time_budget is None else parse_duration(time_budget), trials=max_trials)


def _budget_as_typed(budget: Budget) -> Mapping[str, object]:
    seconds = None if budget.seconds is None else f"{budget.seconds:g}"
    named = {"time_budget": seconds, "max_trials": budget.trials}
    return {name: value for name, value in named.items() if value is not None}


def _names(typed: str) -> list[str]:
    return [name.strip() for name in typed.split(",") if name.strip()]


def _named_trackers(loggers: Loggers) -> list[str]:
    """Trackers that were given by name; an InputError where there is none of that name."""
    several = [loggers] if isinstance(loggers, str) or not isinstance(loggers, Sequence) else loggers
    names = [one for one in several if isinstance(one, str)]
    for name in names:
        if name not in _TRACKERS:
            raise InputError(f"a logger must be one of {', '.join(_TRACKERS)}, but got {name!r}")
    return names


def _storage_as_typed(url: str) -> str:
    from vlmsel_auto.study.storage import without_password  # loads SQLAlchemy

    return without_password(url)


def _methods(method: str | Sequence[str]) -> tuple[str, ...]:
    """Names of methods; an InputError where there is none of a name."""
    from vlmsel_auto.tuning.methods import USUAL, methods_of

    named = USUAL if method == _ALL else methods_of([method] if isinstance(method, str) else method)
    return tuple(each.name for each in named)


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest(TaskRequest):
    """A search; `search` says more of each field.

    Raises:
        InputError: a number is out of range, a method or logger is unknown, or there are workers of two kinds.
    """

    top_k: int = option(8, "Candidates that the plan tunes first.", least=1)
    ensemble: int = option(
        8, "Most heads, and most tuned towers, of the ensemble beside the best model.", metavar="K", least=0, most=10
    )
    budget: Budget = options(
        _no_budget, read=_read_budget, show=_budget_as_typed,
        time_budget=Option(metavar="TIME", help="Stop after this long: seconds, or 90s, 10m, 1h30m."),
        max_trials=Option(
            kind=int, least=1, metavar="N", help="Stop after N trials, those of earlier runs included."
        ),
    )  # fmt: skip
    price: float = option(
        PRICE, "Stop when no trial promises so many points a minute, and .3 more.", metavar="POINTS", least=0,
        unit="points a minute", show="{:g}".format,
    )  # fmt: skip
    objective: Objective = option(
        ACCURACY,
        "Points of accuracy that half the latency, params or memory of a model is worth: latency=1,params=.5; default: "
        "accuracy alone.",
        kind=str, metavar="WEIGHTS", typed="accuracy", read=read_objective,
    )  # fmt: skip
    method: str | Sequence[str] = option(
        _ALL, "Comma list of zero_shot, probe (linear, on cached features), finetune (what suits a tower's family and "
        "size), lora, last_blocks and projection; all: the first three.", metavar="NAMES",
        read=lambda typed: typed if typed == _ALL else [name.strip() for name in typed.split(",")],
        show=lambda method: method if isinstance(method, str) else ",".join(method),
    )  # fmt: skip
    test_split: bool = option(
        True,
        "Draw no test split where DIR gives none: learn from every label.",
        flags=("--no-test-split",),
    )
    test_images: int | None = option(
        None,
        "Most images of DIR's test split that trials are measured on; default: as many as there are others, at least "
        "1,000.",
        kind=int, metavar="N", least=1,
    )  # fmt: skip
    workdir: Path | None = option(
        None,
        "Folder of study, report and exported model; the same command with it resumes. Default: vlmsel-NAME in the "
        "current folder, after DIR's name.",
        kind=Path,
    )  # fmt: skip
    cache_dir: str | Path | None = option(
        None, "Folder of measurements of candidates; default: inside the work directory, beside what rank kept.",
        kind=Path,
    )  # fmt: skip
    storage: str | None = option(
        None,
        "Copy finished trials to an Optuna storage, for dashboards: postgresql://USER@HOST/DATABASE (password in "
        "~/.pgpass), sqlite:///FILE or journal:///FILE.",
        kind=str, metavar="URL", show=_storage_as_typed,
    )  # fmt: skip
    workers: int | None = option(
        None, "Run N trials at once, in processes of this machine; GPUs in turn.", kind=int, metavar="N", least=1
    )
    ray: str | None = option(
        None, "Run trials on Ray: local starts it on this machine; auto or ray://HEAD:10001 joins.", kind=str,
        metavar="ADDRESS",
    )  # fmt: skip
    learn: bool = option(True, "Do not add the outcome to your library.", flags=("--no-learn",))
    thumbnails: bool = option(
        True, "Put no thumbnails into the report: the images are private.", flags=("--no-images",)
    )
    logger: Loggers = option(
        (), f"Comma list of experiment trackers: {', '.join(_TRACKERS)}.", kind=str, typed="",
        flags=("--log",), metavar="NAMES", read=_names, show=lambda given: ",".join(_named_trackers(given)) or None,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check what needs no file."""
        from vlmsel_auto.pipeline.workers import check_workers

        super().__post_init__()
        check_workers(workers=self.workers, ray=self.ray)
        _named_trackers(self.logger)
        _methods(self.method)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods of tuning."""
        return _methods(self.method)

    @cached_property
    def folder(self) -> Path:
        """The work directory."""
        from vlmsel_auto.pipeline.workdir import default_workdir

        return Path(self.workdir) if self.workdir is not None else default_workdir(self.data)

    def command(self, images: str | Path) -> str:
        """The command line on a task folder; defaults are left out, and so is the password of a storage."""
        typed = words(replace(self, seed=0, workdir=None))
        return shlex.join(
            ["vlmsel-auto", "search", str(images), *typed, "--seed", str(self.seed), "--workdir", str(self.folder)]
        )


def search(
    task_dir: TaskData,
    *,
    candidates: str | Sequence[str] | Path = AUTO,
    limits: Limits | None = None,
    offline: bool = False,
    top_k: int = 8,
    ensemble: int = 8,
    budget: Budget | float | None = None,
    price: float = PRICE,
    objective: Objective | str = ACCURACY,
    method: str | Sequence[str] = _ALL,
    shots: int = SHOTS,
    classes: Sequence[str] | None = None,
    groups: Groups | None = None,
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
    sink: Sink | None = None,
) -> SearchResult:
    """Find and fine-tune the best candidate for a folder of images.

    The same call on the same work directory resumes: what is finished is kept, also after a kill. Without labels
    nothing is tuned: the zero-shot classifier that ranks first is the best model (docs/guide/without-labels.md).

    Args:
        task_dir: the task folder, see `task.load_task` for its layouts; or a data set in memory, see
            `datasets.write_dataset`, which is written to ``workdir/task``.
        candidates: as for `rank`.
        limits: as for `rank`; the best model and the ensemble keep to them; None: none.
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
        method: names of methods of tuning, such as "probe" (linear probe on cached features) or "finetune" (what
            suits the visual tower's family and size), "lora", "last_blocks" or "projection"; "all": the first two and
            "zero_shot".
        shots: labelled training images a class that the ranking may look at; trials learn from all of them.
        classes: as for `rank`.
        groups: as for `rank`.
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
        sink: takes events; None: nobody does.

    Returns:
        The best model, all trials, the ranking and how well it agreed with what came out.

    Raises:
        InputError: task, candidates, budget, library or work directory cannot be used, ensemble, price or seed is
            out of range, or the objective cannot be read. Nothing was written, but where no candidate can be used, or
            another search owns the work directory, decoded images.
        MissingDependency: the package of a logger is not installed.
    """
    from vlmsel_auto.events import discard
    from vlmsel_auto.models.limits import NO_LIMITS
    from vlmsel_auto.process import collections_paused
    from vlmsel_auto.records import Budget

    with collections_paused():
        from vlmsel_auto.pipeline.run import run_search  # loads torch

    request = SearchRequest(
        data=task_dir, candidates=candidates, limits=limits or NO_LIMITS, offline=offline, top_k=top_k,
        ensemble=ensemble, budget=budget if isinstance(budget, Budget) else Budget(seconds=budget), price=price,
        objective=read_objective(objective) if isinstance(objective, str) else objective, method=method, shots=shots,
        classes=classes, groups=as_groups(groups), unlabelled=unlabelled, images=images, test_split=test_split,
        test_images=test_images, seed=seed, workdir=None if workdir is None else Path(workdir), library=library,
        cache_dir=cache_dir, device=device, storage=storage, workers=workers, ray=ray, learn=learn, logger=logger,
        thumbnails=thumbnails,
    )  # fmt: skip
    return run_search(request, began=time.monotonic() if since is None else since, sink=sink or discard)
