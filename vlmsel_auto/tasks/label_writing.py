"""labels.csv of a folder while a person gives labels one by one, and others may write it, too.

Every change is written at once, into what the file holds by then: rows and columns of others stay. A label that
somebody else gave meanwhile is not overwritten by one who did not know of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.class_names import check_class_names, named_classes
from vlmsel_auto.tasks.file_names import inside, shown
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.labels_csv import EMPTY, LABELS, LabelTable, below, locate, parse_table, scan_csv
from vlmsel_auto.tasks.parquet import IMAGES

_Row: TypeAlias = tuple[str | None, tuple[str, ...]]  # path below the folder, None: no such file; and cells


class LabelFile:
    """The labels of a folder, and its labels.csv."""

    def __init__(self, root: Path, labels: Mapping[str, str]) -> None:
        """Begin with the ``labels`` (path -> class) that are known; ``root`` is resolved.

        Where there is no labels.csv, the first change writes all of them.
        """
        self._root = root
        self._labels = dict(labels)
        self._stored: dict[str, str] = {}  # of these, what the table held when it was read or written last

    @property
    def path(self) -> Path:
        """Where labels are kept."""
        return self._root / LABELS

    @property
    def labels(self) -> Mapping[str, str]:
        """All labels that are known, also those that others wrote before the last change."""
        return self._labels

    def change(self, path: str, label: str | None) -> None:
        """Give an image a label, or take its label away.

        Raises:
            TaskError: the file cannot be read or written, or says another label by now, which is then known.
        """
        before = self._labels.get(path)
        table, rows = self._catch_up()
        now = self._stored.get(path)
        if now is not None and now not in {before, label}:
            raise TaskError(
                f"somebody else has labelled {path!r} as {now!r} in {self.path}; answer again to change it, but got "
                f"{'no label' if label is None else repr(label)}"
            )
        labels = {name: each for name, each in self._labels.items() if name != path}
        labels |= {} if label is None else {path: label}
        if table is EMPTY:
            rows = [(name, table.new_row(name, each)) for name, each in labels.items()]
        elif label is None:
            rows = [(name, row) for name, row in rows if name != path]
        elif now is None:
            rows = [*rows, (path, table.new_row(path, label))]
        else:
            rows = [(name, table.with_label(row, label) if name == path else row) for name, row in rows]
        self._write(replace(table, rows=tuple(row for _, row in rows)), path=path)
        self._labels, self._stored = labels, {name: table.label(row) for name, row in rows if name is not None}

    def _catch_up(self) -> tuple[LabelTable, list[_Row]]:
        """The table, `EMPTY` where there is none; takes what others wrote since it was read or written last."""
        try:
            table = parse_table(self.path.read_bytes(), path=self.path) if self.path.exists() else EMPTY
        except OSError as error:
            raise _unwritable(self.path, error) from error
        rows = [(self._place(table.path(row)), row) for row in table.rows]
        stored = [(name, table.label(row)) for name, row in rows if name is not None]
        check_one_label(stored, where=self.path)
        gone = self._stored.keys() - dict(stored).keys()
        self._labels = {name: label for name, label in self._labels.items() if name not in gone} | dict(stored)
        self._stored = dict(stored)
        return table, rows

    def _place(self, file: str) -> str | None:
        found = locate(file, root=self._root)
        return below(found, self._root) if found is not None and inside(found, self._root) else None

    def _write(self, table: LabelTable, *, path: str) -> None:
        """Write the table in one step, through a link that stays in the folder; without rows there is no file."""
        try:
            place = check_writable(self._root)
            if table.rows:
                write_atomically(place, table.encoded())
            else:
                place.unlink(missing_ok=True)
        except UnicodeEncodeError as error:
            odd = [name for row in table.rows if not (name := table.path(row)).isprintable()] or [path]
            raise TaskError(f"names of labelled files must be UTF-8; rename them, but got {shown(odd)}") from error
        except OSError as error:
            raise _unwritable(self.path, error) from error


def check_writable(root: Path) -> Path:
    """The file that holds the labels of a folder: labels.csv, or what it links to.

    Raises:
        TaskError: it leads out of the folder, or cannot be written.
    """
    path = root / LABELS
    place = path.resolve()
    if not inside(path, root.resolve()):
        raise TaskError(
            f"labels are written inside the task folder only: put the file itself there instead of a link, but got "
            f"{str(path)!r} which leads to {str(place)!r}"
        )
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise TaskError(f"labels cannot be written here (give rights to the folder), but got {str(place)!r}")
    return place


def check_one_label(pairs: Iterable[tuple[str, str]], *, where: Path) -> None:
    """Refuse a table that contradicts itself: whoever adds a label would settle it in silence.

    Raises:
        TaskError: an image has two labels.
    """
    first: dict[str, str] = {}
    odd = sorted({path for path, label in pairs if first.setdefault(path, label) != label})
    if odd:
        raise TaskError(f"every image must have one label; mend the rows of {where}, but got several for {shown(odd)}")


def _unwritable(path: Path, error: OSError) -> TaskError:
    return TaskError(f"labels cannot be written here ({error.strerror}), but got {str(path)!r}")


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
    if (root / LABELS).is_file() and any(entry.split for entry in scan.entries):
        raise TaskError(f"labels are added to a table without splits, but got the column split in {root / LABELS}")
    pairs = [(entry.path, entry.label) for entry in scan.entries if entry.label]
    check_one_label(pairs, where=root / LABELS)
    if not unlabelled and pairs:
        named = check_class_names(scan.classes, where=str(root))
    return KnownLabels(classes=named, labels=dict(pairs))
