"""Names of classes, of folders or given beside the images: on the command line, in a text file or in task.toml."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.file_names import listed, nfc, shown

_FEWEST: Final = 2
_LIST: Final = "the list of classes"


def alike(labels: Sequence[str]) -> tuple[str, ...]:
    """A note where classes differ in case and blanks only: whether they are one, the user knows."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault("".join(label.casefold().split()), label), label) for label in labels]
    twins = [f"{one!r} and {two!r}" for one, two in pairs if one != two]
    return (f"classes that differ in case or blanks only were kept apart: {listed(twins)}",) if twins else ()


def prompt_of(label: str) -> str:
    """What a template says of a class that has no prompt of its own: its name with _ and - as spaces."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def named_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The names that a user gives: a sequence of them, or a text that `read_class_names` reads.

    Raises:
        TaskError: as `read_class_names` and `check_class_names`, or a name that is no text.
    """
    if isinstance(classes, str):
        return read_class_names(classes)
    if not all(isinstance(one, str) for one in classes):
        raise TaskError(f"names of classes must be texts, but got {list(classes)!r}")
    return check_class_names(classes, where=_LIST)


def class_names_text(classes: str | Sequence[str]) -> str:
    """One text of the names that a user gave, which `read_class_names` reads."""
    if isinstance(classes, str):
        return classes
    written = io.StringIO(newline="")
    csv.writer(written).writerow(classes)
    return written.getvalue().removesuffix("\r\n")


def read_class_names(text: str) -> tuple[str, ...]:
    """Names in "cat, dog", or in a text file of that path: one a line, empty lines are passed over.

    A name with a comma stands in quotation marks, as in CSV: 'cat, "dog, wild"'.

    Raises:
        TaskError: the file is not there or cannot be read, a quotation mark is not closed, or the names are not two or
            more different ones.
    """
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a path, or a null character
        is_file = False
    if not is_file and "," not in text and (path.suffix or path.name != text) and text.strip():
        raise TaskError(f"there is no such file of class names, and one name is not enough, but got {text!r}")
    if not is_file:
        return check_class_names(_names_in(text), where=_LIST)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"the file of class names cannot be read as UTF-8 text, but got {text!r}: {error}") from error
    return check_class_names([line for line in lines if line.strip()], where=text)


def _names_in(text: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise TaskError(
            "a class name with a comma stands in quotation marks, as in 'cat, \"dog, wild\"', and marks in it are "
            f"doubled, but got {text!r}: {error}"
        ) from error
    return [name for row in rows for name in row] or [""]


def check_class_names(names: Sequence[str], *, where: str) -> tuple[str, ...]:
    """The names in Unicode NFC without blanks around them, in the order given.

    Raises:
        TaskError: an empty name, one that is given twice, or fewer than two.
    """
    found = tuple(nfc(name.strip()) for name in names)
    if any(not name for name in found):
        raise TaskError(f"a class name must not be empty, but got {list(names)!r} ({where})")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise TaskError(f"every class must be named once, but got {shown(twice)} more than once ({where})")
    if len(found) < _FEWEST:
        raise TaskError(f"a task needs two classes or more, but got {shown(found) or 'none'} ({where})")
    return found
