"""``vlmsel-auto library``: source tasks and what the candidates do on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlmsel_auto.cli.options import AsJson, CacheDir, Candidates, Debug, Device, LibraryPath, Quiet, Seed
from vlmsel_auto.cli.sources import sources
from vlmsel_auto.cli.support import EXIT_INPUT, guarded, make_sink, say

if TYPE_CHECKING:
    from vlmsel_auto.cache import Json
    from vlmsel_auto.library.records import Library

library_app = typer.Typer(
    help="Source tasks that rankings learn from.", no_args_is_help=True, pretty_exceptions_enable=False
)
library_app.command()(sources)


Tasks = Annotated[
    list[Path],
    typer.Argument(
        metavar="[TASKS]...",
        help="Task folders (see `search`), folders that hold many task folders, and webdatasets: tar files, or folders "
        "of them with classnames.txt.",
    ),
]
HubTasks = Annotated[
    list[str],
    typer.Option(
        "--hub-task",
        metavar="NAME",
        help="A webdataset of the hub: wds/NAME of CLIP benchmark (wds/cars, wds/vtab/dtd) or hf-wds:ORG/NAME; may be "
        "repeated. Its archives are read in part.",
    ),
]
TaskImages = Annotated[int, typer.Option(min=4, help="Images taken of each webdataset.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, whole or not at all.")]
LibraryFile = Annotated[Path, typer.Argument(metavar="LIBRARY", help="A library file.")]
Images = Annotated[int, typer.Option(min=1, help="Unlabelled images of each conductance profile.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")]
LeaveOut = Annotated[list[str], typer.Option(metavar="NAME", help="Task that must not enter; may be repeated.")]
TunedSeeds = Annotated[
    list[int],
    typer.Option("--tuned-seed", min=0, help="Also fine-tune every cell once with this seed; may be repeated. Slow."),
]


@library_app.command()
def build(
    *,
    tasks: Tasks = [],  # noqa: B006 - typer copies defaults
    hub_task: HubTasks = [],  # noqa: B006 - typer copies defaults
    task_images: TaskImages = 320,
    out: Out,
    candidates: Candidates = ["mini-zoo"],  # noqa: B006 - typer copies defaults
    leave_out: LeaveOut = [],  # noqa: B006 - typer copies defaults
    images: Images = 32,
    seed: Seed = 0,
    tuned_seed: TunedSeeds = [],  # noqa: B006 - typer copies defaults
    jobs: Jobs = 1,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure every candidate on every task. After a kill, the same command goes on where it was."""
    with guarded(debug=debug, as_json=as_json) as answer:
        made = _measure(
            tasks, hub_task, candidates, task_images=task_images, out=out, base=None, leave_out=leave_out,
            images=images, seed=seed, tuned_seeds=tuned_seed, jobs=jobs, cache_dir=cache_dir, device=device,
            quiet=quiet,
        )  # fmt: skip
        answer.json = _told(made, out)


@library_app.command()
def add(
    *,
    library_file: LibraryFile,
    tasks: Tasks = [],  # noqa: B006 - typer copies defaults
    hub_task: HubTasks = [],  # noqa: B006 - typer copies defaults
    task_images: TaskImages = 320,
    candidates: Candidates = [],  # noqa: B006 - typer copies defaults
    leave_out: LeaveOut = [],  # noqa: B006 - typer copies defaults
    images: Images = 32,
    seed: Seed = 0,
    tuned_seed: TunedSeeds = [],  # noqa: B006 - typer copies defaults
    jobs: Jobs = 1,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure more tasks or candidates and add them to LIBRARY; only new cells are computed.

    Without --candidates, those that LIBRARY has.
    """
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.library.file import load

        base = load(library_file)
        made = _measure(
            tasks, hub_task, candidates or list(base.candidate_ids), task_images=task_images, out=library_file,
            base=base, leave_out=leave_out, images=images, seed=seed, tuned_seeds=tuned_seed, jobs=jobs,
            cache_dir=cache_dir, device=device, quiet=quiet,
        )  # fmt: skip
        answer.json = _told(made, library_file)


@library_app.command("list")
def list_(*, library: LibraryPath = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the source tasks and candidates of a library."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.cli.tables import list_json, print_list
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
        from vlmsel_auto.cli.tables import print_cells, select, show_json
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
    conflict: Annotated[
        Literal["newest", "error"], typer.Option(help="Where several hold the same cell: the newest counts, or refuse.")
    ] = "newest",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Join libraries into one file."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.library.assemble import merge as join
        from vlmsel_auto.library.file import load, save

        made = join(*(load(each) for each in files), conflict=conflict)
        save(made, out)
        answer.json = _told(made, out)


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
        from vlmsel_auto.cli.tables import write_cells
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
        answer.json = _told(found, out)


@library_app.command()
def verify(*, library: LibraryPath = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check a library's content, and that the mini zoo's weights are those it was made with."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.library.places import open_library
        from vlmsel_auto.library.verify import verify as check
        from vlmsel_auto.models.candidates import fingerprint, mini_zoo

        problems = check(open_library(library), weights={one.id: fingerprint(one) for one in mini_zoo()})
        answer.json = {"problems": [*problems]}
        answer.code = EXIT_INPUT if problems else 0
        for problem in problems:
            say(problem)
        say(f"{len(problems)} problems found" if problems else "nothing wrong was found")


@library_app.command("import")
def import_(
    *,
    table: Annotated[
        Path | None,
        typer.Argument(metavar="TABLE.csv", help="A published table of zero-shot accuracies."),
    ] = None,
    out: Out,
    kind: Annotated[
        Literal["open_clip", "clip_benchmark", "lovm", "swab"] | None,
        typer.Option(help="Whose table it is; default: told from its columns."),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Instead: tuned accuracies, added to --library (see docs/library.md)."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the library cites as the source of --tuned; default: the file's name."),
    ] = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a published table (open_clip, CLIP benchmark, LOVM, SWAB) into a library without profiles.

    With --tuned FILE.csv: add tuned accuracies of candidates and tasks that --library knows.
    """
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.errors import InputError
        from vlmsel_auto.library.file import save
        from vlmsel_auto.library.places import open_library
        from vlmsel_auto.library.published import import_table
        from vlmsel_auto.library.tuned import import_tuned

        if tuned is not None and table is None and kind is None:
            made = import_tuned(open_library(library), tuned, source=source)
        elif table is not None and tuned is None and library is None and source is None:
            made = import_table(table, kind=kind)
        else:
            raise InputError(
                "an import reads TABLE.csv [--kind], or --tuned FILE.csv [--library] [--source], but got "
                f"TABLE {table}, --tuned {tuned}, --kind {kind}, --library {library}, --source {source}"
            )
        save(made, out)
        answer.json = _told(made, out)


def _told(made: Library, path: Path) -> Json:
    from vlmsel_auto.reporting.formatting import plural

    say(f"{path}: {plural(len(made.candidates), 'candidate')}, {plural(len(made.tasks), 'source task')}")
    return {
        "library": str(path),
        "candidates": len(made.candidates),
        "tasks": len(made.tasks),
        "failures": [{"candidate": one.candidate, "task": one.task, "reason": one.reason} for one in made.failures],
    }


def _measure(
    tasks: list[Path],
    hub_tasks: list[str],
    candidates: list[str],
    *,
    task_images: int,
    out: Path,
    base: Library | None,
    leave_out: list[str],
    images: int,
    seed: int,
    tuned_seeds: list[int],
    jobs: int,
    cache_dir: Path | None,
    device: str,
    quiet: bool,
) -> Library:
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.measuring.build import build as measure
    from vlmsel_auto.measuring.build import task_folders
    from vlmsel_auto.measuring.cells import CellSettings
    from vlmsel_auto.measuring.webdatasets import is_webdataset, task_folder
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.models.device import pick_device

    chosen = resolve(candidates)
    cache = (cache_dir or default_cache_dir()) / "library"
    with make_sink(quiet=quiet) as sink:
        folders = [folder for path in tasks if not is_webdataset(path) for folder in task_folders(path)]
        webdatasets = [*hub_tasks, *(str(path) for path in tasks if is_webdataset(path))]
        folders += [task_folder(one, images=task_images, into=cache / "webdatasets", sink=sink) for one in webdatasets]
        return measure(
            tasks=tuple(dict.fromkeys(folders)),
            candidates=chosen,
            out=out,
            settings=CellSettings(images=images, seed=seed),
            base=base,
            leave_out=leave_out,
            tuned_seeds=tuple(dict.fromkeys(tuned_seeds)),
            jobs=jobs,
            device=str(pick_device(device)),
            cache=cache,
            sink=sink,
        )
