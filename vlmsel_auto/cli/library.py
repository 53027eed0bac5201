"""``vlmsel-auto library``: source tasks and what the candidates do on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.library_build import add, build, sources
from vlmsel_auto.cli.options import LibraryPath, Out, answering
from vlmsel_auto.cli.support import Answer

library_app = typer.Typer(
    help="Source tasks that rankings learn from.", no_args_is_help=True, pretty_exceptions_enable=False
)
library_app.command()(build)
library_app.command()(add)
library_app.command()(sources)


@library_app.command("list")
@answering(tells=False)
def list_(*, library: LibraryPath = None, answer: Answer) -> None:
    """List the source tasks and candidates of a library."""
    from vlmsel_auto.cli.library_tables import list_json, print_list
    from vlmsel_auto.library.places import open_library

    found = open_library(library)
    answer.json = list_json(found)
    if not answer.as_json:
        print_list(found)


@library_app.command()
@answering(tells=False)
def merge(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="LIBRARIES...", help="Library files.")],
    out: Out,
    answer: Answer,
) -> None:
    """Join libraries into one file; where several hold the same cell, the newest counts."""
    from vlmsel_auto.cli.library_tables import told
    from vlmsel_auto.library.assemble import merge as join
    from vlmsel_auto.library.file import load, save

    made = join(*(load(each) for each in files))
    save(made, out)
    answer.json = told(made, out)
