"""Images and labels that were given in memory: images as files that `task.load_task` and `predict` read.

Labels are of any hashable kind; they become numbers of classes, and the classes names of folders.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.decode import upright_rgb
from vlmsel_auto.tasks.file_names import nfc
from vlmsel_auto.tasks.group_names import group_name
from vlmsel_auto.tasks.labels_csv import LABELS

ImageLike: TypeAlias = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]  # bytes: of a file
Item: TypeAlias = tuple[ImageLike, str | None, str]  # image, label or none, split ("": it is drawn)


def as_images(X: Any) -> list[ImageLike]:
    """One item an image, of a list or an array of paths, of Pillow images, or of pixels (n, H, W, 3) or (n, H, W).

    A column of a data frame counts as an array; so does an array (n, 1) of paths, as scikit-learn's steps hand it on.

    Raises:
        InputError: of another shape or dtype.
    """
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(values, np.ndarray) and values.dtype.kind in "OUT":
        values = values.ravel() if values.ndim == 2 and values.shape[1] == 1 else values  # noqa: PLR2004 - (n, 1)
        if values.ndim != 1:
            raise InputError(f"an array of images is (n,) of paths, or (n, H, W, 3) uint8, but got {values.shape}")
    elif isinstance(values, np.ndarray) and (values.ndim not in (3, 4) or values.dtype != np.uint8):
        raise InputError(f"pixels are uint8 of shape (n, H, W, 3), but got {values.dtype} of {values.shape}")
    elif isinstance(values, (str, bytes, PathLike, Image.Image)):
        raise InputError(f"several images are needed, such as a list of one, but got {type(values).__name__}")
    return list(values)


def as_files(images: Sequence[ImageLike], folder: Path) -> list[Path]:
    """The file of each image: its own, or a PNG that is written to ``folder``, which exists.

    Raises:
        InputError: a path of no file, or something that is no image.
    """
    return [_file(image, folder / f"{number:07d}.png", number) for number, image in enumerate(images)]


def write_task(
    items: Iterable[Item],
    *,
    folder: Path,
    metric: str = "accuracy",
    domain: str | None = None,
    templates: Sequence[str] = (),
    prompts: Mapping[str, str] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> None:
    """Write images and labels as a task folder of the layout images/ with labels.csv. Files are linked where possible.

    Where no image has a label, they lie in the folder itself and there is no table: a folder images/ would be a class.

    Args:
        items: one is held in memory at a time.
        folder: must not be there yet.
        metric: as in task.toml, like all that follow.
        domain: what the images are.
        templates: prompts with a {} each.
        prompts: by label.
        groups: one an item, equal for images that belong together; None, NaN and "" are none.

    Raises:
        InputError: as `as_files`.
    """
    inner = folder / "images"
    inner.mkdir(parents=True)
    rows = []
    for number, (image, label, split) in enumerate(items):
        file = _file(image, inner / f"{number:07d}.png", number)
        if file.parent != inner:
            file = _linked(file, inner / f"{number:07d}{file.suffix}")
        if label is not None:
            rows.append((file.name, label, split, *(() if groups is None else (group_name(groups[number]),))))
    if rows:
        with (folder / LABELS).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("path", "label", "split", "group")[: len(rows[0])], *rows])
    else:
        for file in list(inner.iterdir()):
            file.rename(folder / file.name)
        inner.rmdir()
    lines = [f"metric = {_toml(metric)}"]
    lines += [f"domain = {_toml(domain)}"] if domain else []
    lines += [f"templates = [{', '.join(map(_toml, templates))}]"] if templates else []
    lines += ["[prompts]", *(f"{_toml(label)} = {_toml(text)}" for label, text in prompts.items())] if prompts else []
    write_atomically(folder / "task.toml", ("\n".join(lines) + "\n").encode())  # where it is, the folder is whole


def _file(image: ImageLike, place: Path, number: int) -> Path:
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        if not path.is_file():
            raise InputError(f"image {number} is not there, but got {str(path)!r}")
        return path
    if isinstance(image, bytes):
        return _of_bytes(image, place)
    if isinstance(image, Image.Image):
        picture = _picture(image, number)
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and _is_picture(image.shape):
        picture = Image.fromarray(image)
    else:
        kind = f"{image.dtype} of {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image {number} must be a path, a Pillow image or uint8 pixels (H, W, 3), but got {kind}")
    picture.save(place, compress_level=1)
    return place


def _picture(image: Image.Image, number: int) -> Image.Image:
    """The image as a file of it would be decoded: in 16 bits, say, it is scaled."""
    try:
        if not image.width or not image.height:
            raise ValueError(f"{image.width} x {image.height} pixels")  # noqa: TRY301 - as what Pillow raises
        return upright_rgb(image)
    except Exception as error:  # Pillow's plugins raise almost anything on an image that is damaged or closed
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"image {number} must be one that Pillow can load, but got {said}") from error


def _of_bytes(data: bytes, place: Path) -> Path:
    """A file of these bytes; that it is no image is told with all other files that cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            place = place.with_suffix(f".{(image.format or 'png').lower()}")
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    place.write_bytes(data)
    return place


def _is_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))  # noqa: PLR2004 - grey, RGB or RGBA


def _linked(file: Path, place: Path) -> Path:
    try:
        place.hardlink_to(file.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, place)
    return place


def _toml(text: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, but for characters beyond 16 bits, which stay as they are."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def as_classes(y: Any) -> tuple[NDArray[Any], list[int]]:
    """The distinct labels (K,), sorted where they have an order, and the number of each image's.

    Texts, numbers and truth values keep their dtype; labels of any other kind, or of several, are objects.

    A column (n, 1) is n labels, and a scalar of numpy the plain value that it holds.

    Raises:
        InputError: there are none, or not one an image.
        ValueError: numbers that are no classes, but measurements (scikit-learn's own check).
    """
    if y is None:
        raise InputError("VlmClassifier requires y to be passed, but the target y is None")
    given = y.to_numpy() if hasattr(y, "to_numpy") else y
    if isinstance(given, np.ndarray):
        if given.ndim == 0 or given.shape[1:] not in ((), (1,)):
            raise InputError(f"y must be one label an image, but got an array of shape {given.shape}")
        given = given.ravel()
    rows = given.tolist() if isinstance(given, np.ndarray) else given
    values = [each.item() if isinstance(each, np.generic) else each for each in rows]
    if all(isinstance(each, str) for each in values) or all(isinstance(each, (bool, int, float)) for each in values):
        from sklearn.utils.multiclass import check_classification_targets  # half a second of imports

        labels = np.asarray(given if isinstance(given, np.ndarray) and given.dtype.kind != "O" else values)
        check_classification_targets(labels)
        known, numbers = np.unique(labels, return_inverse=True)
        return known, numbers.tolist()
    distinct = list(dict.fromkeys(values))
    try:
        distinct.sort()
    except TypeError:
        distinct.sort(key=str)
    known = np.empty(len(distinct), dtype=object)
    known[:] = distinct
    place = {label: number for number, label in enumerate(distinct)}
    return known, [place[each] for each in values]


def names_of(classes: NDArray[Any]) -> list[str]:
    """Labels as the names of classes.

    Raises:
        InputError: two are the same text, or one is none.
    """
    names = [nfc(str(label)).strip() for label in classes.tolist()]
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"labels must differ as text, and not be empty, but got {names[:10]!r}")
    return names
