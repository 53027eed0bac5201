"""Which images belong together, as the user says it."""

import math

import numpy as np
import pytest

from vlmsel_auto.errors import TaskError
from vlmsel_auto.pipeline.request import TaskRequest
from vlmsel_auto.tasks.group_names import as_groups, group_name, group_names, read_rule

PATHS = ("cat/ann/v1_00.png", "dog/ann/v2_00.png", "dog/bob/v2_01.png", "top.png")


def names(*, groups: object = None, listed: tuple[str, ...] = ("",) * 4, declared: str | None = None) -> list[str]:
    return list(group_names(PATHS, listed=listed, declared=declared, groups=groups))


def test_a_folder_s_name_or_what_an_expression_finds_in_a_file_name_is_the_group():
    assert names(groups="parent") == ["ann", "ann", "bob", ""]
    assert names(groups=r"(v\d+)_") == ["v1", "v2", "v2", ""]
    assert names(groups=r"^(v\d)?_?") == ["v1", "v2", "v2", ""]  # the file's own name, and a group that takes no part


def test_what_the_call_says_counts_before_the_table_and_the_table_before_task_toml():
    listed = ("one", "", "one", "")
    assert names(listed=listed) == list(listed)
    assert names(listed=listed, declared="parent") == ["one", "ann", "one", ""]
    assert names(listed=listed, declared="parent", groups=r"(v\d+)_") == ["v1", "v2", "v2", ""]
    assert names(listed=listed, groups={PATHS[1]: 7, PATHS[3]: None}) == ["", "7", "", ""]


def test_none_and_nan_are_no_group_and_arrays_are_taken():
    assert [group_name(each) for each in (None, math.nan, np.float64("nan"), " ", 3, "x ")] == [
        "",
        "",
        "",
        "",
        "3",
        "x",
    ]
    assert as_groups(np.array([1, 2])) == (1, 2)
    assert as_groups("parent") == "parent"
    assert as_groups(None) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("(", 'must be "parent" or a regular expression with one .* this is none'),
        ("v", r"with one \(\.\.\.\).* but got 'v'"),
        ("(v)(1)", "brackets that find none"),
        ("(nothing)", "must match the name of a file at least, such as 'cat/ann/v1_00.png', but got '.nothing.'"),
        ({"cat/ann/v9.png": 1}, "paths in the task folder, such as 'cat/ann/v1_00.png', but got 'cat/ann/v9.png'"),
        ((1, 2, 3, 4), "a mapping of paths to groups, but got tuple"),
    ],
)
def test_what_cannot_be_followed_is_refused(groups, message):
    with pytest.raises(TaskError, match=message):
        names(groups=groups)


def test_a_request_refuses_a_rule_that_is_none_before_anything_is_read():
    with pytest.raises(TaskError, match="regular expression"):
        TaskRequest(data="photos", groups="(v")
    assert read_rule("parent")("a/b/c.png") == "b"
