"""Data sets that Hugging Face's datasets saved, as source tasks: real ones, on this disk."""

from collections import Counter

import datasets
import numpy as np
import pytest

from helpers.drawings import draw_shape
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Notice
from vlmsel_auto.measuring.saved_datasets import is_saved_dataset, task_folder
from vlmsel_auto.tasks.task import load_task

SHAPES = ("circle", "square", "triangle")


def table(count: int, *, seed: int = 0, shapes: tuple[str, ...] = SHAPES) -> datasets.Dataset:
    rng = np.random.default_rng(seed)
    labels = [number % len(shapes) for number in range(count)]
    features = datasets.Features({"picture": datasets.Image(), "shape": datasets.ClassLabel(names=list(shapes))})
    rows = {"picture": [draw_shape(shapes[label], rng) for label in labels], "shape": labels}
    return datasets.Dataset.from_dict(rows, features=features)


def test_some_images_of_every_class_become_a_task_and_are_found_again(tmp_path):
    table(60).save_to_disk(tmp_path / "shapes")
    assert is_saved_dataset(tmp_path / "shapes")
    assert not is_saved_dataset(tmp_path)
    folder = task_folder(tmp_path / "shapes", images=24, into=tmp_path / "tasks")
    task = load_task(folder, workdir=tmp_path / "work")
    assert (task.name, task.classes, len(task.paths)) == ("shapes", SHAPES, 24)
    assert Counter(task.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    assert len(task.test) > 0  # a part for truth is drawn
    written = (folder / "labels.csv").stat().st_mtime_ns
    assert task_folder(tmp_path / "shapes", images=24, into=tmp_path / "tasks") == folder
    assert (folder / "labels.csv").stat().st_mtime_ns == written
    assert task_folder(tmp_path / "shapes", images=12, into=tmp_path / "tasks") != folder


def test_splits_stay_what_they_are(tmp_path):
    parts = datasets.DatasetDict(train=table(40), test=table(30, seed=1))
    parts.save_to_disk(tmp_path / "split")
    assert is_saved_dataset(tmp_path / "split")
    folder = task_folder(tmp_path / "split", images=40, into=tmp_path / "tasks")
    task = load_task(folder, workdir=tmp_path / "work")
    assert len(task.test) + len(task.train) + len(task.val) == 40
    assert 10 <= len(task.test) <= 25  # of 30 and 40 images
    assert {task.paths[place] for place in task.test}.isdisjoint(task.paths[place] for place in task.train)


def test_a_small_split_leaves_its_share_to_the_others_and_every_class_is_trained_on(tmp_path):
    parts = datasets.DatasetDict(train=table(60), test=table(5, seed=1))
    parts.save_to_disk(tmp_path / "uneven")
    folder = task_folder(tmp_path / "uneven", images=50, into=tmp_path / "tasks")
    task = load_task(folder, workdir=tmp_path / "work")
    assert len(task.paths) == 50
    few = load_task(task_folder(tmp_path / "uneven", images=6, into=tmp_path / "tasks"), workdir=tmp_path / "work")
    assert set(few.labels[np.concatenate([few.train, few.val])].tolist()) == {0, 1, 2}


def test_where_classes_are_many_some_are_left_out_and_told(tmp_path):
    names = tuple(f"{shape} {number}" for number in range(4) for shape in SHAPES)
    rng = np.random.default_rng(0)
    labels = [number % len(names) for number in range(36)]
    rows = {"image": [draw_shape(names[label].split()[0], rng) for label in labels],
            "label": [names[label] for label in labels]}  # fmt: skip
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "many")
    told = []
    folder = task_folder(tmp_path / "many", images=10, into=tmp_path / "tasks", sink=told.append)
    task = load_task(folder, workdir=tmp_path / "work")
    assert Counter(task.labels.tolist()) == dict.fromkeys(range(5), 2)
    (notice,) = [each for each in told if isinstance(each, Notice)]
    assert notice.text.startswith("many: 10 images do for 5 classes; left out: ")


def test_what_cannot_be_used_is_told(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(TaskError, match=r"cannot be used: .*one image column.*but got text, but got '.*texts'"):
        task_folder(tmp_path / "texts", images=10, into=tmp_path)
    table(3).save_to_disk(tmp_path / "few")
    with pytest.raises(TaskError, match="two classes with two labelled images each, but got 0"):
        task_folder(tmp_path / "few", images=10, into=tmp_path)
    table(8).save_to_disk(tmp_path / "damaged")
    for file in (tmp_path / "damaged").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TaskError, match="this saved data set cannot be used"):
        task_folder(tmp_path / "damaged", images=10, into=tmp_path)
