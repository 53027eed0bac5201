"""What a task folder names before any image is opened: records that all layouts share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile, IntArray
from vlmsel_auto.tasks.class_names import alike, prompt_of
from vlmsel_auto.tasks.declaration import Declaration, read_declaration
from vlmsel_auto.tasks.file_names import shown

SplitName = Literal["train", "val", "test"]
_SPLITS: dict[str, SplitName] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LAYOUTS = (
    "<class>/*, {train,val,test}/<class>/*, images with labels.csv, labelled/<class>/* beside unlabelled/*, or images "
    "without labels and the names of their classes (--classes, or classes in task.toml)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """One image that the folder names."""

    path: str  # relative to the task folder, with "/"
    label: str  # class name, Unicode NFC; empty where nothing is labelled
    split: SplitName | None  # None: the folder gives none
    group: str = ""  # of images that belong together, as labels.csv says; empty: none


class ImageSource(Protocol):
    """Where the encoded images of the entries come from."""

    def key(self, positions: IntArray) -> str:
        """Digest of everything that determines the content of the entries at ``positions``, without reading it all."""
        ...

    def encoded_bytes(self, positions: IntArray) -> int:
        """Bytes of the encoded images, about."""
        ...

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """The encoded images at ``positions`` (sorted), in order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """All that a task folder names."""

    root: Path  # resolved
    declaration: Declaration
    classes: tuple[str, ...]  # sorted, or in the order in which they were named
    entries: tuple[ListedImage, ...]
    source: ImageSource
    stray: tuple[BadFile, ...] = ()  # files in places where no image belongs, refused links
    notes: tuple[str, ...] = ()
    labelled: bool = True  # False: no entry has a label
    unlabelled: tuple[str, ...] = ()  # paths of files that have none, of a folder that is partly labelled

    @property
    def prompts(self) -> tuple[str, ...]:
        """What a template says of each class."""
        given = dict(self.declaration.prompts)
        return tuple(given.get(label, prompt_of(label)) for label in self.classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Images that are files below ``root``."""

    root: Path
    paths: tuple[str, ...]

    def key(self, positions: IntArray) -> str:
        """Digest of paths, sizes and times. The change time is in it: it moves even where tools restore the others."""
        lines = [str(self.root)]
        for place in positions:
            status = self._status(place)  # decoding will say why there is none
            said = "" if status is None else f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"
            lines.append(f"{self.paths[place]}|{said}")
        return digest("\n".join(lines))

    def encoded_bytes(self, positions: IntArray) -> int:
        """Bytes of the files; one that cannot be read counts for nothing."""
        return sum(status.st_size for place in positions if (status := self._status(place)) is not None)

    def _status(self, place: int) -> os.stat_result | None:
        try:
            return (self.root / self.paths[place]).stat()
        except OSError:
            return None

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """Paths of the images at ``positions``."""
        for place in positions:
            yield self.root / self.paths[place]


def scan_of_files(
    root: Path,
    *,
    labels: Iterable[str],
    entries: Sequence[ListedImage],
    stray: Sequence[BadFile],
    notes: Sequence[str] = (),
    named: Sequence[str] | None = None,
    labelled: bool = True,
) -> Scan:
    """The scan of a folder whose images are files, with what its task.toml says.

    ``named`` are the classes that the user named: all that labels may be, and of unlabelled images all there are.

    Raises:
        TaskError: No image, unlabelled ones without names of classes, labels that are none of these, or a task.toml
            that cannot be used.
    """
    if not entries or not (labelled or named):
        raise TaskError(
            f"no image was found that has a class: a task folder holds {LAYOUTS}, "
            f"but got {len(entries):,} files without a label in {str(root)!r}"
        )
    found = set(labels) if labelled else set()
    classes = tuple(named) if named else tuple(sorted(found))  # the user's order is that of keys and of digests
    foreign = sorted(found - set(classes))
    if foreign:
        raise TaskError(
            f"folders and labels must be among the classes that were named ({shown(named or ())}); give --unlabelled "
            f"where folders are no classes, but got {shown(foreign)} ({root})"
        )
    return Scan(
        root=root,
        declaration=read_declaration(root, classes=classes),
        classes=classes,
        entries=tuple(entries),
        source=Files(root=root, paths=tuple(entry.path for entry in entries)),
        stray=tuple(stray),
        notes=(*notes, *alike(classes)),
        labelled=labelled,
    )


def split_name(text: str) -> SplitName | None:
    """The split that a folder or a cell of a split column names, in any case; None: not one."""
    return _SPLITS.get(text.strip().lower())
