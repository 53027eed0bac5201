"""The command ``vlmsel-auto dashboard``: the trials of a search in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.options import Debug
from vlmsel_auto.cli.support import guarded, say
from vlmsel_auto.errors import InputError


def dashboard(
    *,
    workdir: Annotated[
        Path | None, typer.Argument(metavar="[WORKDIR]", help="A search's --workdir; it may still run.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Instead of WORKDIR: postgresql://USER@HOST/DATABASE, a search's --storage."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on this machine; 0: a free one.")
    ] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Show the trials of a search in optuna-dashboard, on this machine only, until Ctrl+C."""
    with guarded(debug=debug):
        from vlmsel_auto.study.dashboard import serve
        from vlmsel_auto.study.view import open_database_view, open_view

        if (workdir is None) == (storage is None):
            got = "neither" if workdir is None else "both"
            raise InputError(f"a dashboard needs either a WORKDIR or --storage URL, but got {got}")

        def ready(address: str) -> None:
            say(f"the study is at {address} (Ctrl+C ends this)")
            if open_browser:
                typer.launch(address)

        view = open_view(workdir) if workdir is not None else open_database_view(str(storage))
        serve(view, port=port, ready=ready)
