"""Source tasks in folders, and of data sets that Hugging Face's datasets saved: real ones, on this disk."""

from collections import Counter

import datasets
import numpy as np
import pytest

from helpers.drawings import draw_shape, draw_task
from helpers.loopback_hub import loopback_hub
from helpers.webdatasets import serve, write
from vlmsel_auto.errors import LibraryError, TaskError
from vlmsel_auto.events import Notice
from vlmsel_auto.measuring.source_folders import saved_dataset_folder, source_tasks, task_folders
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
    (folder,) = source_tasks([tmp_path / "shapes"], images=24, into=tmp_path)
    task = load_task(folder, workdir=tmp_path / "work")
    assert (task.name, task.classes, len(task.paths)) == ("shapes", SHAPES, 24)
    assert Counter(task.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    assert len(task.test) > 0  # a part for truth is drawn
    written = (folder / "labels.csv").stat().st_mtime_ns
    assert saved_dataset_folder(tmp_path / "shapes", images=24, into=tmp_path / "datasets") == folder
    assert (folder / "labels.csv").stat().st_mtime_ns == written
    assert saved_dataset_folder(tmp_path / "shapes", images=12, into=tmp_path / "tasks") != folder


def test_splits_stay_what_they_are(tmp_path):
    parts = datasets.DatasetDict(train=table(40), test=table(30, seed=1))
    parts.save_to_disk(tmp_path / "split")
    (folder,) = source_tasks([tmp_path / "split"], images=40, into=tmp_path)
    task = load_task(folder, workdir=tmp_path / "work")
    assert len(task.test) + len(task.train) + len(task.val) == 40
    assert 10 <= len(task.test) <= 25  # of 30 and 40 images
    assert {task.paths[place] for place in task.test}.isdisjoint(task.paths[place] for place in task.train)


def test_a_small_split_leaves_its_share_to_the_others_and_every_class_is_trained_on(tmp_path):
    parts = datasets.DatasetDict(train=table(60), test=table(5, seed=1))
    parts.save_to_disk(tmp_path / "uneven")
    folder = saved_dataset_folder(tmp_path / "uneven", images=50, into=tmp_path / "tasks")
    task = load_task(folder, workdir=tmp_path / "work")
    assert len(task.paths) == 50
    few = load_task(
        saved_dataset_folder(tmp_path / "uneven", images=6, into=tmp_path / "tasks"), workdir=tmp_path / "work"
    )
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
    folder = saved_dataset_folder(tmp_path / "many", images=10, into=tmp_path / "tasks", sink=told.append)
    task = load_task(folder, workdir=tmp_path / "work")
    assert Counter(task.labels.tolist()) == dict.fromkeys(range(5), 2)
    (notice,) = [each for each in told if isinstance(each, Notice)]
    assert notice.text.startswith("many: 10 images do for 5 classes; left out: ")


def test_what_cannot_be_used_is_told(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(TaskError, match=r"cannot be used: .*one image column.*but got text, but got '.*texts'"):
        saved_dataset_folder(tmp_path / "texts", images=10, into=tmp_path)
    table(3).save_to_disk(tmp_path / "few")
    with pytest.raises(TaskError, match="two classes with two labelled images each, but got 0"):
        saved_dataset_folder(tmp_path / "few", images=10, into=tmp_path)
    table(8).save_to_disk(tmp_path / "damaged")
    for file in (tmp_path / "damaged").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TaskError, match="this saved data set cannot be used"):
        saved_dataset_folder(tmp_path / "damaged", images=10, into=tmp_path)


def test_task_folders_are_found(tmp_path_factory, tmp_path):
    root = tmp_path_factory.mktemp("many")
    tasks = tuple(draw_task(root / "tasks" / name, train=2, test=1) for name in ("one", "two"))
    assert task_folders(root / "tasks") == tasks
    assert task_folders(tasks[0]) == (tasks[0],)  # splits
    for part in ("named", "plain/cats", "plain/dogs", "listed/images", ".cache/x"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "named" / "task.toml").write_text('name = "x"\n')
    (tmp_path / "listed" / "labels.csv").write_text("path,label\n")
    assert [one.name for one in task_folders(tmp_path)] == ["listed", "named", "plain"]
    for name in ("listed", "named", "plain"):
        assert task_folders(tmp_path / name) == (tmp_path / name,)
    for wrong in (tmp_path / "none", root / "tasks" / "one" / "test" / "circle"):
        with pytest.raises(LibraryError, match="task"):
            task_folders(wrong)


def test_folders_webdatasets_and_saved_data_sets_become_task_folders(tmp_path):
    plain, local = draw_task(tmp_path / "plain"), write(tmp_path / "local", count=30)
    files = sorted(plain.rglob("*.png"))
    rows = {"image": [str(file) for file in files], "label": [file.parent.name for file in files]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    with loopback_hub(tmp_path / "hub") as hub:
        serve(hub, "clip-benchmark/wds_vtab-shapes", count=60)
        found = source_tasks(
            [plain, local, tmp_path / "saved", plain], hub_tasks=["wds/vtab/shapes"], images=24, into=tmp_path / "into"
        )
    assert found[0] == plain
    names = [load_task(folder, workdir=tmp_path / "work").name for folder in found]
    assert sorted(names) == ["local", "plain", "saved", "vtab-shapes"]


def test_a_folder_without_a_task_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="no task folder"):
        source_tasks([tmp_path / "empty"], images=24, into=tmp_path)
