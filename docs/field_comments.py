"""A Sphinx extension: the comments behind the fields of a dataclass become the descriptions of its attributes."""

from __future__ import annotations

import dataclasses
import inspect
import re

from sphinx.application import Sphinx

_FIELD = re.compile(r"^    (?P<name>[a-z]\w*): [^#\n]*#\s*(?P<comment>.+)$", re.MULTILINE)


def comments_of(kind: type) -> dict[str, str]:
    """Field name to the comment that stands behind it, also of the classes that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        found |= {match["name"]: match["comment"] for match in _FIELD.finditer(inspect.getsource(base))}
    return found


def _describe(_: Sphinx, what: str, __: str, subject: object, ___: object, lines: list[str]) -> None:
    if what == "class" and isinstance(subject, type) and dataclasses.is_dataclass(subject):
        comments = comments_of(subject)
        if not comments:  # the docstring describes them
            return
        lines.append("")
        for field in dataclasses.fields(subject):
            said = comments.get(field.name, "").replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|")
            lines.append(f":ivar {field.name}: {said}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Hook into autodoc."""
    app.connect("autodoc-process-docstring", _describe)
    return {"parallel_read_safe": True}
