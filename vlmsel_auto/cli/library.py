"""``vlmsel-auto library``: source tasks and what the candidates do on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.library_build import add, build, sources
from vlmsel_auto.cli.options import AsJson, Debug, LibraryPath, Out
from vlmsel_auto.cli.support import EXIT_INPUT, guarded, say

library_app = typer.Typer(
    help="Source tasks that rankings learn from.", no_args_is_help=True, pretty_exceptions_enable=False
)
library_app.command()(build)
library_app.command()(add)
library_app.command()(sources)


@library_app.command("list")
def list_(*, library: LibraryPath = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the source tasks and candidates of a library."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.library_tables import list_json, print_list
        from vlmsel_auto.library.places import open_library

        found = open_library(library)
        answer.json = list_json(found)
        if not as_json:
            print_list(found)


@library_app.command()
def show(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A source task or a candidate's id.")],
    library: LibraryPath = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is known of one source task or of one candidate, with where it comes from."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.library_tables import print_cells, select, show_json
        from vlmsel_auto.library.places import open_library

        rows = select(open_library(library), name)
        answer.json = show_json(rows)
        if not as_json:
            print_cells(rows)


@library_app.command()
def merge(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="LIBRARIES...", help="Library files.")],
    out: Out,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Join libraries into one file; where several hold the same cell, the newest counts."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.library_tables import told
        from vlmsel_auto.library.assemble import merge as join
        from vlmsel_auto.library.file import load, save

        made = join(*(load(each) for each in files))
        save(made, out)
        answer.json = told(made, out)


@library_app.command()
def export(
    *,
    out: Out,
    library: LibraryPath = None,
    task: Annotated[list[str], typer.Option(metavar="NAME", help="Only this task; may be repeated.")] = [],  # noqa: B006
    candidate: Annotated[list[str], typer.Option(metavar="ID", help="Only this candidate; may be repeated.")] = [],  # noqa: B006
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a library, or a part of it: accuracies as FILE.csv, everything as FILE.safetensors."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.library_tables import told, write_cells
        from vlmsel_auto.errors import InputError
        from vlmsel_auto.library.file import save
        from vlmsel_auto.library.places import open_library

        found = open_library(library)
        found = found.select(candidate) if candidate else found
        found = found.select_tasks(task) if task else found
        match out.suffix:
            case ".csv":
                write_cells(found, out)
            case ".safetensors":
                save(found, out)
            case _:
                raise InputError(f"an export is FILE.csv or FILE.safetensors, but got {str(out)!r}")
        answer.json = told(found, out)


@library_app.command()
def verify(*, library: LibraryPath = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check a library's content, and that the mini zoo's weights are those it was made with."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.library.places import open_library
        from vlmsel_auto.library.verify import verify as check
        from vlmsel_auto.models.candidates import mini_zoo
        from vlmsel_auto.models.sources.table import fingerprint

        problems = check(open_library(library), weights={one.id: fingerprint(one) for one in mini_zoo()})
        answer.json = {"problems": [*problems]}
        answer.code = EXIT_INPUT if problems else 0
        for problem in problems:
            say(problem)
        say(f"{len(problems)} problems found" if problems else "nothing wrong was found")
