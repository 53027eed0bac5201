"""Task folders whose labels stand in a table: images with labels.csv, or images.parquet with task.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import InputError, MissingDependency, TaskError
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import BadFile, IntArray
from vlmsel_auto.tasks.declaration import Declaration, check_templates
from vlmsel_auto.tasks.labeltable import LABELS, LabelTable, below, locate, read_table
from vlmsel_auto.tasks.names import inside, nfc, prompt_of, shown
from vlmsel_auto.tasks.scan import Entry, Scan, scan_of_files, split_part

IMAGES = "images.parquet"
_BATCH = 256  # rows of encoded images held in memory


def scan_csv(root: Path, *, named: Sequence[str] | None = None) -> Scan:
    """List the rows of ``root``/labels.csv: image paths, relative to ``root``/images or ``root``, and labels.

    Labels must be among the classes ``named``, where there are any. Images that have no row are not listed.

    Raises:
        TaskError: as `read_rows`, or labels that are none of the classes.
    """
    entries, refused = read_rows(root)
    return scan_of_files(root, labels=(entry.label for entry in entries), entries=entries, stray=refused, named=named)


def read_rows(root: Path) -> tuple[list[Entry], list[BadFile]]:
    """The rows of ``root``/labels.csv, and those that are refused since they lead out of ``root`` (resolved).

    Raises:
        TaskError: as `labeltable.read_table`, or files that are missing.
    """
    return _entries(read_table(root / LABELS), root=root)


def _entries(table: LabelTable, *, root: Path) -> tuple[list[Entry], list[BadFile]]:
    entries: dict[Entry, None] = {}
    refused: list[BadFile] = []
    missing: list[str] = []
    for row in table.rows:
        file = table.path(row)
        found = locate(file, root=root)
        if found is None:
            missing.append(file)
        elif not inside(found, root):
            refused.append(BadFile(path=file, reason="refused: the path leads out of the task folder"))
        else:
            entry = Entry(path=below(found, root), label=table.label(row), part=split_part(table.split(row)))
            if entry in entries:
                refused.append(BadFile(path=entry.path, reason=f"named more than once in {LABELS}", used=True))
            entries[entry] = None
    if missing:
        raise TaskError(
            f"{root / LABELS} names files that are neither in {root / 'images'} nor in {root} (paths that begin with "
            f"./ must be there), but got {shown(missing)}"
        )
    return list(entries), refused


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Encoded images in the rows of a parquet file."""

    path: Path

    def key(self, positions: IntArray) -> str:
        """Digest of the file's size and times, and of the wanted rows."""
        status = self.path.stat()
        rows = ",".join(str(place) for place in positions)
        return digest(str(self.path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, rows)

    def encoded_bytes(self, positions: IntArray) -> int:  # noqa: ARG002 - one file, whatever is taken of it
        """Bytes of the file."""
        return self.path.stat().st_size

    def images(self, positions: IntArray) -> Iterable[Path | bytes]:
        """Bytes of the wanted rows; a missing value gives no bytes, which decoding refuses as an empty file."""
        with _damage_told(self.path):
            file, bounds = self._groups()
            within = np.searchsorted(bounds, positions, side="right") - 1
            for group in np.unique(within):
                wanted = set(positions[within == group].tolist())
                row = int(bounds[group])
                for batch in file.iter_batches(batch_size=_BATCH, columns=["image"], row_groups=[int(group)]):
                    for value in batch.column(0):
                        if row in wanted:
                            yield value.as_py() or b""
                        row += 1

    def beside(self, positions: IntArray) -> IntArray:
        """All rows of the same row groups: these are read whole."""
        with _damage_told(self.path):
            _, bounds = self._groups()
        groups = np.unique(np.searchsorted(bounds, positions, side="right") - 1)
        return np.concatenate([np.arange(bounds[each], bounds[each + 1]) for each in groups])

    def _groups(self) -> tuple[Any, IntArray]:
        """The open file, and the first row of each row group and of the one after the last."""
        file = _open(self.path)
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return file, np.cumsum([0, *rows], dtype=np.int64)


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
        raise TaskError(f"images.parquet cannot be read as parquet ({error}), but got {str(path)!r}") from error
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
        raise TaskError(f"no image was found: a row for each is needed, but got no rows in {str(path)!r}")
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


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except _arrow_errors() as error:
        raise TaskError(f"images.parquet is damaged ({error}), but got {str(path)!r}") from error


def _arrow_errors() -> tuple[type[Exception], ...]:
    """What a damaged file raises; asked for only after `_open` has found pyarrow."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        return (OSError,)
    return (OSError, ArrowException)


def _read_json(path: Path) -> tuple[tuple[str, ...], Declaration]:
    try:
        table = parse_json(path.read_bytes())
    except (OSError, InputError) as error:
        raise TaskError(
            f"{IMAGES} needs a task.json with name, domain, classes and templates beside it ({error}), "
            f"but got {str(path)!r}"
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
        names_templates=True,
        prompts=tuple((label, prompt_of(label)) for label in classes),
    )
