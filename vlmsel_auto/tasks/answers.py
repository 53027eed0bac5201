"""Labels that a folder has before a person gives more: read from wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.classnames import check_class_names, named_classes
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.labelfile import check_one_label
from vlmsel_auto.tasks.labeltable import LABELS
from vlmsel_auto.tasks.tables import IMAGES, scan_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownLabels:
    """What a folder says before anything is asked."""

    classes: tuple[str, ...] | None  # in the order of their keys; None: task.toml says, or nobody does
    labels: dict[str, str]  # path relative to the folder, with "/" -> class


def read_known(
    root: Path, *, classes: Sequence[str] | None, unlabelled: bool, exclude: Sequence[Path] = ()
) -> KnownLabels:
    """The labels that a folder has: in its labels.csv, and in its folders, unless these are no classes.

    ``exclude``: folders to pass over, as for `imagefolder.scan_folder`; ``classes`` as there.

    Raises:
        TaskError: the folder or its labels.csv cannot be used, or could not be added to: images in a table, splits, or
            two labels of one image.
    """
    named = None if classes is None else named_classes(classes)
    if (root / IMAGES).is_file():
        raise TaskError(f"only images that are files can be labelled; write them to a folder, but got {root / IMAGES}")
    if unlabelled and not (root / LABELS).is_file():
        return KnownLabels(classes=named, labels={})
    scan = scan_csv(root.resolve(), named=named) if unlabelled else scan_folder(root, classes=named, exclude=exclude)
    if (root / LABELS).is_file() and any(entry.part for entry in scan.entries):
        raise TaskError(f"labels are added to a table without splits, but got the column split in {root / LABELS}")
    pairs = [(entry.path, entry.label) for entry in scan.entries if entry.label]
    check_one_label(pairs, where=root / LABELS)
    if not unlabelled and pairs:
        named = check_class_names(scan.classes, where=str(root))
    return KnownLabels(classes=named, labels=dict(pairs))
