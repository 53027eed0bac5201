"""``vlmsel-auto library build``, ``add`` and ``sources``: measure candidates on source tasks, keep images of such."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmsel_auto.cli.options import AsJson, CacheDir, Candidates, Debug, Device, Out, Quiet, Seed
from vlmsel_auto.cli.support import EXIT_ALL_FAILED, guarded, make_sink, say

if TYPE_CHECKING:
    from vlmsel_auto.library.records import Library

Tasks = Annotated[
    list[Path],
    typer.Argument(metavar="TASKS...", help="Task folders (see `search`), and folders that hold many task folders."),
]
LibraryFile = Annotated[Path, typer.Argument(metavar="LIBRARY", help="A library file.")]
Images = Annotated[int, typer.Option(min=1, help="Unlabelled images of each conductance profile.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")]
LeaveOut = Annotated[list[str], typer.Option(metavar="NAME", help="Task that must not enter; may be repeated.")]


def build(
    *,
    tasks: Tasks,
    out: Out,
    candidates: Candidates = ["mini-zoo"],  # noqa: B006 - typer copies defaults
    leave_out: LeaveOut = [],  # noqa: B006 - typer copies defaults
    images: Images = 32,
    seed: Seed = 0,
    jobs: Jobs = 1,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure every candidate on every task. After a kill, the same command goes on where it was."""
    with guarded(debug=debug, as_json=as_json, resumes=True) as answer:
        made = _measure(
            tasks, candidates, out=out, base=None, leave_out=leave_out,
            images=images, seed=seed, jobs=jobs, cache_dir=cache_dir, device=device, quiet=quiet,
        )  # fmt: skip
        from vlmsel_auto.cli.library_tables import told

        answer.json = told(made, out)


def add(
    *,
    library_file: LibraryFile,
    tasks: Tasks,
    candidates: Candidates = [],  # noqa: B006 - typer copies defaults
    leave_out: LeaveOut = [],  # noqa: B006 - typer copies defaults
    images: Images = 32,
    seed: Seed = 0,
    jobs: Jobs = 1,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure tasks and add them to LIBRARY: all of its candidates, or those of --candidates, which it may lack.

    Finished cells are kept in the cache folder: after a kill the same command goes on where it was.
    """
    with guarded(debug=debug, as_json=as_json, resumes=True) as answer:
        from vlmsel_auto.library.file import load

        base = load(library_file)
        made = _measure(
            tasks, candidates or list(base.candidate_ids), out=library_file,
            base=base, leave_out=leave_out, images=images, seed=seed, jobs=jobs,
            cache_dir=cache_dir, device=device, quiet=quiet,
        )  # fmt: skip
        from vlmsel_auto.cli.library_tables import told

        answer.json = told(made, library_file)


def _measure(
    tasks: list[Path],
    candidates: list[str],
    *,
    out: Path,
    base: Library | None,
    leave_out: list[str],
    images: int,
    seed: int,
    jobs: int,
    cache_dir: Path | None,
    device: str,
    quiet: bool,
) -> Library:
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.measuring.build import Workplace
    from vlmsel_auto.measuring.build import build as measure
    from vlmsel_auto.measuring.cells import CellSettings
    from vlmsel_auto.measuring.source_folders import source_tasks
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.models.device import pick_device

    chosen = resolve(candidates)
    cache = (cache_dir or default_cache_dir()) / "library"
    with make_sink(quiet=quiet) as sink:
        return measure(
            tasks=source_tasks(tasks),
            candidates=chosen,
            out=out,
            settings=CellSettings(images=images, seed=seed),
            base=base,
            leave_out=leave_out,
            place=Workplace(cache=cache, jobs=jobs, device=str(pick_device(device))),
            sink=sink,
        )


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
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep a few images of each of some public data sets, once; the same command goes on after a kill.

    With them a screening of a model also makes its conductance profiles on these tasks, where there is time.
    """
    with guarded(debug=debug, as_json=as_json) as answer:
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
        with make_sink(quiet=quiet) as sink:
            failures = fetch_pack(lacking, sink=sink)
        say(f"{pack_dir()}: {plural(len(wanted) - len(failures), 'source task')}")
        answer.json = {
            "folder": str(pack_dir()),
            "tasks": [{"name": name, "here": name not in failures, "problem": failures.get(name)} for name in wanted],
        }
        if len(failures) == len(wanted):
            answer.code = EXIT_ALL_FAILED
