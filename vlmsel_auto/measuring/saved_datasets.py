"""Some images of a data set that Hugging Face's ``datasets`` saved to this disk, as a task folder.

``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` wrote it; `tasks.datasets` says which columns it needs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import InputError, MissingDependency, TaskError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.tasks.datasets import columns_of, write_dataset
from vlmsel_auto.tasks.file_names import shown

_STATE: Final = "state.json"  # of a data set
_SPLITS: Final = "dataset_dict.json"  # of several, by split
_LEAST: Final = 2  # images of a class, and classes, that a source task needs


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder of this disk is one, or one for each split."""
    return (path / _SPLITS).is_file() or (path / _STATE).is_file()


def task_folder(path: Path, *, images: int, into: Path, sink: Sink = discard) -> Path:
    """Some images of a saved data set as a task folder below ``into``; the same call finds it again.

    Args:
        path: where it was saved.
        images: that are taken, of all splits together; of every class as many as possible, of the first ``images`` / 2
            classes where there are more.
        into: folder of such task folders.
        sink: is told which classes are left out.

    Raises:
        TaskError: it cannot be read, has no image or label column, or too few images of two classes.
        MissingDependency: datasets is not installed.
    """
    name = path.resolve().name
    try:
        states = [parse_json(state.read_bytes()) for state in sorted(path.rglob(_STATE))]
        folder = into / f"{name}-{digest(json.dumps(states, sort_keys=True), images)[:12]}"
        if (folder / "task.toml").is_file():
            return folder
        parts = _read(path)
        kept, left_out = _classes(parts, images=images)
        chosen = _spread([_labels(part) for part in parts.values()], kept, count=images)
        some = {split: part.select(at) for (split, part), at in zip(parts.items(), chosen, strict=True) if at}
        made = write_dataset(some, folder=folder, name=name, domain="data set")
    except (OSError, ValueError, KeyError) as error:  # InputError is a ValueError, and so are Arrow's
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise TaskError(f"this saved data set cannot be used: {reason}, but got {str(path)!r}") from error
    if left_out:
        sink(Notice(text=f"{name}: {images} images do for {len(kept)} classes; left out: {shown(left_out)}"))
    return made


def _read(path: Path) -> Mapping[str, Any]:
    """The data sets by split, "" for one without; datasets ships no types that help here."""
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise MissingDependency(
            "reading a saved data set needs datasets; install it with: pip install 'vlmsel-auto[datasets]'"
        ) from error
    found: Any = load_from_disk(str(path))
    return {"": found} if isinstance(found, Dataset) else dict(found)


def _labels(part: Any) -> Sequence[Any]:
    _, column = columns_of(part)
    return [None if label == -1 else label for label in part[column]]


def _classes(parts: Mapping[str, Any], *, images: int) -> tuple[set[Any], list[str]]:
    """Labels that are taken, and names of the others.

    Raises:
        InputError: fewer than two can be.
    """
    counts = Counter(label for part in parts.values() for label in _labels(part) if label is not None)
    usable = sorted(label for label, count in counts.items() if count >= _LEAST)
    kept = set(usable[: images // _LEAST])
    if len(kept) < _LEAST:
        raise InputError(f"a source task needs two classes with two labelled images each, but got {len(kept)}")
    part = next(iter(parts.values()))
    names = getattr(part.features[columns_of(part)[1]], "names", None)
    others = sorted(label for label in counts if label not in kept)
    return kept, [str(label) if names is None else names[label] for label in others]


def _spread(labels: Sequence[Sequence[Any]], kept: set[Any], *, count: int) -> list[list[int]]:
    """Sorted places by split of ``count`` images at most: a random one of every class, then another, and so on.

    The first one of a class is of the first split that is given, which trains, where it has one.
    """
    places = [(split, place) for split, part in enumerate(labels) for place in range(len(part))]
    drawn: dict[Any, list[tuple[int, int]]] = {label: [] for label in kept}
    for number in np.random.default_rng(0).permutation(len(places)).tolist():
        split, place = places[number]
        if labels[split][place] in kept:
            drawn[labels[split][place]].append((split, place))
    turns: list[tuple[int, tuple[int, int]]] = []
    for each in drawn.values():
        first = min(range(len(each)), key=lambda turn: each[turn][0] > 0)
        turns += enumerate([each[first], *each[:first], *each[first + 1 :]])
    chosen = [where for _, where in sorted(turns, key=lambda one: one[0])[:count]]
    return [sorted(place for at, place in chosen if at == split) for split in range(len(labels))]
