"""Task folders of one table: images.parquet, each row with an encoded image and its label, and task.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import InputError, MissingDependency, TaskError
from vlmsel_auto.recordjson import decode, parse_json
from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.class_names import check_class_names, prompt_of
from vlmsel_auto.tasks.declaration import Declaration, check_templates
from vlmsel_auto.tasks.file_names import shown
from vlmsel_auto.tasks.scan import ListedImage, Scan, split_name

IMAGES = "images.parquet"
_BATCH = 256  # rows of encoded images held in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class _ParquetImages:
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
        with _opened(self.path) as file:
            lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = np.cumsum([0, *lengths])
            groups = np.unique(np.searchsorted(starts, positions, side="right") - 1).tolist()
            wanted = set(positions.tolist())
            rows = chain.from_iterable(range(starts[group], starts[group + 1]) for group in groups)
            for batch in file.iter_batches(batch_size=_BATCH, columns=["image"], row_groups=groups):
                for value, row in zip(batch.column(0), rows, strict=False):  # rows go on in the next batch
                    if row in wanted:
                        yield value.as_py() or b""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as pyarrow sees it; pyarrow ships no types.

    Raises:
        TaskError: it is damaged.
        MissingDependency: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependency(
            "reading images.parquet needs pyarrow; install it with: pip install 'vlmsel-auto[parquet]'"
        ) from error
    try:
        yield ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise TaskError(f"images.parquet cannot be read as parquet ({error}), but got {str(path)!r}") from error


def scan_parquet(root: Path) -> Scan:
    """List the rows of ``root``/images.parquet.

    Raises:
        TaskError: Without a usable task.json, columns, labels or splits.
        MissingDependency: pyarrow is not installed.
    """
    path = root / IMAGES
    classes, declaration = _read_json(root / "task.json")
    with _opened(path) as file:
        columns = [name for name in ("label", "split") if name in file.schema_arrow.names]
        if "image" not in file.schema_arrow.names or "label" not in columns:
            raise TaskError(f"{path} needs the columns image and label, but got {shown(file.schema_arrow.names)}")
        table = file.read(columns=columns)
        labels = table.column("label").to_pylist()
        splits = table.column("split").to_pylist() if "split" in columns else [None] * len(labels)
    wrong = sorted({repr(label) for label in labels if not (type(label) is int and 0 <= label < len(classes))})
    if wrong:
        raise TaskError(
            f"labels in {path} must be integers from 0 to {len(classes) - 1}, but got {', '.join(wrong[:5])}"
        )
    named = [None if one is None else split_name(str(one)) for one in splits]
    unknown = sorted({repr(one) for one, name in zip(splits, named, strict=True) if one is not None and name is None})
    if unknown or 0 < named.count(None) < len(named):
        raise TaskError(
            f"the column split of {path} must say train, val or test in every row, but got {unknown or 'gaps'}"
        )
    entries = tuple(
        ListedImage(path=f"{IMAGES}/{row:06d}", label=classes[label], split=split)
        for row, (label, split) in enumerate(zip(labels, named, strict=True))
    )
    if not entries:
        raise TaskError(f"no image was found: a row for each is needed, but got no rows in {str(path)!r}")
    return Scan(root=root, declaration=declaration, classes=classes, entries=entries, source=_ParquetImages(path=path))


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskJson:
    """What task.json must hold; other keys are passed over."""

    classes: tuple[str, ...]  # in label order
    templates: tuple[str, ...]
    slug: str = ""  # a short name that is also a file name suits tables better than a title
    name: str = ""
    domain: str = "images"


def _read_json(path: Path) -> tuple[tuple[str, ...], Declaration]:
    try:
        told = decode(TaskJson, parse_json(path.read_bytes()))
    except (OSError, InputError) as error:
        raise TaskError(
            f"{IMAGES} needs a task.json with name, domain, classes and templates beside it ({error}), "
            f"but got {str(path)!r}"
        ) from error
    classes = check_class_names(told.classes, where=str(path))
    return classes, Declaration(
        name=told.slug or told.name or path.parent.name,
        domain=told.domain,
        templates=check_templates(told.templates, where=str(path)),
        names_templates=True,
        prompts=tuple((label, prompt_of(label)) for label in classes),
    )
