"""What task.toml says of a task: its name, domain, metric, templates, prompts and groups of images."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import Metric
from vlmsel_auto.tasks.class_names import check_class_names
from vlmsel_auto.tasks.file_names import nfc, printable, shown
from vlmsel_auto.tasks.group_names import PARENT, read_rule
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES

_KEYS = ("name", "domain", "metric", "templates", "prompts", "classes", "group")


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """How to speak of the task: what task.toml or task.json says, or defaults."""

    name: str
    domain: str = "images"
    metric: Metric = "accuracy"
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    names_templates: bool = False  # whether these are the user's
    prompts: tuple[tuple[str, str], ...] = ()  # (class, what a template's {} becomes) where given
    group: str | None = None  # rule of `group_names.read_rule`


def declared_classes(root: Path) -> tuple[str, ...] | None:
    """What ``root``/task.toml has as classes; None: nothing.

    Raises:
        TaskError: it is not a file of TOML, or the classes are not two or more different names.
    """
    path = root / "task.toml"
    told = _read_toml(path).get("classes")
    if told is None:
        return None
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        raise TaskError(f"classes in task.toml must be a list of names, but got {told!r} ({root})")
    return check_class_names(told, where=str(path))


def read_declaration(root: Path, *, classes: Sequence[str]) -> Declaration:
    """Read ``root``/task.toml, or return the defaults when there is none.

    Raises:
        TaskError: Not TOML, an unknown key, a value of the wrong type, a template without exactly one {}, or a prompt
            for a class that the folder does not have.
    """
    path = root / "task.toml"
    table = _read_toml(path)
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise TaskError(f"task.toml may hold {', '.join(_KEYS)}, but got the unknown key {shown(unknown)} ({path})")
    metrics: tuple[Metric, ...] = get_args(Metric)
    said = _text(table, "metric", default="accuracy", path=path)
    metric = next((each for each in metrics if each == said), None)
    if metric is None:
        raise TaskError(f"metric in task.toml must be one of {', '.join(metrics)}, but got {said!r} ({path})")
    group = _text(table, "group", default=PARENT, path=path) if "group" in table else None
    if group is not None:
        read_rule(group, where=f"group in {path}")
    return Declaration(
        name=_text(table, "name", default=printable(root.name) or "task", path=path),
        domain=_text(table, "domain", default="images", path=path),
        metric=metric,
        templates=check_templates(table.get("templates", list(DEFAULT_TEMPLATES)), where=str(path)),
        names_templates="templates" in table,
        prompts=_prompts(table.get("prompts", {}), classes=classes, path=path),
        group=group,
    )


def _read_toml(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    if not path.is_file():  # a pipe would never end
        raise TaskError(f"task.toml must be a file; rename or remove it, but got {str(path)!r}")
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # numbers may be too long, tables too deep
        raise TaskError(f"task.toml cannot be read as TOML in UTF-8 ({error}), but got {str(path)!r}") from error


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
