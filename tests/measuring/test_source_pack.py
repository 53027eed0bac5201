"""The pack of source images: planned, brought, resumed and read."""

import json

import numpy as np
import pytest

from helpers.loopback_hub import Fault, loopback_hub
from helpers.webdatasets import serve, write
from vlmsel_auto.events import Notice
from vlmsel_auto.library import published
from vlmsel_auto.measuring.source_pack import PUBLISHED, fetch_pack, load_pack, pack_dir, plan_pack
from vlmsel_auto.records import ImageView

NAMES = ("MNIST", "wds/vtab/dtd")


@pytest.fixture
def hub(tmp_path):
    with loopback_hub(tmp_path / "hub") as found:
        serve(found, "clip-benchmark/wds_mnist", count=60, seed=1)
        serve(
            found, "clip-benchmark/wds_vtab-dtd", count=90, seed=2, templates="".join(f"{n} {{c}}\n" for n in "abcdefg")
        )
        yield found


def test_the_tasks_by_default_are_those_with_published_figures():
    assert set(PUBLISHED) <= set(published.datasets())
    assert len(set(PUBLISHED.values())) == 18


def test_a_pack_is_brought_once_and_read(hub):
    assert load_pack() == ()
    plans = plan_pack(NAMES, images=12)
    assert [(one.name, one.here, one.problem) for one in plans] == [
        ("MNIST", False, ""),
        ("Describable Textures", False, ""),
    ]
    assert all(0 < one.most_bytes <= one.archive_bytes for one in plans)
    assert fetch_pack(plans) == {}
    textures, digits = load_pack()
    assert (textures.name, digits.name) == ("Describable Textures", "MNIST")
    assert textures.templates == ("a {}", "c {}", "e {}", "g {}")
    assert textures.prompts == ("circle", "square", "triangle")
    assert len(textures.paths) == len(textures.train) == 12
    assert np.bincount(textures.labels).tolist() == [4, 4, 4]
    assert textures.digest != digits.digest
    pixels = textures.pixels.read(ImageView(size=20), np.array([3, 0]))
    assert (pixels.shape, pixels.dtype) == ((2, 20, 20, 3), np.uint8)
    asked = len(hub.asked)
    assert all(one.here for one in plan_pack(NAMES, images=12))
    assert len(hub.asked) == asked


def test_what_cannot_be_had_is_told_and_the_others_are_brought(hub):
    hub.remove("datasets/clip-benchmark/wds_mnist")
    events = []
    failures = fetch_pack(plan_pack(NAMES, images=8), sink=events.append)
    assert list(failures) == ["MNIST"]
    assert "no such repository" in failures["MNIST"]
    assert [one.name for one in load_pack()] == ["Describable Textures"]
    assert any(isinstance(each, Notice) and "no source images of MNIST" in each.text for each in events)


def test_a_download_that_breaks_off_costs_its_own_task_only(hub):
    plans = plan_pack(NAMES, images=8)
    hub.faults["datasets/clip-benchmark/wds_mnist"] = Fault(status=500)
    assert list(fetch_pack(plans)) == ["MNIST"]
    hub.faults.clear()
    again = plan_pack(NAMES, images=8)
    assert [one.here for one in again] == [False, True]
    assert fetch_pack(again) == {}
    assert len(load_pack()) == 2


def test_another_number_of_images_or_a_lost_file_is_brought_again(hub):
    fetch_pack(plan_pack(NAMES, images=8))
    assert not any(one.here for one in plan_pack(NAMES, images=9))
    (task, _) = load_pack()
    (task.root / task.paths[0]).unlink()
    assert [one.here for one in plan_pack(NAMES, images=8)] == [True, False]
    assert [one.name for one in load_pack()] == ["MNIST"]
    record = next(pack_dir().glob("mnist*")) / "source.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 0}))
    assert load_pack() == ()


def test_a_place_that_cannot_be_reached_holds_no_pack(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_CACHE", str(tmp_path / ("x" * 300)))  # as a home that a service may not enter
    assert load_pack() == ()


def test_too_few_images_are_no_task(tmp_path):
    root = write(tmp_path / "few", count=8)
    plans = plan_pack([str(root)], images=20)
    assert "needs half of them, but got 8" in next(iter(fetch_pack(plans).values()))
    fetch_pack(plan_pack([str(root)], images=8))
    assert [one.name for one in load_pack()] == ["few"]
