"""Labels given one by one: found wherever a folder has them, kept so that the next run finds them."""

import numpy as np
import pytest

from helpers.drawings import SHAPES, draw_shape, draw_task
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.answers import read_known
from vlmsel_auto.tasks.labelfile import LabelFile
from vlmsel_auto.tasks.task import load_task


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
    task = load_task(heap, workdir=tmp_path / "work", classes=SHAPES[::-1])
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
