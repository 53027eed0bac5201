"""Labels of any kind: every image's comes back from its number, and classes have an order and names of their own."""

import numpy as np
import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.given_labels import as_classes, names_of


@pytest.mark.parametrize(
    ("labels", "kind", "order"),
    [
        ([30, 10, 20, 10], "i", [10, 20, 30]),
        ([True, False, True], "b", [False, True]),
        ([0.0, 2.0, 1.0], "f", [0.0, 1.0, 2.0]),
        (["b", "a", "b"], "U", ["a", "b"]),
        (np.array(["b", "a"], dtype=object), "U", ["a", "b"]),
        ([("b", 2), ("a", 1), ("b", 2)], "O", [("a", 1), ("b", 2)]),
        (["b", 2, "b"], "O", [2, "b"]),
        ([np.int64(3), np.int64(1)], "i", [1, 3]),
        (np.array([np.int64(3), np.int64(1)], dtype=object), "i", [1, 3]),
        ([np.bool_(True), np.bool_(False)], "b", [False, True]),
        ([np.float32(2), np.float32(1)], "f", [1.0, 2.0]),
        ([np.str_("b"), np.str_("a")], "U", ["a", "b"]),
        (["b", np.int64(2)], "O", [2, "b"]),
    ],
)
def test_labels_keep_their_kind_and_come_back_by_their_numbers(labels, kind, order):
    classes, numbers = as_classes(labels)
    assert classes.dtype.kind == kind
    assert classes.tolist() == order
    assert [classes.tolist()[number] for number in numbers] == list(labels)


def test_a_column_of_a_data_frame_is_a_list_of_labels():
    pandas = pytest.importorskip("pandas")
    classes, numbers = as_classes(pandas.Series([2, 1, 2]))
    assert (classes.tolist(), numbers) == ([1, 2], [1, 0, 1])


def test_a_column_is_a_list_of_labels_and_a_table_is_none():
    classes, numbers = as_classes(np.array([[2], [1], [2]]))
    assert (classes.tolist(), numbers) == ([1, 2], [1, 0, 1])
    for table in (np.zeros((3, 2)), np.zeros((3, 1, 1)), np.array(1)):
        with pytest.raises(InputError, match="one label an image, but got an array of shape"):
            as_classes(table)


def test_scalars_of_numpy_are_told_plainly():
    classes, _ = as_classes([np.int64(2), "b"])
    assert type(classes.tolist()[0]) is int


def test_measurements_are_no_classes():
    with pytest.raises(ValueError, match="continuous"):
        as_classes([0.5, 0.25])


def test_classes_that_no_folder_could_tell_apart_are_refused():
    assert names_of(np.array([1, 2])) == ["1", "2"]
    for classes in (["a", "a "], ["e\u0301", "\u00e9"], ["", "a"]):
        with pytest.raises(InputError, match="labels must differ as text, and not be empty"):
            names_of(np.array(classes, dtype=object))
