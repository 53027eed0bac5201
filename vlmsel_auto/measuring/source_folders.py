"""The source tasks of a library: task folders, and folders that hold many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.tasks.split import SPLITS

_MARKS: Final = ("task.json", "task.toml", "labels.csv")


def source_tasks(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The task folders at all of these paths, each once (`task_folders`)."""
    return tuple(dict.fromkeys(folder for path in paths for folder in task_folders(path)))


def task_folders(root: Path) -> tuple[Path, ...]:
    """The task folders in a folder of many, by name; the folder itself if it is one.

    A folder is a task when it holds ``task.json``, ``task.toml``, ``labels.csv`` or splits, or else class folders with
    no folder in them. What is in it is checked when it is loaded.

    Raises:
        LibraryError: there is no such folder, or it holds none.
    """
    if not root.is_dir():
        raise LibraryError(f"there is no folder of tasks at this path, but got {root}")
    inside = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if _is_marked(root) or set(SPLITS) & {one.name for one in inside}:
        return (root,)
    found = tuple(one for one in inside if _is_marked(one) or any(child.is_dir() for child in one.iterdir()))
    if found:
        return found
    if inside:  # class folders
        return (root,)
    raise LibraryError(f"this folder holds no task folder (each with task.toml or class folders), but got {root}")


def _is_marked(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS)
