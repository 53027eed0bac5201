"""Task folders kept as images.parquet (image bytes, label, split) and task.json (name, domain, classes, templates)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import MissingDependency, TaskError
from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.scan import Declaration, Entry, Scan, nfc, prompt_of, shown, split_part
from vlmsel_auto.tasks.tasktoml import check_templates

__all__ = ["IMAGES", "scan_parquet"]

IMAGES = "images.parquet"
_BATCH = 256  # rows of encoded images held in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Encoded images in the rows of a parquet file."""

    path: Path

    def key(self, positions: IntArray) -> str:
        """Digest of the file's size and times, and of the wanted rows."""
        status = self.path.stat()
        rows = ",".join(str(place) for place in positions)
        return digest(str(self.path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, rows)

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """Bytes of the wanted rows; a missing value gives no bytes, which decoding refuses as an empty file."""
        wanted = {int(place) for place in positions}
        row = 0
        try:
            for batch in _open(self.path).iter_batches(batch_size=_BATCH, columns=["image"]):
                for value in batch.column(0):
                    if row in wanted:
                        yield value.as_py() or b""
                    row += 1
        except _arrow_errors() as error:
            raise TaskError(f"{self.path} is damaged: {error}") from error


def scan_parquet(root: Path) -> Scan:
    """List the rows of ``root``/images.parquet.

    Raises:
        TaskError: Without a usable task.json, columns, labels or splits.
        MissingDependency: pyarrow is not installed.
    """
    path = root / IMAGES
    classes, declaration = _read_json(root / "task.json")
    try:
        file = _open(path)
        columns = [name for name in ("label", "split") if name in file.schema_arrow.names]
        if "image" not in file.schema_arrow.names or "label" not in columns:
            raise TaskError(f"{path} needs the columns image and label, but got {shown(file.schema_arrow.names)}")
        table = file.read(columns=columns)
        labels = table.column("label").to_pylist()
        splits = table.column("split").to_pylist() if "split" in columns else [None] * len(labels)
    except _arrow_errors() as error:
        raise TaskError(f"{path} cannot be read as parquet: {error}") from error
    wrong = sorted({repr(label) for label in labels if not (type(label) is int and 0 <= label < len(classes))})
    if wrong:
        raise TaskError(
            f"labels in {path} must be integers from 0 to {len(classes) - 1}, but got {', '.join(wrong[:5])}"
        )
    unknown = sorted({repr(one) for one in splits if one is not None and split_part(str(one)) is None})
    if unknown or 0 < sum(one is None for one in splits) < len(splits):
        raise TaskError(
            f"the column split of {path} must say train, val or test in every row, but got {unknown or 'gaps'}"
        )
    entries = tuple(
        Entry(path=f"{IMAGES}/{row:06d}", label=classes[label], part=None if split is None else split_part(str(split)))
        for row, (label, split) in enumerate(zip(labels, splits, strict=True))
    )
    if not entries:
        raise TaskError(f"no image was found: {path} has no rows")
    return Scan(root=root, declaration=declaration, classes=classes, entries=entries, source=_Rows(path=path))


def _open(path: Path) -> Any:
    """The file as pyarrow sees it; pyarrow ships no types."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependency(
            "reading images.parquet needs pyarrow; install it with: pip install 'vlmsel-auto[parquet]'"
        ) from error
    return ParquetFile(path)


def _arrow_errors() -> tuple[type[Exception], ...]:
    """What a damaged file raises; asked for only after `_open` has found pyarrow."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        return (OSError,)
    return (OSError, ArrowException)


def _read_json(path: Path) -> tuple[tuple[str, ...], Declaration]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(
            f"{IMAGES} needs a task.json with name, domain, classes and templates beside it: {error}"
        ) from error
    if not isinstance(table, dict):
        raise TaskError(f"task.json must hold an object, but got {type(table).__name__} ({path})")
    names = table.get("classes")
    if not isinstance(names, list) or not all(isinstance(one, str) and one.strip() for one in names):
        raise TaskError(f"classes in task.json must be a list of names in label order, but got {names!r} ({path})")
    classes = tuple(nfc(one) for one in names)
    if len(set(classes)) < len(classes):
        raise TaskError(f"classes in task.json must differ, but got {shown(sorted(classes))} ({path})")
    # a short name that is also a file name suits tables better than a title
    name, domain = table.get("slug", table.get("name", path.parent.name)), table.get("domain", "images")
    if not isinstance(name, str) or not isinstance(domain, str):
        raise TaskError(f"name and domain in task.json must be strings, but got {name!r} and {domain!r} ({path})")
    return classes, Declaration(
        name=name or path.parent.name,
        domain=domain,
        templates=check_templates(table.get("templates"), where=str(path)),
        prompts=tuple((label, prompt_of(label)) for label in classes),
    )
