"""``vlmsel-auto label``: which images to label next, and a page on which to label them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlmsel_auto.cli.options import Asked, Folder, answering, asking
from vlmsel_auto.cli.support import Answer, make_sink, say
from vlmsel_auto.pipeline.request import TaskRequest

if TYPE_CHECKING:
    from vlmsel_auto.pipeline.label_session import LabelSession


@asking(TaskRequest, without={"shots", "groups"})
@answering(resumes=True)
def label(
    *,
    directory: Folder,
    count: Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="Images to name.")] = 10,
    purpose: Annotated[
        Literal["ranking", "tuning"],
        typer.Option(
            "--for",
            help="ranking: what tells most about which candidate is best; tuning: what a head learns most from.",
        ),
    ] = "ranking",
    page: Annotated[
        bool,
        typer.Option("--page", help="Serve a page on this machine, on which a key gives a picture its class."),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="With --page: open it in the browser.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="With --page: its port; 0: any that is free.")
    ] = 0,
    workdir: Annotated[
        Path | None,
        typer.Option(help="Folder of to_label.csv. Default: vlmsel-NAME in the current folder, after DIR's name."),
    ] = None,
    asked: Asked,
    answer: Answer,
) -> None:
    """Say which images of DIR to label next, in to_label.csv; labels that DIR has count.

    Labels are read from DIR/labels.csv (path, label) or DIR/labelled/CLASS; --page writes them to DIR/labels.csv, and
    `rank` and `search` on DIR use them as soon as every class has two.
    """
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.cli.answers import check_task, print_labelling
    from vlmsel_auto.process import collections_paused
    from vlmsel_auto.recordjson import encode

    given = asked.read()
    check_task(directory, given, exclude=(given["cache_dir"] or default_cache_dir(),))
    with collections_paused():
        from vlmsel_auto.pipeline.label import finish_labelling, folder_of, open_labelling
        from vlmsel_auto.tasks.label_writing import check_writable

    folder = folder_of(directory, workdir)
    if page:
        check_writable(directory)

    with make_sink(quiet=answer.quiet) as sink:
        session = open_labelling(TaskRequest(data=directory, **given), purpose=purpose, sink=sink)
    if page:
        _serve(session, port=port, open_browser=open_browser)
    found = finish_labelling(session, count=count, folder=folder)
    answer.json = encode(found)
    if not answer.as_json:
        print_labelling(found)


def _serve(session: LabelSession, *, port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl+C."""
    from vlmsel_auto.cli.labelpage import serving

    with serving(session, port=port) as address:
        say(f"label here, Ctrl+C ends it: {address}")
        if open_browser:
            typer.launch(address)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say(f"labels given here are kept in {session.labels_path}: {session.answered}")
