"""The pack of source images: brought once, resumed and read."""

import json

import numpy as np
import pytest

from helpers.loopback_hub import Fault, loopback_hub
from helpers.source_packs import serve_source
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Notice
from vlmsel_auto.library import published
from vlmsel_auto.measuring.source_pack import PUBLISHED, fetch_pack, load_pack, missing, pack_dir, parse_templates
from vlmsel_auto.records import ImageView

NAMES = ("MNIST", "Describable Textures")


@pytest.fixture
def hub(tmp_path):
    with loopback_hub(tmp_path / "hub") as found:
        serve_source(found, "MNIST", count=60, seed=1)
        lines = "".join(f"{letter} {{c}}\n" for letter in "abcdefg")
        serve_source(found, "Describable Textures", count=90, seed=2, templates=lines)
        yield found


def test_the_tasks_by_default_are_those_with_published_figures():
    assert set(PUBLISHED) <= set(published.datasets())
    assert len(set(PUBLISHED.values())) == 18


def test_a_pack_is_brought_once_and_read(hub):
    assert load_pack() == ()
    assert missing(NAMES, images=12) == NAMES
    assert fetch_pack(NAMES, images=12) == {}
    textures, digits = load_pack()
    assert (textures.name, digits.name) == ("Describable Textures", "MNIST")
    assert textures.templates == ("a {}", "c {}", "e {}", "g {}")
    assert textures.prompts == ("circle", "square", "triangle")
    assert len(textures.paths) == len(textures.train) == 12
    assert np.bincount(textures.labels).tolist() == [4, 4, 4]
    assert textures.digest != digits.digest
    pixels = textures.pixels.read(ImageView(size=20), np.array([3, 0]))
    assert (pixels.shape, pixels.dtype) == ((2, 20, 20, 3), np.uint8)
    assert missing(NAMES, images=12) == ()
    assert not list(hub.cache.rglob("*.tar"))  # read in part


def test_what_cannot_be_had_is_told_and_the_others_are_brought(hub):
    hub.remove("datasets/clip-benchmark/wds_mnist")
    events = []
    failures = fetch_pack(NAMES, images=8, sink=events.append)
    assert list(failures) == ["MNIST"]
    assert "no such repository" in failures["MNIST"]
    assert [one.name for one in load_pack()] == ["Describable Textures"]
    assert any(isinstance(each, Notice) and "no source images of MNIST" in each.text for each in events)


def test_a_data_set_that_fails_costs_itself_only(hub):
    hub.faults["datasets/clip-benchmark/wds_mnist"] = Fault(status=403, code="GatedRepo")
    failures = fetch_pack(NAMES, images=8)
    assert list(failures) == ["MNIST"]
    hub.faults.clear()
    assert missing(NAMES, images=8) == ("MNIST",)
    assert fetch_pack(["MNIST"], images=8) == {}
    assert len(load_pack()) == 2


def test_another_number_of_images_or_a_lost_file_is_brought_again(hub):
    fetch_pack(NAMES, images=8)
    assert missing(NAMES, images=9) == NAMES
    (task, _) = load_pack()
    (task.root / task.paths[0]).unlink()
    assert missing(NAMES, images=8) == ("Describable Textures",)
    assert [one.name for one in load_pack()] == ["MNIST"]
    record = next(pack_dir().glob("mnist*")) / "source.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 0}))
    assert load_pack() == ()


def test_other_names_are_refused():
    with pytest.raises(TaskError, match=r"Stanford Cars, .*, but got 'cars'"):
        missing(["cars"])


def test_a_place_that_cannot_be_reached_holds_no_pack(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_CACHE", str(tmp_path / ("x" * 300)))  # as a home that a service may not enter
    assert load_pack() == ()


def test_too_few_images_are_no_task(hub):
    hub.remove("datasets/clip-benchmark/wds_mnist")
    serve_source(hub, "MNIST", count=8)
    assert "needs half of them" in fetch_pack(["MNIST"], images=20)["MNIST"]
    serve_source(hub, "EuroSAT", shards=0)
    assert "but got 0 of 3 classes" in fetch_pack(["EuroSAT"], images=8)["EuroSAT"]
    assert fetch_pack(["MNIST"], images=8) == {}


def test_classes_without_a_name_keep_their_number(hub):
    serve_source(hub, "GTSRB", count=40)
    hub.add("datasets/clip-benchmark/wds_gtsrb", "classnames.txt", b"a\n\nb\n")
    assert fetch_pack(["GTSRB"], images=8) == {}
    (task,) = load_pack()
    assert task.classes == task.prompts == ("a", "", "b")


@pytest.mark.parametrize(
    ("text", "found"), [("a {c}\nb {}\n{c} {c}\nplain\n", ("a {}", "b {}")), ("", ("a photo of a {}.",))]
)
def test_templates_are_lines_with_one_place_for_the_class(text, found):
    assert parse_templates(text) == found
