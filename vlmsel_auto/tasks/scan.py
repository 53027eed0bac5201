"""What a task folder says before any image is opened: records that the layouts share, task.toml, and names of files."""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import BadFile, IntArray, Metric

Part = Literal["train", "val", "test"]
DEFAULT_TEMPLATES = ("a photo of a {}.",)
_PARTS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_IGNORED = frozenset({"__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
_SHOWN = 5  # names that an error message lists
_KEYS = ("name", "domain", "metric", "templates", "prompts", "classes")  # of task.toml
LAYOUTS = (
    "<class>/*, {train,val,test}/<class>/*, images with labels.csv, labelled/<class>/* beside unlabelled/*, or images "
    "without labels and the names of their classes (--classes, or classes in task.toml)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image that the folder names."""

    path: str  # relative to the task folder, with "/"
    label: str  # class name, Unicode NFC; empty where nothing is labelled
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

    def encoded_bytes(self, positions: IntArray) -> int:
        """Bytes of the encoded images, about."""
        ...

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """The encoded images at ``positions`` (sorted), in order."""
        ...

    def beside(self, positions: IntArray) -> IntArray:
        """Positions (sorted) that are best read together with these: at least these."""
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
    labelled: bool = True  # False: no entry has a label

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

    def encoded_bytes(self, positions: IntArray) -> int:
        """Bytes of the files; one that cannot be read counts for nothing."""
        total = 0
        for place in positions:
            with suppress(OSError):
                total += (self.root / self.paths[place]).stat().st_size
        return total

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """Paths of the images at ``positions``."""
        for place in positions:
            yield self.root / self.paths[place]

    def beside(self, positions: IntArray) -> IntArray:
        """These: a file is read by itself."""
        return positions


def scan_of_files(
    root: Path,
    *,
    labels: Iterable[str],
    entries: Sequence[Entry],
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
    classes = tuple(sorted({*labels, *(named or ())})) if labelled else tuple(named or ())
    foreign = sorted(set(classes) - set(named or classes))
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


def declared_classes(root: Path) -> object:
    """What ``root``/task.toml has as classes, unchecked; None: nothing.

    Raises:
        TaskError: it is not a file of TOML.
    """
    return _read_toml(root / "task.toml").get("classes")


def read_declaration(root: Path, *, classes: Sequence[str]) -> Declaration:
    """Read ``root``/task.toml, or return the defaults when there is none.

    Raises:
        TaskError: Not TOML, an unknown key, a value of the wrong type, a template without exactly one {}, or a prompt
            for a class that the folder does not have.
    """
    path = root / "task.toml"
    table = _read_toml(path)
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise TaskError(f"task.toml may hold {', '.join(_KEYS)}, but got the unknown key {shown(unknown)} ({path})")
    metrics: tuple[Metric, ...] = get_args(Metric)
    said = _text(table, "metric", default="accuracy", path=path)
    metric = next((each for each in metrics if each == said), None)
    if metric is None:
        raise TaskError(f"metric in task.toml must be one of {', '.join(metrics)}, but got {said!r} ({path})")
    return Declaration(
        name=_text(table, "name", default=printable(root.name) or "task", path=path),
        domain=_text(table, "domain", default="images", path=path),
        metric=metric,
        templates=check_templates(table.get("templates", list(DEFAULT_TEMPLATES)), where=str(path)),
        prompts=_prompts(table.get("prompts", {}), classes=classes, path=path),
    )


def _read_toml(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    if not path.is_file():  # a pipe would never end
        raise TaskError(f"task.toml must be a file; rename or remove it, but got {str(path)!r}")
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # numbers may be too long, tables too deep
        raise TaskError(f"task.toml cannot be read as TOML in UTF-8 ({error}), but got {str(path)!r}") from error


def check_templates(value: object, *, where: str) -> tuple[str, ...]:
    """Check a list of prompt templates.

    Raises:
        TaskError: Not a list of strings, an empty list, or a template without exactly one {}.
    """
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise TaskError(f"templates must be a list of one or more strings, but got {value!r} ({where})")
    for one in value:
        if one.count("{}") != 1 or one.count("{") != 1 or one.count("}") != 1:
            raise TaskError(
                f'each template must hold one {{}} for the class, as in "a photo of a {{}}.", but got {one!r} ({where})'
            )
    return tuple(value)


def _text(table: Mapping[str, object], key: str, *, default: str, path: Path) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"{key} in task.toml must be a string that is not empty, but got {value!r} ({path})")
    return value.strip()


def _prompts(value: object, *, classes: Sequence[str], path: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise TaskError(f'prompts in task.toml must be a table of class = "text", but got {value!r} ({path})')
    pairs: list[tuple[str, str]] = []
    for label, text in value.items():
        if not isinstance(text, str) or not text.strip():
            raise TaskError(
                f"the prompt of {label!r} in task.toml must be a string that is not empty, but got {text!r} ({path})"
            )
        pairs.append((nfc(label), text.strip()))
    unknown = sorted({label for label, _ in pairs} - set(classes))
    if unknown:
        raise TaskError(
            f"prompts in task.toml must name classes of the folder ({shown(classes)}), "
            f"but got {shown(unknown)} ({path})"
        )
    return tuple(pairs)


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


def alike(labels: Sequence[str]) -> tuple[str, ...]:
    """A note where classes differ in case and blanks only: whether they are one, the user knows."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault("".join(label.casefold().split()), label), label) for label in labels]
    twins = [f"{one!r} and {two!r}" for one, two in pairs if one != two]
    if not twins:
        return ()
    more = f", and {len(twins) - _SHOWN:,} more" if len(twins) > _SHOWN else ""
    return (f"classes that differ in case or blanks only were kept apart: {', '.join(twins[:_SHOWN])}{more}",)


def prompt_of(label: str) -> str:
    """What a template says of a class that has no prompt of its own: its name with _ and - as spaces."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def shown(names: Sequence[str]) -> str:
    """The first few names for a message, and how many there are."""
    head = ", ".join(repr(name) for name in names[:_SHOWN])
    return head if len(names) <= _SHOWN else f"{head}, ... ({len(names):,} in all)"
