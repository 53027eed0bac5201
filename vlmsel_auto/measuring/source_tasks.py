"""Where a library's source tasks come from: task folders, webdatasets, saved data sets of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmsel_auto.events import Sink, discard
from vlmsel_auto.measuring import saved_datasets, webdatasets
from vlmsel_auto.measuring.build import task_folders


def source_tasks(
    paths: Sequence[Path], *, hub_tasks: Sequence[str] = (), images: int, into: Path, sink: Sink = discard
) -> tuple[Path, ...]:
    """The task folders of all sources, each once; of data sets some images are written as task folders.

    Args:
        paths: task folders, folders of many, webdatasets (`webdatasets.is_webdataset`) or saved data sets
            (`saved_datasets.is_saved_dataset`).
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
        elif saved_datasets.is_saved_dataset(path):
            folders.append(saved_datasets.task_folder(path, images=images, into=into / "datasets", sink=sink))
        else:
            folders += task_folders(path)
    folders += [webdatasets.task_folder(one, images=images, into=into / "webdatasets", sink=sink) for one in archives]
    return tuple(dict.fromkeys(folders))
