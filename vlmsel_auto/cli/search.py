"""``vlmsel-auto search``: rank, tune, report, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.options import (
    AsJson,
    Candidates,
    Classes,
    Debug,
    Device,
    Folder,
    Images,
    LibraryPath,
    LimitOptions,
    LogFile,
    Offline,
    Quiet,
    Seed,
    Shots,
    Unlabelled,
    limited,
)
from vlmsel_auto.cli.support import guarded, make_sink, parse_duration

EPILOG = (
    "Without a budget the search ends when no trial promises enough for its time. The same command on the same work "
    "directory goes on where it was, also after a kill. A candidates file is TOML: candidates = ['mini-zoo', "
    "'ViT-B-32/laion2b_s34b_b79k'] and tables \\[\\[candidate]] of path (and id), of arch and tag, or of id."
)


@limited
def search(
    context: typer.Context,
    *,
    directory: Folder,
    candidates: Candidates = ["auto"],  # noqa: B006 - typer copies defaults
    limits: LimitOptions,
    offline: Offline = False,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates that the plan tunes first.")] = 8,
    ensemble: Annotated[
        int,
        typer.Option(
            min=0, max=10, metavar="K", help="Most heads, and most tuned towers, of the ensemble beside the best model."
        ),
    ] = 8,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after this long: seconds, or 90s, 10m, 1h30m.")
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N trials, those of earlier runs included.")
    ] = None,
    price: Annotated[
        float,
        typer.Option(min=0, metavar="POINTS", help="Stop when no trial promises so many points a minute, and .3 more."),
    ] = 0.1,
    objective: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="Points of accuracy that half the latency, params or memory of a model is worth: latency=1,params=.5; "
            "default: accuracy alone.",
        ),
    ] = "accuracy",
    method: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Comma list of zero_shot, probe (linear, on cached features) and finetune."),
    ] = "all",
    shots: Shots = 16,
    classes: Classes = None,
    unlabelled: Unlabelled = False,
    images: Images = None,
    no_test_split: Annotated[
        bool, typer.Option("--no-test-split", help="Draw no test split where DIR gives none: learn from every label.")
    ] = False,
    test_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Most images of DIR's test split that trials are measured on; default: as many as there are others, "
            "at least 1,000.",
        ),
    ] = None,
    seed: Seed = 0,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of study, report and exported model; the same command with it resumes. "
            "Default: vlmsel-NAME in the current folder, after DIR's name.",
        ),
    ] = None,
    library: LibraryPath = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir",
            help="Folder of measurements of candidates; default: inside the work directory, beside what rank kept.",
        ),
    ] = None,
    device: Device = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy finished trials to an Optuna storage, for dashboards: postgresql://USER@HOST/DATABASE (password "
            "in ~/.pgpass), sqlite:///FILE or journal:///FILE.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Run N trials at once, in processes of this machine; GPUs in turn."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run trials on Ray: local starts it on this machine; auto or ray://HEAD:10001 joins.",
        ),
    ] = None,
    no_learn: Annotated[bool, typer.Option("--no-learn", help="Do not add the outcome to your library.")] = False,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Put no thumbnails into the report: the images are private.")
    ] = False,
    log: Annotated[
        str, typer.Option(metavar="NAMES", help="Comma list of experiment trackers: tensorboard, csv, mlflow, wandb.")
    ] = "",
    as_json: AsJson = False,
    log_file: LogFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rank the candidates on DIR, tune the promising ones, report, and export the best model."""
    with guarded(debug=debug, as_json=as_json, resumes=True) as answer:
        from vlmsel_auto.cli.answers import answer_search, check_task
        from vlmsel_auto.planning.objective import read_objective
        from vlmsel_auto.process import collections_paused
        from vlmsel_auto.records import Budget

        asked = limits.read()
        aim = read_objective(objective)
        seconds = None if time_budget is None else parse_duration(time_budget)
        budget = Budget(seconds=seconds, trials=max_trials)
        own = [folder for folder in (workdir, cache_dir) if folder is not None]
        named = check_task(directory, candidates, classes=classes, unlabelled=unlabelled, exclude=own)
        with make_sink(quiet=quiet, budget=budget, log_file=log_file) as sink:
            with collections_paused():
                from vlmsel_auto.pipeline.search import search as run_search  # loads torch, which the screen covers

            result = run_search(
                directory,
                candidates=tuple(candidates),
                limits=asked,
                offline=offline,
                top_k=top_k,
                ensemble=ensemble,
                budget=budget,
                price=price,
                objective=aim,
                method=method if method == "all" else [name.strip() for name in method.split(",")],
                shots=shots,
                classes=named,
                unlabelled=unlabelled,
                images=images,
                test_split=not no_test_split,
                test_images=test_images,
                seed=seed,
                workdir=workdir,
                library=library,
                cache_dir=cache_dir,
                device=device,
                storage=storage,
                workers=workers,
                ray=ray,
                learn=not no_learn,
                thumbnails=not no_images,
                logger=[name.strip() for name in log.split(",") if name.strip()],
                since=context.obj,
                sink=sink,
            )
        answer_search(answer, result, to_stderr=as_json)
