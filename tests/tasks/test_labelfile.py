"""labels.csv while labels are given one by one: what others wrote stays, and nobody's label is lost in silence."""

import pytest

from helpers.task_folders import fill
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.answers import read_known
from vlmsel_auto.tasks.labelfile import LabelFile, check_writable

NAMES = ("a.png", "b.png", "c.png", "=1+1.png")


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "heap", *NAMES).resolve()


def known(root):
    return read_known(root, classes=("cat", "dog"), unlabelled=False).labels


def test_labels_come_and_go(root):
    file = LabelFile(root, {"b.png": "dog"})
    file.change("=1+1.png", "cat")
    assert file.path.read_text() == "path,label\n./b.png,dog\n./=1+1.png,cat\n"
    file.change("b.png", "cat")
    file.change("=1+1.png", None)
    assert known(root) == dict(file.labels) == {"b.png": "cat"}
    file.change("b.png", None)
    assert not file.path.exists()
    assert file.labels == {}


def test_other_columns_stay(root):
    (root / "labels.csv").write_bytes("\ufeffnote;path;label;by\nsure, yes;a.png;cat;Ann\n;b.png;dog\n".encode())
    file = LabelFile(root, known(root))
    file.change("b.png", "cat")
    file.change("c.png", "dog")
    assert file.path.read_bytes().decode() == (
        "\ufeffnote;path;label;by\nsure, yes;a.png;cat;Ann\n;b.png;cat;\n;./c.png;dog;\n"
    )
    file.change("c.png", None)
    assert known(root) == {"a.png": "cat", "b.png": "cat"}


def test_two_that_label_at_once(root):
    one, two = LabelFile(root, {}), LabelFile(root, {})
    one.change("a.png", "cat")
    two.change("b.png", "dog")
    one.change("c.png", "dog")
    assert known(root) == dict(one.labels) == {"a.png": "cat", "b.png": "dog", "c.png": "dog"}
    with pytest.raises(TaskError, match=r"somebody else has labelled 'c.png' as 'dog' in .*, but got 'cat'"):
        two.change("c.png", "cat")
    assert known(root) == dict(two.labels)
    two.change("c.png", "cat")  # knowing of it
    with pytest.raises(TaskError, match=r"somebody else has labelled 'c.png' as 'cat' in .*, but got no label"):
        one.change("c.png", None)
    two.change("a.png", None)
    one.change("b.png", "dog")
    assert known(root) == dict(one.labels) == {"b.png": "dog", "c.png": "cat"}


def test_rows_that_somebody_broke_meanwhile(root):
    file = LabelFile(root, {})
    file.change("a.png", "cat")
    (root / "labels.csv").write_text("path,label\na.png,cat\na.png,dog\n")
    with pytest.raises(TaskError, match=r"several for 'a.png'"):
        file.change("b.png", "dog")
    (root / "labels.csv").write_bytes(b"\xff")
    with pytest.raises(TaskError, match="cannot be read as CSV"):
        file.change("b.png", "dog")
    assert file.labels == {"a.png": "cat"}


def test_a_link_is_written_through_inside_the_folder_only(root):
    (root / ".kept.csv").write_text("path,label\na.png,cat\n")
    (root / "labels.csv").symlink_to(".kept.csv")
    file = LabelFile(root, known(root))
    file.change("b.png", "dog")
    assert file.path.is_symlink()
    assert (root / ".kept.csv").read_text() == "path,label\na.png,cat\n./b.png,dog\n"
    outside = root.parent / "kept.csv"
    (root / ".kept.csv").rename(outside)
    file.path.unlink()
    file.path.symlink_to(outside)
    with pytest.raises(TaskError, match=r"inside the task folder only.*which leads to"):
        check_writable(root)
    with pytest.raises(TaskError, match="inside the task folder only"):
        file.change("c.png", "dog")
    assert outside.read_text().count("\n") == 3
    assert file.labels == {"a.png": "cat", "b.png": "dog"}


@pytest.mark.parametrize(
    "name", ["a.png ", " a.png", "a\r.png", "a\n.png", 'a,"b";c\t.png', "a\\b.png", "images/a.png"]
)
def test_odd_names_are_found_again(root, name):
    fill(root, name)
    LabelFile(root, {}).change(name, "cat")
    assert known(root) == {name: "cat"}


def test_twins_keep_their_own_labels(root):
    fill(root, "images/a.png")
    file = LabelFile(root, {})
    file.change("a.png", "cat")
    file.change("images/a.png", "dog")
    assert read_known(root, classes=("cat", "dog"), unlabelled=True).labels == {"a.png": "cat", "images/a.png": "dog"}


def test_what_cannot_be_written(root):
    file = LabelFile(root, {})
    with pytest.raises(TaskError, match="must be UTF-8; rename them, but got"):
        file.change("bad\udcff.png", "cat")
    (root / "labels.csv").mkdir()
    with pytest.raises(TaskError, match="labels cannot be written here"):
        file.change("a.png", "cat")
    assert file.labels == {}
