"""labels.csv while labels are given one by one: what others wrote stays, and nobody's label is lost in silence."""

import numpy as np
import pytest

from helpers.drawings import SHAPES, draw_shape, draw_task
from helpers.task_folders import fill
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.label_writing import LabelFile, check_writable, read_known
from vlmsel_auto.tasks.task import TaskOptions, load_task

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


@pytest.fixture
def heap(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "heap"
    root.mkdir()
    for number in range(12):
        draw_shape(SHAPES[number % 3], rng).save(root / f"{number:03d}.png")
    draw_shape("circle", rng).save(root / "=1+1.png")
    return root


def test_nothing_is_known_of_a_heap(heap):
    known = read_known(heap, classes=SHAPES, unlabelled=False)
    assert (known.classes, known.labels) == (SHAPES, {})


@pytest.mark.parametrize("unlabelled", [False, True])
def test_what_is_given_is_found_again(heap, unlabelled):
    labels = {"000.png": "circle", "=1+1.png": "circle", "001.png": "square"}
    give(heap, labels)
    assert read_known(heap, classes=SHAPES, unlabelled=unlabelled).labels == labels


def give(root, labels):
    file = LabelFile(root.resolve(), {})
    for path, label in labels.items():
        file.change(path, label)


def test_keys_of_classes_stay(heap):
    named = ("triangle", "circle", "square")
    assert read_known(heap, classes=named, unlabelled=False).classes == named
    give(heap, {"000.png": "circle"})
    assert read_known(heap, classes=named, unlabelled=False).classes == named
    assert read_known(heap, classes="triangle,circle,square", unlabelled=False).classes == named


def test_a_search_goes_on_with_the_labels_and_the_order_of_classes(heap, tmp_path):
    give(heap, {f"{number:03d}.png": SHAPES[number % 3] for number in range(9)})
    task = load_task(heap, TaskOptions(classes=SHAPES[::-1]), workdir=tmp_path / "work")
    assert task.is_labelled
    assert len(task.paths) == 9
    assert task.classes == SHAPES[::-1]


@pytest.mark.parametrize("unlabelled", [False, True])
def test_rows_that_contradict_each_other(heap, unlabelled):
    (heap / "labels.csv").write_text("path,label\n000.png,circle\n001.png,circle\n./000.png,square\n")
    with pytest.raises(TaskError, match=r"one label; mend the rows of .*but got several for '000.png'"):
        read_known(heap, classes=SHAPES, unlabelled=unlabelled)


def test_a_cache_inside_is_passed_over(heap):
    (heap / "cache" / "pixels").mkdir(parents=True)
    (heap / "cache" / "pixels" / "x").touch()
    known = read_known(heap, classes=SHAPES, unlabelled=False, exclude=[heap / "cache"])
    assert known.labels == {}


def test_a_labelled_part_is_known(tmp_path):
    draw_task(tmp_path, train=3, test=0)
    (tmp_path / "train").rename(tmp_path / "labelled")
    (tmp_path / "test").rename(tmp_path / "unlabelled")
    known = read_known(tmp_path, classes=None, unlabelled=False)
    assert known.classes == SHAPES
    assert len(known.labels) == 9
    assert known.labels["labelled/circle/000.png"] == "circle"


def test_one_class_alone_is_not_all(heap):
    give(heap, {"000.png": "circle"})
    with pytest.raises(TaskError, match="two classes or more, but got 'circle'"):
        read_known(heap, classes=None, unlabelled=False)
    assert read_known(heap, classes=SHAPES, unlabelled=False).labels == {"000.png": "circle"}


def test_splits_would_be_lost(heap):
    (heap / "labels.csv").write_text("path,label,split\n000.png,circle,train\n001.png,square,train\n")
    with pytest.raises(TaskError, match="a table without splits, but got the column split"):
        read_known(heap, classes=SHAPES, unlabelled=False)


def test_a_table_of_images_cannot_be_labelled(tmp_path):
    (tmp_path / "images.parquet").touch()
    with pytest.raises(TaskError, match="only images that are files"):
        read_known(tmp_path, classes=SHAPES, unlabelled=True)
