"""Data sets in memory as task folders: pairs of image and label, torch's data sets, and those of Hugging Face.

Neither torch nor datasets is imported: what is given is told by what it has.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.in_memory import ImageLike, Item, write_task
from vlmsel_auto.tasks.scan import split_name


class Pairs(Protocol):
    """A sequence of pairs of image and label, such as torch's ``Dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


TaskData: TypeAlias = str | PathLike[str] | Pairs | Mapping[str, Pairs]  # a folder, a data set, or one for each split

_LABELS: Final = ("label", "labels", "class", "fine_label")  # columns of Hugging Face's data sets


def write_dataset(data: Pairs | Mapping[str, Pairs], *, folder: Path, name: str = "", domain: str = "") -> Path:
    """Write a data set as a task folder and return it; what an earlier call wrote there is replaced.

    Args:
        data: pairs of image and label (a list of them, or torch's ``Dataset`` as torchvision has them, its ``classes``
            or ``categories`` naming the labels), a Hugging Face ``Dataset`` with an image and a label column, or a
            mapping of such by split. An image is a path, a Pillow image, uint8 pixels (H, W, 3), or a tensor (3, H, W)
            of uint8 or of floats in [0, 1]. A label of None, or -1 in a Hugging Face data set, is none.
        folder: is made.
        name: of the task; empty: that of the folder.
        domain: what the images are; empty: nothing is said.

    Raises:
        InputError: data of another form, or an image that is none.
    """
    splits = dict(data) if isinstance(data, Mapping) else {"": data}
    unknown = [name for name in splits if name and split_name(name) is None]
    if unknown:
        raise InputError(f"splits must be train, val and test, but got {', '.join(map(repr, unknown))}")
    if not splits or not sum(_length(pairs) for pairs in splits.values()):
        raise InputError("a data set needs at least one image, but got none")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_task(
            (item for split, pairs in splits.items() for item in _items(pairs, split=split)),
            folder=folder, name=name, domain=domain,
        )  # fmt: skip
    except BaseException:  # half a data set is none
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def task_folder(data: TaskData, *, folder: Path, while_writing: AbstractContextManager[None] | None = None) -> Path:
    """The task folder: the one that was named, or ``folder``, where the data set is written.

    Args:
        data: a folder's path, or a data set.
        folder: as for `write_dataset`.
        while_writing: entered while a data set is written, such as a lock.

    Raises:
        InputError: as `write_dataset`.
    """
    if isinstance(data, (str, PathLike)):
        return Path(data)
    with while_writing or nullcontext():
        return write_dataset(data, folder=folder)


def _length(pairs: Pairs) -> int:
    try:
        return len(pairs)
    except TypeError as error:
        raise InputError(
            f"a data set must have a length and places; take a part of a stream into a list first, but got "
            f"{type(pairs).__name__}"
        ) from error


def _items(pairs: Pairs, *, split: str) -> Iterator[Item]:
    if hasattr(pairs, "column_names"):
        yield from _of_hugging_face(pairs, split=split)
        return
    names = _class_names(pairs)
    for number in range(len(pairs)):
        item = pairs[number]
        if not (isinstance(item, (tuple, list)) and len(item) == 2):  # noqa: PLR2004 - a pair
            raise InputError(f"item {number} must be a pair of image and label, but got {type(item).__name__}")
        yield _image(item[0], number), _name(item[1], names, number), split


def _columns(pairs: Any) -> tuple[str, str]:
    """Image and label column of a Hugging Face data set.

    Raises:
        InputError: it has not one image column, or no label column.
    """
    features = pairs.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    labels = classes or [name for name in _LABELS if name in features]
    if len(images) != 1 or not labels:
        raise InputError(
            "a Hugging Face data set needs one image column and a label column (ClassLabel, or named "
            f"{'/'.join(_LABELS)}), but got {', '.join(features)}"
        )
    return images[0], labels[0]


def _of_hugging_face(pairs: Any, *, split: str) -> Iterator[Item]:
    images, labels = _columns(pairs)
    names = getattr(pairs.features[labels], "names", None)  # of a ClassLabel
    encoded = pairs.cast_column(images, type(pairs.features[images])(decode=False))
    for number, row in enumerate(encoded):
        found, label = row[images], row[labels]
        image = found["path"] if found["bytes"] is None else found["bytes"]
        yield image, _name(None if label == -1 else label, names, number), split


def _class_names(pairs: Any) -> Sequence[str] | None:
    """The texts of numbers, also of a subset."""
    while pairs is not None:
        for name in ("classes", "categories"):
            found = getattr(pairs, name, None)
            if isinstance(found, (list, tuple)):
                return [str(each) for each in found]
        pairs = getattr(pairs, "dataset", None)
    return None


def _name(label: Any, names: Sequence[str] | None, number: int) -> str | None:
    shape = getattr(label, "shape", ())
    if math.prod(shape) != 1:
        raise InputError(
            f"the label of item {number} must be a text or a whole number, but got {type(label).__name__} of "
            f"{tuple(shape)}"
        )
    value = label.item() if hasattr(label, "item") else label
    if value is None:
        return None
    if isinstance(value, (int, np.integer)) and names is not None:
        if not 0 <= value < len(names):
            raise InputError(f"the label of item {number} must be one of {len(names)} classes, but got {value}")
        return names[int(value)]
    if not isinstance(value, (str, int)):
        raise InputError(f"the label of item {number} must be a text or a whole number, but got {value!r}")
    if not str(value).strip():
        raise InputError(f"the label of item {number} must not be empty; None stands for none, but got {value!r}")
    return str(value)


def _image(image: Any, number: int) -> ImageLike:
    if not hasattr(image, "detach"):  # no tensor
        return image  # type: ignore[no-any-return]  # `given` says what it cannot use
    given = image.detach().cpu()
    try:
        pixels = given.numpy()
    except TypeError:  # NumPy has no bfloat16
        pixels = given.float().numpy()
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):  # noqa: PLR2004 - channels first
        raise InputError(f"a tensor of item {number} must be (3, H, W), but got {tuple(pixels.shape)}")
    if not pixels.size:
        raise InputError(f"a tensor of item {number} must have pixels, but got {tuple(pixels.shape)}")
    if pixels.dtype != np.uint8:
        if not (np.isfinite(pixels).all() and pixels.min() >= 0.0 and pixels.max() <= 1.0):
            raise InputError(
                f"a tensor of item {number} must be uint8, or floats in [0, 1] that are not normalised yet, but got "
                f"{pixels.dtype} from {pixels.min():.3g} to {pixels.max():.3g}"
            )
        pixels = np.round(255.0 * pixels).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
