"""Detect the layout of a task folder and list its labelled images, without opening one.

Layouts: images.parquet + task.json; images + labels.csv; {train,val,test}/<class>/*; <class>/*; labelled/<class>/*
beside unlabelled/*; and images without labels, where the classes are named. Folders are searched to any depth, but for
work directories of searches. Symbolic links to files are followed inside the task folder only, links to folders never.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks import parquet
from vlmsel_auto.tasks.class_names import named_classes
from vlmsel_auto.tasks.declaration import declared_classes
from vlmsel_auto.tasks.decode import has_image_suffix
from vlmsel_auto.tasks.file_names import inside, is_ignored, is_workdir, nfc, printable, shown
from vlmsel_auto.tasks.labels_csv import LABELS, read_rows
from vlmsel_auto.tasks.scan import LAYOUTS, ListedImage, Scan, SplitName, scan_of_files, split_name

_OWN_FILES = frozenset({"task.toml", LABELS})
_LABELLED, _UNLABELLED = {"labelled", "labeled"}, {"unlabelled", "unlabeled"}  # folders of a partly labelled task


def scan_folder(
    path: Path, *, exclude: Sequence[Path] = (), classes: Sequence[str] | None = None, unlabelled: bool = False
) -> Scan:
    """List the images of a task folder, all labelled or none, and by name those that have no label beside others.

    Args:
        path: the folder.
        exclude: folders to pass over, such as a work directory inside it.
        classes: names of the classes, or a text that `class_names.read_class_names` reads; None: what task.toml, or
            else the labels, say.
        unlabelled: names of folders are no classes, and labels are not used.

    Raises:
        TaskError: No such folder, not a folder, not readable, of no known layout, or a labels.csv, task.toml or
            task.json that cannot be used; names of classes that do not fit, or that are missing.
        MissingDependency: images.parquet without pyarrow.
    """
    try:
        root = path.resolve(strict=True)
    except PermissionError as error:
        raise TaskError(f"the task folder cannot be read; check its rights, but got {error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise TaskError(f"the task folder must exist, but got {str(path)!r}") from error
    if not root.is_dir():
        raise TaskError(f"a task is a folder of images ({LAYOUTS}), but got the file {str(path)!r}")
    walk = _Walk(root=root, exclude=frozenset(one.resolve() for one in exclude))
    try:
        named = declared_classes(root) if classes is None else named_classes(classes)
        if (root / parquet.IMAGES).is_file():
            return _of_parquet(parquet.scan_parquet(root), named, unlabelled=unlabelled)
        if unlabelled:
            return _scan_unlabelled(walk, named)
        if (root / LABELS).is_file():
            return _scan_table(walk, named)
        return _scan_classes(walk, named)
    except OSError as error:
        raise TaskError(f"the task folder cannot be read; check its rights, but got {error}") from error


def _of_parquet(scan: Scan, named: Sequence[str] | None, *, unlabelled: bool) -> Scan:
    """The scan of a table, or what it is with labels and splits taken away; other classes cannot be named."""
    if unlabelled:
        entries = tuple(replace(entry, label="", split=None) for entry in scan.entries)
        return replace(scan, entries=entries, classes=tuple(named or scan.classes), labelled=False)
    if named is not None and set(named) != set(scan.classes):
        raise TaskError(
            f"the classes that were named must be those of {parquet.IMAGES} ({shown(scan.classes)}), or give "
            f"--unlabelled, but got {shown(named)}"
        )
    return scan


class _Child(NamedTuple):
    """A file or folder."""

    name: str
    path: str  # relative to the task folder, with "/"
    is_folder: bool


@dataclass(kw_only=True, slots=True)
class _Walk:
    """A walk through the folders, and what it has met so far."""

    root: Path
    exclude: frozenset[Path]
    entries: list[ListedImage] = field(default_factory=list)
    stray: list[BadFile] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)  # also of folders without an image

    def skip(self, path: str, reason: str) -> None:
        """Say why a file or folder is not used."""
        self.stray.append(BadFile(path=printable(path), reason=reason))

    def children(self, parent: str) -> Iterator[_Child]:
        """Files and folders of ``parent`` by name, without links that are refused. Of a plain file nothing is asked."""
        with os.scandir(self.root / parent) as listed:
            there = sorted(listed, key=lambda each: each.name)
        for each in there:
            if is_ignored(each.name):
                continue
            path = f"{parent}/{each.name}" if parent else each.name
            is_link = each.is_symlink()
            is_folder = Path(each).is_dir() if is_link else each.is_dir()  # an entry raises where links go in a circle
            if is_folder and (Path(each).resolve() in self.exclude or is_workdir(Path(each))):
                continue
            if is_link and not (Path(each).is_file() and inside(Path(each), self.root)):
                self.skip(path, _link_reason(Path(each), self.root))
            else:
                yield _Child(each.name, path, is_folder)

    def folders(self, parent: str = "", *, own: frozenset[str] = frozenset()) -> list[_Child]:
        """Folders of ``parent`` in order; its files are listed as stray, but for the task's ``own``."""
        found = []
        for child in self.children(parent):
            if child.is_folder:
                found.append(child)
            elif child.name not in own:
                self.skip(child.path, "not in a class folder")
        return found

    def files(self, folder: str = "") -> Iterator[str]:
        """Paths, relative to the task folder, of every file of a folder, to any depth."""
        inner = []
        for child in self.children(folder):
            if child.is_folder:
                inner.append(child.path)
            else:
                yield child.path
        for path in inner:
            yield from self.files(path)

    def collect(self, folders: Sequence[_Child], *, split: SplitName | None = None) -> None:
        """Take the images of class folders."""
        for folder in folders:
            label = nfc(folder.name)
            self.labels.add(label)
            self.entries += [ListedImage(path=path, label=label, split=split) for path in self.files(folder.path)]


def _link_reason(path: Path, root: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "refused: the link leads in a circle"
    if not inside(path, root):
        return "refused: the link leads out of the task folder"
    return "refused: links to folders are not followed" if path.is_dir() else "refused: the link leads nowhere"


def _scan_unlabelled(walk: _Walk, named: Sequence[str] | None) -> Scan:
    """Every file of a folder, to any depth, is an image without a label."""
    entries = [ListedImage(path=path, label="", split=None) for path in walk.files() if path not in _OWN_FILES]
    return scan_of_files(walk.root, labels=(), entries=entries, stray=walk.stray, named=named, labelled=False)


def _scan_table(walk: _Walk, named: Sequence[str] | None) -> Scan:
    """The rows of labels.csv, and images of labelled/<class>/ that have none: they may have come later."""
    rows, refused = read_rows(walk.root)
    known = {entry.path for entry in rows}
    folders = walk.folders()
    if _is_partly_labelled(folders) and not any(entry.split for entry in rows):
        walk.collect(_labelled_folders(folders, walk))
    entries = [*rows, *(entry for entry in walk.entries if entry.path not in known)]
    labels = {*walk.labels, *(entry.label for entry in entries)}
    scan = scan_of_files(walk.root, labels=labels, entries=entries, stray=refused, named=named)
    return replace(scan, unlabelled=tuple(_unnamed({entry.path for entry in entries}, walk)))


def _unnamed(rows: set[str], walk: _Walk) -> Iterator[str]:
    """Files that have no label: those in folders with images that have one, and images elsewhere by their names."""
    folders, known = {path.rpartition("/")[0] for path in rows}, rows | _OWN_FILES
    for path in walk.files():
        if path not in known and (path.rpartition("/")[0] in folders or has_image_suffix(path)):
            yield path


def _scan_classes(walk: _Walk, named: Sequence[str] | None) -> Scan:
    """The images of folders that are classes or splits; of a partly labelled task those in labelled/."""
    folders, unlabelled = walk.folders(own=_OWN_FILES), tuple[str, ...]()
    if _is_partly_labelled(folders):
        pools = [folder for folder in folders if folder.name.lower() in _UNLABELLED]
        unlabelled = tuple(path for pool in pools for path in walk.files(pool.path))
        folders = _labelled_folders(folders, walk)
    if not folders:  # nothing in it can be a class
        return _scan_unlabelled(_Walk(root=walk.root, exclude=walk.exclude), named)
    notes: list[str] = []
    if _is_split(folders, walk.root):
        notes = _collect_splits(folders, walk)
    else:
        walk.collect(folders)
    scan = scan_of_files(
        walk.root, labels=walk.labels, entries=walk.entries, stray=walk.stray, notes=notes, named=named
    )
    return replace(scan, unlabelled=unlabelled)


def _is_partly_labelled(folders: Sequence[_Child]) -> bool:
    names = {folder.name.lower() for folder in folders}
    return names <= _LABELLED | _UNLABELLED and bool(names & _UNLABELLED)


def _labelled_folders(folders: Sequence[_Child], walk: _Walk) -> list[_Child]:
    """The class folders of a partly labelled task."""
    return [one for folder in folders if folder.name.lower() in _LABELLED for one in walk.folders(folder.path)]


def _is_split(folders: Sequence[_Child], root: Path) -> bool:
    """Splits, not classes that happen to be called train: all are split names, or at least two are and hold folders."""
    named = [folder for folder in folders if split_name(folder.name) is not None]
    holding = [folder for folder in named if _holds_folder(root / folder.path)]
    if not holding:
        if len(named) > 1 and len(named) == len(folders):
            raise TaskError(
                f"a folder with splits needs class folders in each, as in train/<class>/*, but got none in "
                f"{shown([folder.name for folder in named])} ({(root / named[0].path).parent})"
            )
        return False
    return len(named) == len(folders) or {"train"} < {split_name(folder.name) for folder in holding}


def _holds_folder(path: Path) -> bool:
    return any(one.is_dir() and not is_ignored(one.name) for one in path.iterdir())


def _collect_splits(folders: Sequence[_Child], walk: _Walk) -> list[str]:
    """Take the images of {train,val,test}/<class>/*, and say what of it was not used."""
    notes: list[str] = []
    splits = {folder: split_name(folder.name) for folder in folders}
    for folder, split in splits.items():
        if split is None:
            walk.skip(folder.path, "folder beside train, val and test; not used")
            continue
        inner = walk.folders(folder.path)
        if not inner:
            notes.append(f"{folder.name}/ holds no class folder and was not used")
        walk.collect(inner, split=split)
    if "train" not in splits.values():
        names = shown([one.name for one in folders])
        raise TaskError(f"a folder with splits needs train/<class>/*, but got {names} ({walk.root})")
    if not {"val", "test"} & set(splits.values()):
        notes.append("only train/ was given: val and test were split from it")
        walk.entries = [replace(entry, split=None) for entry in walk.entries]
    return notes
