"""Data sets in memory as task folders: pairs of image and label, such as torchvision's data sets."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.group_names import Groups
from vlmsel_auto.tasks.in_memory import Item, write_task
from vlmsel_auto.tasks.scan import split_name


class Pairs(Protocol):
    """A sequence of pairs of image and label, such as torch's ``Dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


TaskData: TypeAlias = str | PathLike[str] | Pairs | Mapping[str, Pairs]  # a folder, a data set, or one for each split


def write_dataset(data: Pairs | Mapping[str, Pairs], *, folder: Path, groups: Groups | None = None) -> Path:
    """Write a data set as a task folder and return it; what an earlier call wrote there is replaced.

    Args:
        data: pairs of image and label (a list of them, or torch's ``Dataset`` as torchvision has them, its ``classes``
            or ``categories`` naming the labels), or a mapping of such by split. An image is a path, the bytes of a
            file, a Pillow image, or uint8 pixels (H, W, 3). A label of None is none.
        folder: is made.
        groups: one an image, equal for those that belong together; of a mapping split after split.

    Raises:
        InputError: data of another form, an image that is none, or groups that are not one an image.
    """
    splits = dict(data) if isinstance(data, Mapping) else {"": data}
    unknown = [name for name in splits if name and split_name(name) is None]
    if unknown:
        raise InputError(f"splits must be train, val and test, but got {', '.join(map(repr, unknown))}")
    count = sum(_length(pairs) for pairs in splits.values())
    if not count:
        raise InputError("a data set needs at least one image, but got none")
    if isinstance(groups, (str, Mapping)) or (groups is not None and len(groups) != count):
        told = type(groups).__name__ if isinstance(groups, (str, Mapping)) else f"{len(groups):,} groups"
        raise InputError(f"groups of a data set in memory must be one an image ({count:,}), but got {told}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        items = (item for split, pairs in splits.items() for item in _items(pairs, split=split))
        write_task(items, folder=folder, groups=groups)
    except BaseException:  # half a data set is none
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def task_folder(
    data: TaskData,
    *,
    folder: Path,
    groups: Groups | None = None,
    while_writing: AbstractContextManager[None] | None = None,
) -> Path:
    """The task folder: the one that was named, or ``folder``, where the data set is written.

    Args:
        data: a folder's path, or a data set.
        folder: as for `write_dataset`.
        groups: likewise; of a folder that was named nothing is written.
        while_writing: entered while a data set is written, such as a lock.

    Raises:
        InputError: as `write_dataset`.
    """
    if isinstance(data, (str, PathLike)):
        return Path(data)
    with while_writing or nullcontext():
        return write_dataset(data, folder=folder, groups=groups)


def _length(pairs: Pairs) -> int:
    try:
        return len(pairs)
    except TypeError as error:
        raise InputError(
            f"a data set must have a length and places; take a part of a stream into a list first, but got "
            f"{type(pairs).__name__}"
        ) from error


def _items(pairs: Pairs, *, split: str) -> Iterator[Item]:
    names = _class_names(pairs)
    for number in range(len(pairs)):
        item = pairs[number]
        if not (isinstance(item, (tuple, list)) and len(item) == 2):  # noqa: PLR2004 - a pair
            raise InputError(f"item {number} must be a pair of image and label, but got {type(item).__name__}")
        yield item[0], _name(item[1], names, number), split


def _class_names(pairs: Any) -> Sequence[str] | None:
    """The texts of numbers, also of a subset."""
    while pairs is not None:
        for name in ("classes", "categories"):
            found = getattr(pairs, name, None)
            if isinstance(found, (list, tuple)):
                return [str(each) for each in found]
        pairs = getattr(pairs, "dataset", None)
    return None


def _name(label: Any, names: Sequence[str] | None, number: int) -> str | None:
    shape = getattr(label, "shape", ())
    if math.prod(shape) != 1:
        raise InputError(
            f"the label of item {number} must be a text or a whole number, but got {type(label).__name__} of "
            f"{tuple(shape)}"
        )
    value = label.item() if hasattr(label, "item") else label
    if value is None:
        return None
    if isinstance(value, (int, np.integer)) and names is not None:
        if not 0 <= value < len(names):
            raise InputError(f"the label of item {number} must be one of {len(names)} classes, but got {value}")
        return names[int(value)]
    if not isinstance(value, (str, int)):
        raise InputError(f"the label of item {number} must be a text or a whole number, but got {value!r}")
    if not str(value).strip():
        raise InputError(f"the label of item {number} must not be empty; None stands for none, but got {value!r}")
    return str(value)
