"""An option is declared once, where its value is kept: on a field of a record (`request.py`, `search.py`).

The command line is made of these fields (`cli/options.py`), and `words` writes a record back as a command line. Nothing
here or in the records loads NumPy, so that --help answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Final, TypeVar

from vlmsel_auto.errors import InputError

T = TypeVar("T")
_KEY: Final = "question"


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """What a person types for a value, or for a part of it."""

    help: str
    kind: Any = str  # int, float, str, bool, Path or list[str]
    default: Any = None  # as it would be typed
    flags: tuple[str, ...] = ()  # (): two dashes and the name
    metavar: str | None = None
    least: float | None = None
    most: float | None = None

    @property
    def range(self) -> str:
        """From the least to the most."""
        return f"at least {self.least:g}" if self.most is None else f"{self.least:,} to {self.most:,}"

    def allows(self, value: float) -> bool:
        """Whether a number is within the range, if there is one."""
        low, high = self.least, math.inf if self.most is None else self.most
        return low is None or (math.isfinite(value) and low <= value <= high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """How the command line asks for the value of a field."""

    options: Mapping[str, Option]  # by name; "": that of the field
    read: Callable[..., object]  # what was typed, in the order of the options -> the value; raises InputError
    show: Callable[[Any], Mapping[str, object]]  # a value -> what would be typed; True: the flag alone
    unit: str  # of a number, for messages


def option(
    default: T,
    text: str,
    *,
    kind: Any = None,
    typed: Any = None,
    read: Callable[[Any], object] = lambda given: given,
    show: Callable[[Any], str | None] = str,
    unit: str = "",
    **more: Any,
) -> T:
    """A field that one option asks for.

    Args:
        default: of the field.
        text: the help.
        kind: what is typed; None: of the default's type. A switch changes the default, so its flag says the contrary
            where that is True.
        typed: the default as it would be typed; None: as it is.
        read: what was typed -> the value.
        show: a value -> what would be typed; None: there is no such text.
        unit: of a number, for messages.
        more: further fields of `Option`.
    """

    def shown(value: Any) -> dict[str, object]:
        as_typed = True if isinstance(default, bool) else show(value)
        return {} if as_typed is None else {"": as_typed}

    if isinstance(default, bool):
        one, read = Option(help=text, kind=bool, default=False, **more), lambda given: given is not default
    else:
        first = default if typed is None else typed
        one = Option(help=text, kind=kind or type(default), default=first, **more)
    found: T = field(default=default, metadata={_KEY: Question(options={"": one}, read=read, show=shown, unit=unit)})
    return found


def options(
    default: Callable[[], T],
    *,
    read: Callable[..., T],
    show: Callable[[Any], Mapping[str, object]],
    **parts: Option,
) -> T:
    """A field that several options ask for; ``default`` makes the value without any of them."""
    asked = Question(options=parts, read=read, show=show, unit="")
    found: T = field(default_factory=default, metadata={_KEY: asked})
    return found


def questions(record: Any) -> Iterator[tuple[Field[Any], Question]]:
    """The fields of a record, or of its class, that the command line asks for."""
    return ((each, each.metadata[_KEY]) for each in fields(record) if _KEY in each.metadata)


def check_ranges(record: Any) -> None:
    """Refuse numbers that are out of range.

    Raises:
        InputError: one is.
    """
    for each, asked in questions(record):
        value, one = getattr(record, each.name), asked.options.get("")
        if one is not None and value is not None and not one.allows(value):
            unit = f"{asked.unit}, " if asked.unit else ""
            raise InputError(f"{each.name} must be {unit}{one.range}, but got {value}")


def words(record: Any) -> list[str]:
    """Options of the command line that give the values of a record; those of defaults are left out."""
    found: list[str] = []
    for each, asked in questions(record):
        value = getattr(record, each.name)
        if value == (each.default if each.default_factory is MISSING else each.default_factory()):
            continue
        for name, typed in asked.show(value).items():
            flags = asked.options[name].flags
            found.append(flags[0] if flags else dashed(name or each.name))
            found += [] if typed is True else [str(typed)]
    return found


def dashed(name: str) -> str:
    """The option of a name."""
    return f"--{name.replace('_', '-')}"
