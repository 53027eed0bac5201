"""The command line's own parser, without running anything."""

import shlex

import typer
from typer.core import TyperGroup

from vlmsel_auto.cli.app import app


def parse(line: str) -> None:
    """Raise what the command line itself would raise of unknown commands, unknown options or too many arguments."""
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    context = command.context_class(command, info_name="vlmsel-auto")
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(context, words)
        context = command.context_class(command, parent=context)
    _, rest, _ = command.make_parser(context).parse_args(args=list(words))
    assert not rest, f"{line}: {rest} is more than the command takes"
