"""Detect the layout of a task folder and list its labelled images, without opening one.

Layouts: images.parquet + task.json; images + labels.csv; {train,val,test}/<class>/*; <class>/*. Class folders are
searched to any depth. Symbolic links to files are followed inside the task folder only, links to folders never.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks import tables
from vlmsel_auto.tasks.scan import (
    LAYOUTS,
    Entry,
    Part,
    Scan,
    inside,
    is_ignored,
    nfc,
    printable,
    scan_of_files,
    shown,
    split_part,
)

_OWN_FILES = frozenset({"task.toml", tables.LABELS})


@dataclass(kw_only=True, slots=True)
class _Found:
    """What a walk through the folders has met so far."""

    root: Path
    exclude: frozenset[Path]
    entries: list[Entry] = field(default_factory=list)
    stray: list[BadFile] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)  # also of folders without an image

    def skip(self, path: Path, reason: str) -> None:
        self.stray.append(BadFile(path=printable(path.relative_to(self.root).as_posix()), reason=reason))


def scan_folder(path: Path, *, exclude: Sequence[Path] = ()) -> Scan:
    """List the labelled images of a task folder, but for folders to ``exclude``, such as a work directory inside it.

    Raises:
        TaskError: No such folder, not a folder, not readable, of no known layout, or a labels.csv, task.toml or
            task.json that cannot be used.
        MissingDependency: images.parquet without pyarrow.
    """
    try:
        root = path.resolve(strict=True)
    except PermissionError as error:
        raise TaskError(f"the task folder cannot be read; check its rights, but got {error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise TaskError(f"there is no such task folder, but got {str(path)!r}") from error
    if not root.is_dir():
        raise TaskError(f"a task is a folder of images ({LAYOUTS}), but got the file {str(path)!r}")
    try:
        if (root / tables.IMAGES).is_file():
            return tables.scan_parquet(root)
        if (root / tables.LABELS).is_file():
            return tables.scan_csv(root)
        return _scan_classes(root, exclude=frozenset(one.resolve() for one in exclude))
    except OSError as error:
        raise TaskError(f"the task folder cannot be read; check its rights, but got {error}") from error


def _scan_classes(root: Path, *, exclude: frozenset[Path]) -> Scan:
    found = _Found(root=root, exclude=exclude)
    folders = list(_folders(root, found=found, own=_OWN_FILES))
    parts = {folder: split_part(folder.name) for folder in folders}
    notes: list[str] = []
    if _is_split(folders):
        for folder, part in parts.items():
            if part is None:
                found.skip(folder, "folder beside train, val and test; not used")
            else:
                inners = list(_folders(folder, found=found))
                if not inners:
                    notes.append(f"{folder.name}/ holds no class folder and was not used")
                for inner in inners:
                    _collect(inner, part=part, found=found)
        if not any(part == "train" for part in parts.values()):
            raise TaskError(
                f"a folder with splits needs train/<class>/*, but got {shown([one.name for one in folders])} ({root})"
            )
        if not any(part in {"val", "test"} for part in parts.values()):
            notes.append("only train/ was given: val and test were split from it")
            found.entries = [Entry(path=entry.path, label=entry.label, part=None) for entry in found.entries]
    else:
        for folder in folders:
            _collect(folder, part=None, found=found)
    return scan_of_files(root, labels=found.labels, entries=found.entries, stray=found.stray, notes=notes)


def _is_split(folders: Sequence[Path]) -> bool:
    """Splits, not classes that happen to be called train: all are split names, or at least two are and hold folders."""
    named = [folder for folder in folders if split_part(folder.name) is not None]
    holding = [folder for folder in named if any(one.is_dir() and not is_ignored(one.name) for one in folder.iterdir())]
    if not holding:
        if len(named) > 1 and len(named) == len(folders):
            raise TaskError(
                f"a folder with splits needs class folders in each, as in train/<class>/*, but got none in "
                f"{shown([folder.name for folder in named])} ({named[0].parent})"
            )
        return False
    return len(named) == len(folders) or {"train"} < {split_part(folder.name) for folder in holding}


def _children(parent: Path, *, found: _Found) -> Iterator[Path]:
    """Files and folders of ``parent`` in order, without links that are refused."""
    for path in sorted(parent.iterdir()):
        if is_ignored(path.name) or (path.is_dir() and path.resolve() in found.exclude):
            continue
        if path.is_symlink() and not (path.is_file() and inside(path, found.root)):
            found.skip(path, _link_reason(path, found.root))
        else:
            yield path


def _folders(parent: Path, *, found: _Found, own: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Folders of ``parent`` in order; its files are listed as stray."""
    for path in _children(parent, found=found):
        if path.is_dir():
            yield path
        elif path.name not in own:
            found.skip(path, "not in a class folder")


def _collect(folder: Path, *, part: Part | None, found: _Found) -> None:
    label = nfc(folder.name)
    found.labels.add(label)
    for path in _files(folder, found=found):
        found.entries.append(Entry(path=path.relative_to(found.root).as_posix(), label=label, part=part))


def _files(folder: Path, *, found: _Found) -> Iterator[Path]:
    """Every file of a folder, to any depth."""
    inner = []
    for path in _children(folder, found=found):
        if path.is_dir():
            inner.append(path)
        else:
            yield path
    for path in inner:
        yield from _files(path, found=found)


def _link_reason(path: Path, root: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "refused: the link leads in a circle"
    if not inside(path, root):
        return "refused: the link leads out of the task folder"
    return "refused: links to folders are not followed" if path.is_dir() else "refused: the link leads nowhere"
