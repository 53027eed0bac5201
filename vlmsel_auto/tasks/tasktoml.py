"""Read and check task.toml: name, domain, metric, templates and class prompts, all optional."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import Metric
from vlmsel_auto.tasks.scan import DEFAULT_TEMPLATES, Declaration, nfc, printable, shown

__all__ = ["check_templates", "read_declaration"]

_KEYS = ("name", "domain", "metric", "templates", "prompts")


def read_declaration(root: Path, *, classes: Sequence[str]) -> Declaration:
    """Read ``root``/task.toml, or return the defaults when there is none.

    Raises:
        TaskError: Not TOML, an unknown key, a value of the wrong type, a template without exactly one {}, or a prompt
            for a class that the folder does not have.
    """
    path = root / "task.toml"
    if not path.is_file():
        return Declaration(name=printable(root.name) or "task")
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TaskError(f"task.toml cannot be read as TOML in UTF-8 ({path}): {error}") from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise TaskError(f"task.toml may hold {', '.join(_KEYS)}, but got the unknown key {shown(unknown)} ({path})")
    metrics = get_args(Metric)
    metric = _text(table, "metric", default="accuracy", path=path)
    if metric not in metrics:
        raise TaskError(f"metric in task.toml must be one of {', '.join(metrics)}, but got {metric!r} ({path})")
    return Declaration(
        name=_text(table, "name", default=printable(root.name) or "task", path=path),
        domain=_text(table, "domain", default="images", path=path),
        metric="balanced_accuracy" if metric == "balanced_accuracy" else "accuracy",
        templates=check_templates(table.get("templates", list(DEFAULT_TEMPLATES)), where=str(path)),
        prompts=_prompts(table.get("prompts", {}), classes=classes, path=path),
    )


def check_templates(value: object, *, where: str) -> tuple[str, ...]:
    """Check a list of prompt templates.

    Raises:
        TaskError: Not a list of strings, an empty list, or a template without exactly one {}.
    """
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise TaskError(f"templates must be a list of one or more strings, but got {value!r} ({where})")
    for one in value:
        if one.count("{}") != 1 or one.count("{") != 1 or one.count("}") != 1:
            raise TaskError(
                f'each template must hold one {{}} for the class, as in "a photo of a {{}}.", but got {one!r} ({where})'
            )
    return tuple(value)


def _text(table: Mapping[str, object], key: str, *, default: str, path: Path) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"{key} in task.toml must be a string that is not empty, but got {value!r} ({path})")
    return value.strip()


def _prompts(value: object, *, classes: Sequence[str], path: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise TaskError(f'prompts in task.toml must be a table of class = "text", but got {value!r} ({path})')
    pairs: list[tuple[str, str]] = []
    for label, text in value.items():
        if not isinstance(text, str) or not text.strip():
            raise TaskError(
                f"the prompt of {label!r} in task.toml must be a string that is not empty, but got {text!r} ({path})"
            )
        pairs.append((nfc(label), text.strip()))
    unknown = sorted({label for label, _ in pairs} - set(classes))
    if unknown:
        raise TaskError(
            f"prompts in task.toml must name classes of the folder ({shown(classes)}), "
            f"but got {shown(unknown)} ({path})"
        )
    return tuple(pairs)
