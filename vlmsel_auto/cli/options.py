"""Options that several commands share, so that each is worded once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from vlmsel_auto.models.limits import Limits

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Images as DIR/CLASS/*, as DIR/{train,val,test}/CLASS/*, or as DIR/images with DIR/labels.csv; or a heap "
        "of images, with --classes. An optional DIR/task.toml names classes, prompts, templates, domain and metric.",
    ),
]
Candidates = Annotated[
    list[str],
    typer.Option(
        "--candidates",
        "-c",
        help="What to choose from: auto (what suits this machine), mini-zoo, a preset (tiny, laptop, server, all), a "
        "candidate's id, open_clip ARCH/TAG, hf-hub:ORG/NAME, local-dir:FOLDER or a TOML file. Several: separate with "
        "commas or repeat the option. `vlmsel-auto zoo` lists them.",
    ),
]
Shots = Annotated[int, typer.Option(min=1, help="Labelled training images a class that the ranking may look at.")]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help='Classes of images without labels: "cat, dog" (names with commas in quotation marks of their own), '
        "or a text file of one a line; default: those in task.toml.",
    ),
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="Names of folders are no classes, and labels are not used.")
]
Images = Annotated[
    int | None,
    typer.Option(
        "--images",
        min=1,
        metavar="N",
        help="Most images that are screened where there are no labels; default: as many as 60 seconds, or a fifth "
        "of a shorter time budget, allow on this machine, at least 100.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of split, few-shot set and trials.")]
LibraryPath = Annotated[
    Path | None,
    typer.Option("--library", help="Library of source tasks; default: the shipped one merged with your own."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", help="Folder of derived data; default: $VLMSEL_CACHE or the user's cache folder."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, whole or not at all.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no hub: use what lies on this disk.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Also add what is being done to FILE, in plain lines."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOptions:
    """What a candidate may take, as it was typed."""

    max_params: Annotated[
        str | None, typer.Option("--max-params", metavar="N", help="Most parameters of a candidate: 150M, 1.5G.")
    ] = None
    max_download: Annotated[
        str | None,
        typer.Option("--max-download", metavar="BYTES", help="Most to download for one candidate: 500MB, 2GB."),
    ] = None
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="BYTES", help="Most memory that a candidate may take: 4GB.")
    ] = None
    max_latency: Annotated[
        str | None,
        typer.Option("--max-latency", metavar="MS", help="Most milliseconds an image, among many on this machine: 40."),
    ] = None
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="PIXELS", help="Side of a candidate's input: 224, 224-384, 336- or -256."),
    ] = None
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", metavar="NAMES", help="Licences that are allowed: MIT,Apache-2.0. Unknown ones are not."
        ),
    ] = None

    def read(self) -> Limits:
        """The limits; errors as of `read_limits`."""
        from vlmsel_auto.models.limits import read_limits

        return read_limits(**asdict(self))


def limited(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `LimitOptions` in the place of its parameter ``limits``."""
    hints = get_type_hints(LimitOptions, include_extras=True)
    each = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=h) for n, h in hints.items()]
    own = inspect.signature(command, eval_str=True)
    parameters = [one for given in own.parameters.values() for one in (each if given.name == "limits" else [given])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        limits = LimitOptions(**{name: given.pop(name) for name in hints})
        command(**given, limits=limits)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
