"""Labels that were given in memory, of any hashable kind: numbers of classes, and the classes as names of folders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.names import nfc


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
