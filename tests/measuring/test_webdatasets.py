"""Webdatasets of a folder, a tar file and a hub, and task folders of them."""

from pathlib import Path

import numpy as np
import pytest

from helpers.loopback_hub import Fault, loopback_hub
from helpers.webdatasets import serve, webdataset, write
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Notice
from vlmsel_auto.measuring.webdatasets import is_webdataset, open_webdataset, parse_templates, task_folder
from vlmsel_auto.tasks.task import TaskOptions, load_task


@pytest.fixture
def hub(tmp_path: Path):
    with loopback_hub(tmp_path / "hub") as found:
        yield found


def test_a_data_set_of_the_hub_is_read_in_part(hub, tmp_path):
    serve(hub, "clip-benchmark/wds_vtab-shapes", count=240, shards=3, size=160)
    found = open_webdataset("wds/vtab/shapes")
    assert (found.name, found.prompts) == ("vtab-shapes", ("circle", "square", "triangle"))
    assert found.templates == ("a drawing of a {}.", "a {}.")
    assert len(found.archives) == 3
    got = found.take(12)
    assert np.bincount([one.label for one in got.samples], minlength=3).min() >= 2
    assert got.read_bytes < found.size
    assert not list(hub.cache.rglob("*.tar"))
    again = open_webdataset("hf-wds:clip-benchmark/wds_vtab-shapes")
    assert (again.version, again.name) == (found.version, found.name)


def test_a_folder_and_a_tar_file_are_read_as_they_lie(tmp_path):
    root = write(tmp_path / "shapes", count=30, shards=2)
    assert is_webdataset(root)
    assert len(open_webdataset(str(root)).take(100).samples) == 30
    one = root / "test" / "1.tar"
    assert is_webdataset(one)
    assert {sample.label for sample in open_webdataset(str(one)).take(100).samples} == {1, 2}
    assert not is_webdataset(tmp_path)


def test_class_names_differ_and_are_not_empty(tmp_path):
    write(tmp_path, shapes=("circle", "square", "triangle"))
    (tmp_path / "classnames.txt").write_text("crane\n\ncrane\n")
    found = open_webdataset(str(tmp_path))
    assert found.prompts == ("crane", "", "crane")
    assert found.classes == ("crane (0)", "class 1", "crane (2)")


def test_a_task_folder_holds_what_was_taken_and_is_found_again(hub, tmp_path):
    serve(hub, "some/wds_shapes", count=90, kind="webp")
    events = []
    folder = task_folder("hf-wds:some/wds_shapes", images=30, into=tmp_path / "tasks", sink=events.append)
    task = load_task(folder, TaskOptions(shots=4), workdir=tmp_path / "work")
    assert (task.name, task.classes, len(task.paths)) == ("shapes", ("circle", "square", "triangle"), 30)
    assert task.templates == ("a drawing of a {}.", "a {}.")
    asked = hub.count("GET")
    assert task_folder("hf-wds:some/wds_shapes", images=30, into=tmp_path / "tasks") == folder
    assert hub.count("GET") == asked
    assert task_folder("hf-wds:some/wds_shapes", images=31, into=tmp_path / "tasks") != folder
    assert events == []


def test_classes_with_too_few_images_are_left_out_and_told(tmp_path):
    root = write(tmp_path / "shapes", count=40)
    (root / "classnames.txt").write_text('circle\nsq"uare\ntriangle, \u00e9qui\\lateral\nnever\n', "utf-8")
    events = []
    folder = task_folder(str(root), images=40, into=tmp_path / "tasks", sink=events.append)
    task = load_task(folder, TaskOptions(shots=4), workdir=tmp_path / "work")
    assert task.classes == ("circle", 'sq"uare', "triangle, \u00e9qui\\lateral")
    assert task.prompts == task.classes
    assert [each.text for each in events if isinstance(each, Notice)] == [
        f"{root}: fewer than two images came of 'never'; left out"
    ]
    with pytest.raises(TaskError, match="two classes with two images each"):
        task_folder(str(root), images=2, into=tmp_path / "tasks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classnames.txt": b"one\n"}, "two classes or more, but got 1"),
        ({"test/nshards.txt": b"many\n"}, "number above 0, but got 'many'"),
        ({"test/0.tar": None}, "lacks every file of .'test/0.tar'"),
        ({"classnames.txt": None}, "lacks every file of .'classnames.txt'"),
    ],
    ids=["one class", "shards", "no archive", "no names"],
)
def test_what_is_no_webdataset_is_refused(hub, change, message):
    for name, data in (webdataset() | change).items():
        if data is not None:
            hub.add("datasets/some/wds_odd", name, data)
    with pytest.raises(TaskError, match=message):
        open_webdataset("hf-wds:some/wds_odd")


def test_a_hub_that_fails_is_one_reason(hub):
    serve(hub, "some/wds_shapes")
    found = open_webdataset("hf-wds:some/wds_shapes")
    hub.faults["datasets/some/wds_shapes"] = Fault(status=500)
    with pytest.raises(TaskError, match=r"images of hf-wds:some/wds_shapes cannot be read: .*500"):
        found.take(4)


def test_no_such_path(tmp_path):
    with pytest.raises(TaskError, match="a webdataset is wds/NAME"):
        open_webdataset(str(tmp_path))
    (tmp_path / "alone.tar").write_bytes(b"")
    with pytest.raises(TaskError, match=r"needs classnames\.txt"):
        open_webdataset(str(tmp_path / "alone.tar"))


def test_templates_keep_their_one_place():
    assert parse_templates("a photo of a {c}.\n\nno place\ntwo {c} {c}\na {} too\n{c!r}\n") == (
        "a photo of a {}.",
        "a {} too",
    )
    assert parse_templates("nothing\n") == ("a photo of a {}.",)
