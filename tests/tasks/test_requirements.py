"""What is no task is told with the classes that are to blame."""

import numpy as np
import pytest

from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.requirements import check_classes, check_distinct, check_splits


def test_two_classes_of_two_are_enough() -> None:
    check_classes(["a", "b"], ["a", "b", "b", "a"], left_out={})
    with pytest.raises(TaskError, match="one class only: 'a'"):
        check_classes(["a"], ["a", "a"], left_out={})
    with pytest.raises(TaskError, match=r"at least 2 images; .* got 'b' with 1$"):
        check_classes(["a", "b"], ["a", "a", "b"], left_out={})
    with pytest.raises(TaskError, match=r"that can be used; .* \(left out: 'b/x: empty'\)$"):
        check_classes(["a", "b"], ["a", "a", "b"], left_out={"b": ["b/x: empty"], "a": ["a/y: empty"]})
    many = [f"c{k}" for k in range(300)]
    with pytest.raises(TaskError, match=r"got 'c0' with 1, .*'c4' with 1, \.\.\. \(300 in all\)$") as told:
        check_classes(many, many, left_out={})
    assert len(str(told.value)) < 250


def test_what_is_tested_must_be_taught() -> None:
    check_splits(["a", "b"], [("a", None)])
    check_splits(["a", "b"], [("a", "train"), ("b", "train"), ("b", "test")])
    for part in ("val", "test"):
        with pytest.raises(TaskError, match=f"every class of {part} needs images in train after all, but got 'b'"):
            check_splits(["a", "b"], [("a", "train"), ("b", part)], why=" after all")


def test_copies_are_one_image() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    check_distinct(["a", "b"], labels=labels, digests=["1", "2", "3", "3", "4"])
    with pytest.raises(TaskError, match=r"different images .* got 'b'"):
        check_distinct(["a", "b"], labels=labels, digests=["1", "2", "3", "3", "3"])
