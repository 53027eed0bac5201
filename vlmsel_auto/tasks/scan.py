"""What a task folder says before any image is opened: records shared by the layouts, and checks of paths."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vlmsel_auto.cache import digest
from vlmsel_auto.records import BadFile, IntArray, Metric

__all__ = [
    "DEFAULT_TEMPLATES",
    "Declaration",
    "Entry",
    "Files",
    "Part",
    "Scan",
    "Source",
    "inside",
    "is_ignored",
    "nfc",
    "printable",
    "prompt_of",
    "shown",
    "split_part",
]

Part = Literal["train", "val", "test"]
DEFAULT_TEMPLATES = ("a photo of a {}.",)
_PARTS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_IGNORED = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_SHOWN = 5  # names that an error message lists


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One labelled image that the folder names."""

    path: str  # relative to the task folder, with "/"
    label: str  # class name, Unicode NFC
    part: Part | None  # None: the folder gives no split


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """How to speak of the task: what task.toml or task.json says, or defaults."""

    name: str
    domain: str = "images"
    metric: Metric = "accuracy"
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    prompts: tuple[tuple[str, str], ...] = ()  # (class, what a template's {} becomes) where given


class Source(Protocol):
    """Where the encoded images of the entries come from."""

    def key(self, positions: IntArray) -> str:
        """Digest of everything that determines the content of the entries at ``positions``, without reading it all."""
        ...

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """The encoded images at ``positions`` (sorted), in order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """All that a task folder names."""

    root: Path  # resolved
    declaration: Declaration
    classes: tuple[str, ...]  # sorted, or in the order of task.json
    entries: tuple[Entry, ...]
    source: Source
    stray: tuple[BadFile, ...] = ()  # files in places where no image belongs, refused links
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Images that are files below ``root``."""

    root: Path
    paths: tuple[str, ...]

    def key(self, positions: IntArray) -> str:
        """Digest of paths, sizes and times. The change time is in it: it moves even where tools restore the others."""
        lines: list[str] = [str(self.root)]
        for place in positions:
            path = self.paths[place]
            try:
                status = (self.root / path).stat()
            except OSError:  # decoding will say why
                lines.append(f"{path}|")
                continue
            lines.append(f"{path}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}")
        return digest("\n".join(lines))

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """Paths of the images at ``positions``."""
        for place in positions:
            yield self.root / self.paths[place]


def is_ignored(name: str) -> bool:
    """Whether a file or folder is of the operating system or hidden, and passed over in silence."""
    return name.startswith(".") or name.lower() in _IGNORED


def inside(path: Path, root: Path) -> bool:
    """Whether ``path``, links followed, lies below the resolved ``root``."""
    try:
        return path.resolve(strict=False).is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


def split_part(name: str) -> Part | None:
    """The part that a folder or a cell of a split column names, in any case; None: not one."""
    return _PARTS.get(name.strip().lower())


def printable(name: str) -> str:
    """A file name that can be written as UTF-8: bytes that are none become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def nfc(text: str) -> str:
    """Unicode NFC: macOS writes decomposed names, people type composed ones. Bytes that are no UTF-8 become U+FFFD."""
    return unicodedata.normalize("NFC", printable(text))


def prompt_of(label: str) -> str:
    """What a template says of a class that has no prompt of its own: its name with _ and - as spaces."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def shown(names: Sequence[str]) -> str:
    """The first few names for a message, and how many there are."""
    head = ", ".join(repr(name) for name in names[:_SHOWN])
    return head if len(names) <= _SHOWN else f"{head}, ... ({len(names):,} in all)"
