"""The command line: thin wrappers that turn options into calls and results into a table, a panel or one JSON object.

Heavy imports stay inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.bench import bench
from vlmsel_auto.cli.demo import demo
from vlmsel_auto.cli.export import export
from vlmsel_auto.cli.label import label
from vlmsel_auto.cli.library import library_app
from vlmsel_auto.cli.options import answering
from vlmsel_auto.cli.predict import predict
from vlmsel_auto.cli.rank import rank
from vlmsel_auto.cli.search import EPILOG, search
from vlmsel_auto.cli.support import Answer, open_streams
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


app.command(epilog=EPILOG)(search)
app.command()(rank)
app.command()(label)
app.command()(predict)
app.command()(export)


@app.command()
@answering(tells=False)
def report(
    *,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A search's --workdir, its report folder, or report.json.")
    ],
    open_browser: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    answer: Answer,
) -> None:
    """Render report.html again from report.json and show the summary."""
    from vlmsel_auto.recordjson import encode
    from vlmsel_auto.reporting import html_page, panel
    from vlmsel_auto.reporting.report import find, load

    folder = find(directory).parent
    loaded = load(folder)
    page = html_page.write_html(loaded, folder)
    answer.json = encode(loaded)
    panel.show(loaded, report_dir=folder, to_stderr=answer.as_json)
    if open_browser:
        typer.launch(str(page))


app.command()(demo)
app.command()(zoo)
app.command()(bench)
app.add_typer(library_app, name="library")


def main() -> None:
    """Entry point of the ``vlmsel-auto`` script."""
    # torch's OpenMP threads spin while they wait for each other: beside one busy process training is 12 times slower
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    open_streams()
    try:
        app(obj=_STARTED)  # a budget of time is what the user waits for, the loading of torch included
    finally:
        gc.freeze()  # else Python looks through all that was imported for garbage before it ends
