"""Which images belong together, as frames of one video or photos of one patient do: what the user says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.file_names import nfc, shown

# a rule; groups of some paths; or, where data are given in memory, one for each image
Groups: TypeAlias = str | Mapping[str, Hashable] | Sequence[Hashable]
PARENT: Final = "parent"  # the rule by which the name of a file's folder is its group


def read_rule(rule: str, *, where: str = "groups") -> Callable[[str], str]:
    """The function from a path to its group, which is empty where the rule does not match.

    Raises:
        TaskError: the rule is neither "parent" nor a regular expression with one group.
    """
    if rule == PARENT:
        return lambda path: PurePosixPath(path).parent.name
    wanted = f'{where} must be "parent" or a regular expression with one (...), which finds the group in a file name'
    try:
        found = re.compile(rule)
    except re.error as error:
        raise TaskError(f"{wanted}; this is none ({error}), but got {rule!r}") from error
    if found.groups != 1:
        raise TaskError(f"{wanted}; brackets that find none are (?:...), but got {rule!r}")

    def group(path: str) -> str:
        match = found.search(PurePosixPath(path).name)
        return (match[1] or "") if match else ""

    return group


def as_groups(groups: Any) -> Groups | None:
    """Groups as they were given; arrays and columns of data frames as tuples."""
    return groups if groups is None or isinstance(groups, (str, Mapping)) else tuple(groups)


def group_name(value: Any) -> str:
    """The name of a group; empty for none (None, NaN or an empty text)."""
    return "" if value is None or value != value else nfc(str(value)).strip()  # noqa: PLR0124 - NaN


def group_names(
    paths: Sequence[str], *, listed: Sequence[str], declared: str | None, groups: Groups | None
) -> tuple[str, ...]:
    """The group of each image; empty: it belongs to no other.

    Args:
        paths: (n,) relative to the task folder.
        listed: (n,) what labels.csv says.
        declared: the rule in task.toml, for images of which labels.csv says nothing.
        groups: what the call says instead of both.

    Raises:
        TaskError: a rule that is none or matches no file, groups of paths that are not there, or no paths at all.
    """
    if groups is None and declared is None:
        return tuple(listed)
    if isinstance(groups, Mapping):
        strange = sorted(map(str, groups.keys() - set(paths)))
        if strange:
            raise TaskError(
                f"groups must name images by their paths in the task folder, such as {paths[0]!r}, "
                f"but got {shown(strange)}"
            )
        return tuple(group_name(groups.get(path)) for path in paths)
    if groups is not None and not isinstance(groups, str):
        raise TaskError(
            'groups of a folder must be "parent", a regular expression or a mapping of paths to groups, but got '
            f"{type(groups).__name__}"
        )
    rule = read_rule(declared or "" if groups is None else groups)
    if not any(map(rule, paths)):
        raise TaskError(
            f"the rule of groups must match the name of a file at least, such as {paths[0]!r}, but got "
            f"{declared if groups is None else groups!r}"
        )
    said = listed if groups is None else [""] * len(paths)
    return tuple(name or nfc(rule(path)) for name, path in zip(said, paths, strict=True))
