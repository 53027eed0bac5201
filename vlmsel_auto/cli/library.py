"""``vlmsel-auto library``: source tasks and what the candidates do on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vlmsel_auto.cli.options import Asked, LibraryPath, Out, answering, asking
from vlmsel_auto.cli.support import EXIT_ALL_FAILED, Answer, make_sink, say
from vlmsel_auto.pipeline.options import option
from vlmsel_auto.pipeline.request import TaskRequest

if TYPE_CHECKING:
    from vlmsel_auto.library.records import Library

library_app = typer.Typer(
    help="Source tasks that rankings learn from.", no_args_is_help=True, pretty_exceptions_enable=False
)
Tasks = Annotated[
    list[Path],
    typer.Argument(metavar="TASKS...", help="Task folders (see `search`), and folders that hold many task folders."),
]
LibraryFile = Annotated[Path, typer.Argument(metavar="LIBRARY", help="A library file.")]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRequest(TaskRequest):
    """How the cells of a library are measured; of what `rank` is asked it takes seed, cache_dir and device."""

    candidates: Sequence[str] = option(
        (), "What to measure, as for `rank`; default: mini-zoo, or those that LIBRARY has.",
        flags=("--candidates", "-c"), kind=list[str], typed=[], read=list,
    )  # fmt: skip
    leave_out: Sequence[str] = option(
        (), "Task that must not enter; may be repeated.", kind=list[str], typed=[], read=list, metavar="NAME"
    )
    images: int = option(32, "Unlabelled images of each conductance profile.", least=1)
    jobs: int = option(1, "Processes, each with one thread.", least=1)


_ASKED: Final = {"candidates", "leave_out", "images", "jobs", "seed", "cache_dir", "device"}


@library_app.command()
@asking(CellRequest, only=_ASKED)
@answering(resumes=True)
def build(*, tasks: Tasks, out: Out, asked: Asked, answer: Answer) -> None:
    """Measure every candidate on every task. After a kill, the same command goes on where it was."""
    _measure(tasks, asked.read(), out=out, base=None, answer=answer)


@library_app.command()
@asking(CellRequest, only=_ASKED)
@answering(resumes=True)
def add(*, library_file: LibraryFile, tasks: Tasks, asked: Asked, answer: Answer) -> None:
    """Measure tasks and add them to LIBRARY: all of its candidates, or those of --candidates, which it may lack.

    Finished cells are kept in the cache folder: after a kill the same command goes on where it was.
    """
    from vlmsel_auto.library.file import load

    _measure(tasks, asked.read(), out=library_file, base=load(library_file), answer=answer)


def _measure(tasks: list[Path], given: Mapping[str, Any], *, out: Path, base: Library | None, answer: Answer) -> None:
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.cli.library_tables import told
    from vlmsel_auto.measuring.build import Workplace
    from vlmsel_auto.measuring.build import build as measure
    from vlmsel_auto.measuring.cells import CellSettings
    from vlmsel_auto.measuring.source_folders import source_tasks
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.models.device import pick_device

    chosen = resolve(given["candidates"] or (["mini-zoo"] if base is None else list(base.candidate_ids)))
    cache = (given["cache_dir"] or default_cache_dir()) / "library"
    with make_sink(quiet=answer.quiet) as sink:
        made = measure(
            tasks=source_tasks(tasks),
            candidates=chosen,
            out=out,
            settings=CellSettings(images=given["images"], seed=given["seed"]),
            base=base,
            leave_out=given["leave_out"],
            place=Workplace(cache=cache, jobs=given["jobs"], device=str(pick_device(given["device"]))),
            sink=sink,
        )
    answer.json = told(made, out)


@library_app.command()
@answering()
def sources(
    *,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAMES]...",
            help="Published data sets (MNIST, 'Stanford Cars'); default: the 18 of the DCD paper that have published "
            "accuracies.",
        ),
    ] = [],  # noqa: B006 - typer copies defaults
    answer: Answer,
) -> None:
    """Keep a few images of each of some public data sets, once; the same command goes on after a kill.

    With them a screening of a model also makes its conductance profiles on these tasks, where there is time.
    """
    from vlmsel_auto.measuring.source_pack import (
        BYTES_PER_IMAGE,
        IMAGES,
        PUBLISHED,
        fetch_pack,
        missing,
        pack_dir,
    )
    from vlmsel_auto.reporting.formatting import plural
    from vlmsel_auto.units import byte_count

    wanted = tuple(dict.fromkeys(names or PUBLISHED))
    lacking = missing(wanted)
    most = byte_count(len(lacking) * IMAGES * BYTES_PER_IMAGE)
    say(f"{len(wanted) - len(lacking)} of {plural(len(wanted), 'source task')} are here; at most {most} are read")
    with make_sink(quiet=answer.quiet) as sink:
        failures = fetch_pack(lacking, sink=sink)
    say(f"{pack_dir()}: {plural(len(wanted) - len(failures), 'source task')}")
    answer.json = {
        "folder": str(pack_dir()),
        "tasks": [{"name": name, "here": name not in failures, "problem": failures.get(name)} for name in wanted],
    }
    if len(failures) == len(wanted):
        answer.code = EXIT_ALL_FAILED


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
