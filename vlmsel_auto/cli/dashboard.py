"""The command ``vlmsel-auto dashboard``: the trials of a search in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.options import Debug
from vlmsel_auto.cli.support import guarded, say


def dashboard(
    *,
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="A search's --workdir; it may still run.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on this machine; 0: a free one.")
    ] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Show the trials of a search in optuna-dashboard, on this machine only, until Ctrl+C."""
    with guarded(debug=debug):
        from vlmsel_auto.study.dashboard import serve
        from vlmsel_auto.study.study_view import open_view

        def ready(address: str) -> None:
            say(f"the study is at {address} (Ctrl+C ends this)")
            if open_browser:
                typer.launch(address)

        serve(open_view(workdir), port=port, ready=ready)
