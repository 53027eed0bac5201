"""Task folders of a library's sources: in folders of many, and written of webdatasets and of saved data sets.

``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` of Hugging Face's ``datasets`` wrote a saved data set;
`tasks.datasets` says which columns it needs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import InputError, LibraryError, MissingDependency, TaskError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.measuring import webdatasets
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.tasks.datasets import columns_of, write_dataset
from vlmsel_auto.tasks.file_names import shown
from vlmsel_auto.tasks.split import SPLITS

_MARKS: Final = ("task.json", "task.toml", "labels.csv")
_STATE: Final = "state.json"  # of a saved data set
_STATES: Final = "dataset_dict.json"  # of several, by split
_LEAST: Final = 2  # images of a class, and classes, that a source task needs


def source_tasks(
    paths: Sequence[Path], *, hub_tasks: Sequence[str] = (), images: int, into: Path, sink: Sink = discard
) -> tuple[Path, ...]:
    """The task folders of all sources, each once; of data sets some images are written as task folders.

    Args:
        paths: task folders, folders of many, webdatasets (`webdatasets.is_webdataset`) or saved data sets.
        hub_tasks: webdatasets of the hub, as for `webdatasets.open_webdataset`.
        images: taken of each webdataset and each saved data set.
        into: folder of what is written.
        sink: is told what is left out.

    Raises:
        LibraryError: a folder holds no task.
        TaskError: a data set cannot be had or used.
        MissingDependency: a saved data set needs datasets.
    """
    folders: list[Path] = []
    archives = list(hub_tasks)
    for path in paths:
        if webdatasets.is_webdataset(path):
            archives.append(str(path))
        elif (path / _STATES).is_file() or (path / _STATE).is_file():
            folders.append(saved_dataset_folder(path, images=images, into=into / "datasets", sink=sink))
        else:
            folders += task_folders(path)
    folders += [webdatasets.task_folder(one, images=images, into=into / "webdatasets", sink=sink) for one in archives]
    return tuple(dict.fromkeys(folders))


def task_folders(root: Path) -> tuple[Path, ...]:
    """The task folders in a folder of many, by name; the folder itself if it is one.

    A folder is a task when it holds ``task.json``, ``task.toml``, ``labels.csv`` or splits, or else class folders with
    no folder in them. What is in it is checked when it is loaded.

    Raises:
        LibraryError: there is no such folder, or it holds none.
    """
    if not root.is_dir():
        raise LibraryError(f"there is no folder of tasks at this path, but got {root}")
    inside = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if _is_marked(root) or set(SPLITS) & {one.name for one in inside}:
        return (root,)
    found = tuple(one for one in inside if _is_marked(one) or any(child.is_dir() for child in one.iterdir()))
    if found:
        return found
    if inside:  # class folders
        return (root,)
    raise LibraryError(f"this folder holds no task folder (each with task.toml or class folders), but got {root}")


def _is_marked(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS)


def saved_dataset_folder(path: Path, *, images: int, into: Path, sink: Sink = discard) -> Path:
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
        by_split = _read(path)
        chosen, note = _chosen(by_split, count=images)
        some = {split: by_split[split].select(places) for split, places in chosen.items() if places}
        made = write_dataset(some, folder=folder, name=name, domain="data set")
    except (OSError, ValueError, KeyError) as error:  # InputError is a ValueError, and so are Arrow's
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise TaskError(f"this saved data set cannot be used: {reason}, but got {str(path)!r}") from error
    if note:
        sink(Notice(text=f"{name}: {note}"))
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


def _chosen(by_split: Mapping[str, Any], *, count: int) -> tuple[dict[str, list[int]], str]:
    """Sorted places by split of ``count`` images at most, and a note on classes that are left out.

    A random image of every class is taken, then another, and so on. The first one of a class is of the first split that
    is given, which trains, where it has one.

    Raises:
        InputError: fewer than two classes can be taken.
    """
    first = next(iter(by_split))
    column = columns_of(by_split[first])[1]
    rows = [
        (label, split, place)
        for split, one in by_split.items()
        for place, label in enumerate(one[columns_of(one)[1]])
        if label is not None and label != -1
    ]
    often = Counter(label for label, _, _ in rows)
    kept = sorted(label for label, times in often.items() if times >= _LEAST)[: count // _LEAST]
    if len(kept) < _LEAST:
        raise InputError(f"a source task needs two classes with two labelled images each, but got {len(kept)}")
    drawn: dict[Any, list[tuple[str, int]]] = {label: [] for label in kept}
    for number in np.random.default_rng(0).permutation(len(rows)):
        label, split, place = rows[number]
        if label in drawn:
            drawn[label].append((split, place))
    for each in drawn.values():
        each.insert(0, each.pop(next((at for at, (split, _) in enumerate(each) if split == first), 0)))
    taken = [one for turn in zip_longest(*drawn.values()) for one in turn if one is not None][:count]
    names = getattr(by_split[first].features[column], "names", None)
    left_out = [str(label) if names is None else names[label] for label in sorted(often.keys() - set(kept))]
    note = f"{count} images do for {len(kept)} classes; left out: {shown(left_out)}" if left_out else ""
    return {split: sorted(place for at, place in taken if at == split) for split in by_split}, note
