"""Names of classes, and lists of them."""

from pathlib import Path

import pytest

from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.class_names import (
    alike,
    check_class_names,
    class_names_text,
    named_classes,
    prompt_of,
    read_class_names,
)


def test_classes_that_differ_in_case_or_blanks_are_named():
    assert alike(["cat", "dog"]) == ()
    (note,) = alike(["Wood Duck", "cat", "woodduck"])
    assert "'Wood Duck' and 'woodduck'" in note
    many = [each for k in range(7) for each in (f"c{k}", f"C{k}")]
    assert alike(many)[0].endswith("'c4' and 'C4', ... (7 in all)")


@pytest.mark.parametrize(("label", "text"), [("wood_duck", "wood duck"), ("t-shirt", "t shirt"), ("__", "__")])
def test_a_prompt_is_the_name_with_spaces(label, text):
    assert prompt_of(label) == text


def test_a_list_with_commas_or_a_file_with_lines(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffwood duck\n\n  cafe\u0301 \n", "utf-8")
    assert read_class_names("cat,  dog , wood duck") == ("cat", "dog", "wood duck")
    assert read_class_names(str(tmp_path / "names.txt")) == ("wood duck", "caf\u00e9")


def test_a_sequence_or_a_text_of_names() -> None:
    names = ("cat", "wood duck")
    assert named_classes(names) == named_classes(["cat", " wood duck "]) == named_classes("cat, wood duck") == names
    assert class_names_text(names) == "cat,wood duck"
    assert class_names_text("names.txt") == "names.txt"  # a file stays one
    with pytest.raises(TaskError, match=r"must be texts, but got \['cat', 3\]"):
        named_classes(["cat", 3])  # type: ignore[list-item]
    with pytest.raises(TaskError, match="'cat' more than once"):
        named_classes(["cat", "cat"])


def test_names_with_commas_and_quotation_marks_can_be_given_again() -> None:
    names = ("hammer, claw", 'the "big" saw', '12" pipe', "two\nlines", "nail")
    assert read_class_names(class_names_text(names)) == names
    assert read_class_names('"hammer, claw", saw, 12" pipe') == ("hammer, claw", "saw", '12" pipe')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat, dog, cat", "'cat' more than once"),
        ("cat", "two classes or more, but got 'cat'"),
        ("nmaes.txt", "no such file of class names, and one name is not enough, but got 'nmaes.txt'"),
        ("lists/names", "no such file of class names"),
        ("cat,,dog", "must not be empty"),
        ('cat, "dog', r"stands in quotation marks, .* but got 'cat, \"dog'"),
        ("", "must not be empty"),
        ("x" * 5000, "two classes or more"),
    ],
)
def test_names_that_make_no_task(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_class_names(text)


def test_both_normal_forms_are_one_name() -> None:
    with pytest.raises(TaskError, match="more than once"):
        check_class_names(["caf\u00e9", "cafe\u0301"], where="here")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(TaskError, match="UTF-8"):
        read_class_names(str(tmp_path / "names.txt"))
    (tmp_path / "names.txt").write_text("\n\n")
    with pytest.raises(TaskError, match="got none"):
        read_class_names(str(tmp_path / "names.txt"))
