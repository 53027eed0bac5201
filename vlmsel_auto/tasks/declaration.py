"""What task.toml says of a task: its name, domain, metric, templates, prompts and groups of images."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from vlmsel_auto.errors import InputError, TaskError
from vlmsel_auto.recordjson import decode
from vlmsel_auto.records import Metric
from vlmsel_auto.tasks.class_names import check_class_names
from vlmsel_auto.tasks.file_names import nfc, printable, shown
from vlmsel_auto.tasks.group_names import read_rule
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskToml:
    """What task.toml may hold."""

    name: str = ""  # empty: the folder's
    domain: str = "images"
    metric: Metric = "accuracy"
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    prompts: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    group: str | None = None


def declared_classes(root: Path) -> tuple[str, ...] | None:
    """What ``root``/task.toml has as classes; None: nothing.

    Raises:
        TaskError: it cannot be used, or the classes are not two or more different names.
    """
    told = _read_toml(root / "task.toml").classes
    return None if told is None else check_class_names(told, where=str(root / "task.toml"))


def read_declaration(root: Path, *, classes: Sequence[str]) -> Declaration:
    """Read ``root``/task.toml, or return the defaults when there is none.

    Raises:
        TaskError: Not TOML, an unknown key, a value of the wrong type, a template without exactly one {}, or a prompt
            for a class that the folder does not have.
    """
    path = root / "task.toml"
    told = _read_toml(path)
    if told.group is not None:
        read_rule(told.group, where=f"group in {path}")
    prompts = tuple((nfc(label), text.strip()) for label, text in told.prompts.items())
    unknown = sorted({label for label, _ in prompts} - set(classes))
    if unknown:
        raise TaskError(
            f"prompts in task.toml must name classes of the folder ({shown(classes)}), "
            f"but got {shown(unknown)} ({path})"
        )
    return Declaration(
        name=told.name.strip() or printable(root.name) or "task",
        domain=told.domain.strip(),
        metric=told.metric,
        templates=check_templates(told.templates, where=str(path)),
        names_templates=told.templates is not DEFAULT_TEMPLATES,
        prompts=prompts,
        group=told.group,
    )


def _read_toml(path: Path) -> TaskToml:
    if not path.exists():
        return TaskToml()
    if not path.is_file():  # a pipe would never end
        raise TaskError(f"task.toml must be a file; rename or remove it, but got {str(path)!r}")
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # numbers may be too long, tables too deep
        raise TaskError(f"task.toml cannot be read as TOML in UTF-8 ({error}), but got {str(path)!r}") from error
    keys = [each.name for each in fields(TaskToml)]
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise TaskError(f"task.toml may hold {', '.join(keys)}, but got the unknown key {shown(unknown)} ({path})")
    texts = {key: table[key] for key in ("name", "domain", "group") if key in table}
    texts |= table["prompts"] if isinstance(table.get("prompts"), dict) else {}
    empty = [key for key, text in texts.items() if isinstance(text, str) and not text.strip()]
    if empty:
        raise TaskError(f"texts in task.toml must not be empty, but got nothing for {shown(empty)} ({path})")
    try:
        return decode(TaskToml, table)
    except InputError as error:
        raise TaskError(f"{error} ({path})") from error


def check_templates(templates: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Check prompt templates.

    Raises:
        TaskError: none, or one without exactly one {}.
    """
    if not templates:
        raise TaskError(f"templates must be a list of one or more strings, but got none ({where})")
    for one in templates:
        if one.count("{}") != 1 or one.count("{") != 1 or one.count("}") != 1:
            raise TaskError(
                f'each template must hold one {{}} for the class, as in "a photo of a {{}}.", but got {one!r} ({where})'
            )
    return tuple(templates)
