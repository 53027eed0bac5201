"""Labels that a person gives one by one: read from wherever a task folder has them, kept in its labels.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.classnames import check_class_names
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.names import shown
from vlmsel_auto.tasks.tables import IMAGES, LABELS, scan_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownLabels:
    """What a folder says before anything is asked."""

    classes: tuple[str, ...] | None  # None: task.toml says, or nobody does
    labels: dict[str, str]  # path relative to the folder, with "/" -> class


def read_known(root: Path, *, classes: Sequence[str] | None, unlabelled: bool) -> KnownLabels:
    """The labels that a folder has: its labels.csv, or else its folders, unless these are no classes.

    Raises:
        TaskError: the folder or its labels.csv cannot be used, or could not be added to: images in a table, or splits.
    """
    named = None if classes is None else tuple(classes)
    if (root / IMAGES).is_file():
        raise TaskError(f"only images that are files can be labelled; write them to a folder, but got {root / IMAGES}")
    if unlabelled and not (root / LABELS).is_file():
        return KnownLabels(classes=named, labels={})
    scan = scan_csv(root.resolve(), named=named) if unlabelled else scan_folder(root, classes=named)
    if (root / LABELS).is_file() and any(entry.part for entry in scan.entries):
        raise TaskError(
            f"labels are added to a table of path and label alone, but got the column split in {root / LABELS}"
        )
    labels = {entry.path: entry.label for entry in scan.entries if entry.label}
    if not unlabelled and labels:
        named = check_class_names(scan.classes, where=str(root))
    return KnownLabels(classes=named, labels=labels)


def write_known(root: Path, labels: Mapping[str, str]) -> None:
    """Write ``root``/labels.csv in one step; without any label there is none.

    Paths begin with "./", so that no spreadsheet takes one for a formula.

    Raises:
        TaskError: the file cannot be written.
    """
    path = root / LABELS
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(
        [("path", "label"), *((f"./{name}", label) for name, label in labels.items())]
    )
    try:
        if labels:
            write_atomically(path, stream.getvalue().encode("utf-8"))
        else:
            path.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        odd = [name for name in labels if not name.isprintable()]
        raise TaskError(f"names of labelled files must be UTF-8; rename them, but got {shown(odd)}") from error
    except OSError as error:
        raise TaskError(f"labels cannot be written here ({error.strerror}), but got {str(path)!r}") from error
