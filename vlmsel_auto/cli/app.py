"""The command line: thin wrappers that turn options into calls and results into a table, a panel or one JSON object.

Heavy imports stay inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.bench import bench
from vlmsel_auto.cli.library import library_app
from vlmsel_auto.cli.options import (
    AsJson,
    CacheDir,
    Candidates,
    Classes,
    Debug,
    Device,
    Folder,
    Images,
    ImageSize,
    LibraryPath,
    Licence,
    MaxDownload,
    MaxLatency,
    MaxMemory,
    MaxParams,
    Offline,
    Quiet,
    Seed,
    Shots,
    Unlabelled,
)
from vlmsel_auto.cli.support import guarded, make_sink, parse_duration, say
from vlmsel_auto.cli.zoo import zoo

_STARTED = time.monotonic()

app = typer.Typer(
    name="vlmsel-auto",
    epilog="Exit codes: 0 done, 1 unexpected error, 2 input that cannot be used, 3 no trial succeeded, 130 interrupted."
    " With --json, standard output holds exactly one JSON object.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        from importlib.metadata import version

        typer.echo(f"vlmsel-auto {version('vlmsel-auto')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Pick and fine-tune the best pretrained vision-language model for a folder of images."""


_SEARCH_EPILOG = (
    "Without a budget the search ends when no trial promises enough for its time. The same command on the same work "
    "directory goes on where it was, also after a kill. A candidates file is TOML: candidates = ['mini-zoo', "
    "'ViT-B-32/laion2b_s34b_b79k'] and tables \\[\\[candidate]] of path (and id), of arch and tag, or of id."
)


@app.command(epilog=_SEARCH_EPILOG)
def search(
    context: typer.Context,
    *,
    directory: Folder,
    candidates: Candidates = ["auto"],  # noqa: B006 - typer copies defaults
    max_params: MaxParams = None,
    max_download: MaxDownload = None,
    max_memory: MaxMemory = None,
    max_latency: MaxLatency = None,
    image_size: ImageSize = None,
    licence: Licence = None,
    offline: Offline = False,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates that the plan tunes first.")] = 5,
    ensemble: Annotated[
        int,
        typer.Option(
            min=0, max=5, metavar="K", help="Most heads, and most tuned towers, of the ensemble beside the best model."
        ),
    ] = 5,
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
    method: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Comma list of zero_shot, probe (linear, on cached features) and finetune."),
    ] = "all",
    shots: Shots = 16,
    classes: Classes = None,
    unlabelled: Unlabelled = False,
    images: Images = 400,
    no_test_split: Annotated[
        bool, typer.Option("--no-test-split", help="Draw no test split where DIR gives none: learn from every label.")
    ] = False,
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
        typer.Option("--cache-dir", help="Folder of measurements of candidates; default: inside the work directory."),
    ] = None,
    device: Device = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Study storage shared by several machines: postgresql://... (not SQLite, which locks no rows).",
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
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rank the candidates on DIR, tune the promising ones, report, and export the best model."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.answers import answer_search, check_task
        from vlmsel_auto.models.limits import read_limits
        from vlmsel_auto.records import Budget

        limits = read_limits(
            max_params=max_params,
            max_download=max_download,
            max_memory=max_memory,
            max_latency=max_latency,
            image_size=image_size,
            licence=licence,
        )
        seconds = None if time_budget is None else parse_duration(time_budget)
        budget = Budget(seconds=seconds, trials=max_trials)
        named = check_task(directory, candidates, classes=classes, unlabelled=unlabelled, workdir=workdir)
        from vlmsel_auto.pipeline.search import search as run_search  # after the options are checked: this loads torch

        with make_sink(quiet=quiet, budget=budget) as sink:
            result = run_search(
                directory,
                candidates=tuple(candidates),
                limits=limits,
                offline=offline,
                top_k=top_k,
                ensemble=ensemble,
                budget=budget,
                price=price,
                method=method if method == "all" else [name.strip() for name in method.split(",")],
                shots=shots,
                classes=named,
                unlabelled=unlabelled,
                images=images,
                test_split=not no_test_split,
                seed=seed,
                workdir=workdir,
                library=library,
                cache_dir=cache_dir,
                device=device,
                storage=storage,
                learn=not no_learn,
                thumbnails=not no_images,
                logger=[name.strip() for name in log.split(",") if name.strip()],
                since=context.obj,
                sink=sink,
            )
        answer_search(answer, result, to_stderr=as_json)


@app.command()
def rank(
    *,
    directory: Folder,
    candidates: Candidates = ["auto"],  # noqa: B006 - typer copies defaults
    max_params: MaxParams = None,
    max_download: MaxDownload = None,
    max_memory: MaxMemory = None,
    max_latency: MaxLatency = None,
    image_size: ImageSize = None,
    licence: Licence = None,
    offline: Offline = False,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Show the best N only; 0: all.")] = 0,
    shots: Shots = 16,
    classes: Classes = None,
    unlabelled: Unlabelled = False,
    images: Images = 400,
    seed: Seed = 0,
    library: LibraryPath = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict how the candidates will rank on DIR once tuned; nothing is trained."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.answers import check_task, print_ranking, rank_json
        from vlmsel_auto.models.limits import read_limits

        limits = read_limits(
            max_params=max_params,
            max_download=max_download,
            max_memory=max_memory,
            max_latency=max_latency,
            image_size=image_size,
            licence=licence,
        )
        named = check_task(directory, candidates, classes=classes, unlabelled=unlabelled)
        from vlmsel_auto.pipeline.rank import rank as run_rank

        with make_sink(quiet=quiet) as sink:
            ranking = run_rank(
                directory,
                candidates=tuple(candidates),
                limits=limits,
                offline=offline,
                shots=shots,
                classes=named,
                unlabelled=unlabelled,
                images=images,
                seed=seed,
                library=library,
                cache_dir=cache_dir,
                device=device,
                sink=sink,
            )
        shown = top or len(ranking.ranked)
        answer.json = rank_json(ranking, top=shown)
        if not as_json:
            print_ranking(ranking, top=shown)


@app.command()
def predict(
    *,
    model_dir: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A model folder that a search exported.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Classes to show an image.")] = 3,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write every probability to a CSV file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Classify images with an exported model."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.answers import (
            bad_file_lines,
            check_paths,
            predict_json,
            print_predictions,
            write_predictions,
        )

        check_paths(images)
        from vlmsel_auto.models.device import pick_device
        from vlmsel_auto.models.prediction import predict as classify

        with make_sink(quiet=quiet) as sink:
            found = classify(model_dir, images, device=pick_device(device), batch_size=batch_size, sink=sink)
        for line in bad_file_lines(found.bad_files):
            say(line)
        answer.json = predict_json(found)
        if output is not None:
            write_predictions(found, output)
        if not as_json:
            print_predictions(found, top=top)


@app.command()
def report(
    *,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A search's --workdir, its report folder, or report.json.")
    ],
    open_browser: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Render report.html again from report.json and show the summary."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.recordjson import encode
        from vlmsel_auto.reporting import views
        from vlmsel_auto.reporting.report import find, load

        folder = find(directory).parent
        loaded = load(folder)
        page = views.write_html(loaded, folder)
        answer.json = encode(loaded)
        views.show(loaded, report_dir=folder, to_stderr=as_json)
        if open_browser:
            typer.launch(str(page))


@app.command()
def demo(
    *,
    workdir: Annotated[Path, typer.Option(help="Folder of the demo's images, study, report and model.")] = Path("demo"),
    time_budget: Annotated[str, typer.Option(metavar="TIME", help="What the search may take: 90s, 2m.")] = "2m",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The main job offline: handwritten digits as an image folder, the mini zoo, a real search, a prediction."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.answers import answer_search
        from vlmsel_auto.cli.demo import demo as run_demo
        from vlmsel_auto.records import Budget

        seconds = parse_duration(time_budget)
        with make_sink(quiet=quiet, budget=Budget(seconds=seconds)) as sink:
            result = run_demo(workdir=workdir, seconds=seconds, sink=sink)
        answer_search(answer, result, to_stderr=as_json)


app.command()(zoo)
app.command()(bench)
app.add_typer(library_app, name="library")


def main() -> None:
    """Entry point of the ``vlmsel-auto`` script."""
    # torch's OpenMP threads spin while they wait for each other: beside one busy process training is 12 times slower
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app(obj=_STARTED)  # a budget of time is what the user waits for, the loading of torch included
