"""Names of files: what of them counts, what can be written, and how messages show names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

_IGNORED = frozenset({"__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
# files that a search keeps in its work directory from the start
SEARCH_SETTINGS = "search.json"
SEARCH_LOCK = "search.lock"
_SHOWN = 5  # names that an error message lists


def is_ignored(name: str) -> bool:
    """Whether a file or folder is of the operating system or hidden, and passed over in silence."""
    return name.startswith(".") or name.lower() in _IGNORED


def is_workdir(folder: Path) -> bool:
    """Whether a folder is the work directory of a search, whose pixels are no images of the task around it."""
    return any((folder / name).is_file() for name in (SEARCH_SETTINGS, SEARCH_LOCK))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where not even that can be asked: no rights, or no name of a file system."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def inside(path: Path, root: Path) -> bool:
    """Whether ``path``, links followed, lies below the resolved ``root``."""
    try:
        return path.resolve(strict=False).is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


def printable(name: str) -> str:
    """A file name that can be written as UTF-8: bytes that are none become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def nfc(text: str) -> str:
    """Unicode NFC: macOS writes decomposed names, people type composed ones. Bytes that are no UTF-8 become U+FFFD."""
    return unicodedata.normalize("NFC", printable(text))


def shown(names: Sequence[str]) -> str:
    """The first few names for a message, and how many there are."""
    return listed([repr(name) for name in names])


def listed(parts: Sequence[str]) -> str:
    """The first few parts of a message, and how many there are."""
    head = ", ".join(parts[:_SHOWN])
    return head if len(parts) <= _SHOWN else f"{head}, ... ({len(parts):,} in all)"
