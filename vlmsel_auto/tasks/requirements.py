"""What a task folder must hold to be one: classes, images of each, and splits that belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.file_names import listed, shown
from vlmsel_auto.tasks.scan import SplitName

_MIN_CLASSES: Final = 2
_MIN_IMAGES: Final = 2  # of a class: one to learn from, one to test on


def check_classes(classes: Sequence[str], labels: Sequence[str], *, left_out: Mapping[str, Sequence[str]]) -> None:
    """At least two classes, and two images in each.

    Args:
        classes: Names of all classes.
        labels: Class of each image.
        left_out: What a message tells of each class's files that cannot be used.

    Raises:
        TaskError: Otherwise.
    """
    if len(classes) < _MIN_CLASSES:
        raise TaskError(
            f"a task needs two classes or more, each a folder or a label of its own, "
            f"but got one class only: {shown(classes)}"
        )
    counts = Counter(labels)
    small = [label for label in classes if counts[label] < _MIN_IMAGES]
    if small:
        lost = [one for label in small for one in left_out.get(label, ())]
        raise TaskError(
            f"every class needs at least {_MIN_IMAGES} images{'' if not lost else ' that can be used'}; "
            f"add images, remove the class or use no labels (--unlabelled), "
            f"but got {listed([f'{label!r} with {counts[label]}' for label in small])}"
            + (f" (left out: {shown(lost)})" if lost else "")
        )


def check_splits(classes: Sequence[str], pairs: Iterable[tuple[str, SplitName | None]], *, why: str = "") -> None:
    """A class of val or test must be in train, where splits are given.

    Args:
        classes: Names of all classes.
        pairs: Class and split of each image.
        why: What a message says of how it came to be.

    Raises:
        TaskError: Otherwise.
    """
    seen = Counter(pairs)
    if not any(split is not None for _, split in seen):
        return
    splits: tuple[SplitName, ...] = ("test", "val")
    for split in splits:
        untaught = [label for label in classes if seen[label, split] and not seen[label, "train"]]
        if untaught:
            raise TaskError(f"every class of {split} needs images in train{why}, but got {shown(untaught)} without any")


def check_distinct(classes: Sequence[str], *, labels: IntArray, digests: Sequence[str]) -> None:
    """A class needs two different images.

    Args:
        classes: Names of all classes.
        labels: (N,) class of each image.
        digests: Of each image, equal for copies.

    Raises:
        TaskError: Otherwise.
    """
    seen = Counter(label for label, _ in set(zip(labels.tolist(), digests, strict=True)))
    small = [label for k, label in enumerate(classes) if seen[k] < _MIN_IMAGES]
    if small:
        raise TaskError(
            f"every class needs at least {_MIN_IMAGES} different images that are not also in another split or class, "
            f"but got {shown(small)}"
        )
