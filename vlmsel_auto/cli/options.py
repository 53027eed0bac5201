"""Options of the commands: those of a request come from its fields, and each of the others is worded once here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmsel_auto.cli.support import Answer, guarded
from vlmsel_auto.pipeline.options import Option, dashed, questions
from vlmsel_auto.pipeline.request import TaskRequest


def _typer_option(name: str, one: Option) -> Any:
    flags = one.flags or (dashed(name),)
    return typer.Option(*flags, help=one.help, metavar=one.metavar, min=one.least, max=one.most)


def _shared(name: str) -> Any:
    """The option of a field of `TaskRequest`, for a command that asks for little more of it."""
    (asked,) = (asked for each, asked in questions(TaskRequest) if each.name == name)
    return _typer_option(name, asked.options[""])


Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Images as DIR/CLASS/*, as DIR/{train,val,test}/CLASS/*, or as DIR/images with DIR/labels.csv; or a heap "
        "of images, with --classes. An optional DIR/task.toml names classes, prompts, templates, domain and metric.",
    ),
]
Candidates = Annotated[list[str], _shared("candidates")]
Seed = Annotated[int, _shared("seed")]
LibraryPath = Annotated[Path | None, _shared("library")]
Device = Annotated[str, _shared("device")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, whole or not at all.")]
_JSON = typer.Option("--json", help="Print one JSON object on standard output.")
_QUIET = typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")
_DEBUG = typer.Option("--debug", help="Show the traceback of an error.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What was typed for the fields of a request."""

    request: type[Any]
    typed: Mapping[str, Any]  # by name of the option

    def read(self) -> dict[str, Any]:
        """The values of the fields that were asked for, by name.

        Raises:
            InputError: a text cannot be read.
        """
        found: dict[str, Any] = {}
        for each, asked in questions(self.request):
            names = [name or each.name for name in asked.options]
            if self.typed.keys() >= set(names):
                given = [self.typed[name] for name in names]
                found[each.name] = None if given == [None] else asked.read(*given)
        return found


def asking(
    request: type[Any], *, only: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the options of a request's fields take the place of the command's parameter ``asked: Asked``.

    ``only`` of some fields, where it names any, and not of those ``without``.
    """
    options = {
        name or each.name: one
        for each, asked in questions(request)
        if each.name not in without and (each.name in only or not only)
        for name, one in asked.options.items()
    }
    each_asked = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=one.default,
            annotation=Annotated[one.kind | None if one.default is None else one.kind, _typer_option(name, one)],
        )
        for name, one in options.items()
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [
            one for each in own.parameters.values() for one in (each_asked if each.name == "asked" else [each])
        ]

        @functools.wraps(command)
        def run(*context: typer.Context, **given: Any) -> None:
            command(*context, asked=Asked(request=request, typed={name: given.pop(name) for name in options}), **given)

        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def answering(*, resumes: bool = False, tells: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: --json, --quiet and --debug take the place of the command's parameter ``answer: Answer``.

    The command runs `guarded`. ``resumes``: as for `guarded`; ``tells``: it tells what it does, so there is --quiet.
    """
    asked = {"as_json": _JSON, **({"quiet": _QUIET} if tells else {}), "debug": _DEBUG}
    switches = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, one])
        for name, one in asked.items()
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [each for each in own.parameters.values() if each.name != "answer"] + switches

        @functools.wraps(command)
        def run(
            *context: typer.Context, as_json: bool = False, quiet: bool = False, debug: bool = False, **given: Any
        ) -> None:
            answer = Answer(as_json=as_json, quiet=quiet)
            with guarded(answer, debug=debug, resumes=resumes):
                command(*context, answer=answer, **given)

        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate
