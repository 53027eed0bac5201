"""Cells of the source pack: profile, evidence, and the accuracy that is published or else measured."""

import math
from dataclasses import replace

import numpy as np
import pytest

from helpers.source_packs import make_pack
from vlmsel_auto.cache import Store
from vlmsel_auto.library import published
from vlmsel_auto.measuring.source_cells import PACK, measure_source
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.signals import LABEL_SIGNALS

PUBLISHED = "ViT-B-32/openai"


@pytest.fixture(scope="module")
def model():
    return zoo.load(resolve("EffNet-Mi-64.all-m")[0], device="cpu")


def test_a_cell_has_profile_evidence_and_the_accuracy_on_its_images(model, tmp_path):
    (task,) = make_pack(tmp_path, tasks=1, images=12)
    cell = measure_source(model, task, store=Store(tmp_path / "store"))
    assert (cell.candidate.id, cell.task.name, cell.task.n_test) == ("EffNet-Mi-64.all-m", "EuroSAT", 0)
    assert cell.activity.shape == (len(cell.candidate.blocks),)
    assert (cell.activity > 0).all()
    seen = model.embed(model.normalise(task.pixels.read(model.candidate.view, task.train))).detach().numpy()
    text = model.text_features(task.prompts, task.templates).detach().numpy()
    assert cell.zero_shot == zeroshot.zeroshot(zeroshot.cosines(seen, text), task.labels)
    assert {key[:2] for key in cell.evidence} == {(0, int(np.median(np.bincount(task.labels))))}
    assert {key[2] for key in cell.evidence} == set(LABEL_SIGNALS)
    assert len(cell.predicted) == 12
    told = dict(cell.build.settings)
    assert (cell.build.source, told["zero_shot"], told["images"]) == (PACK, "the source images", "12")


def test_published_accuracy_is_the_truth(model, tmp_path):
    (task,) = make_pack(tmp_path, tasks=1)
    named = replace(model, candidate=replace(model.candidate, id=PUBLISHED))
    cell = measure_source(named, replace(task, name="MNIST"), store=Store(tmp_path / "store"))
    figure = published.zero_shot([PUBLISHED])[0, published.datasets().index("MNIST")]
    assert cell.zero_shot == figure
    assert dict(cell.build.settings)["zero_shot"] == published.SOURCE
    own = measure_source(model, replace(task, name="MNIST"), store=Store(tmp_path / "own"))
    assert math.isfinite(own.zero_shot)  # on its images: better than no accuracy
    assert own.task == cell.task


def test_classes_without_an_image_take_no_part_in_the_evidence(model, tmp_path):
    (task,) = make_pack(tmp_path, tasks=1)
    more = replace(task, classes=("none", *task.classes), prompts=("none", *task.prompts), labels=task.labels + 1)
    cells = [measure_source(model, each, store=Store(tmp_path / each.classes[0])) for each in (task, more)]
    assert cells[0].evidence == pytest.approx(cells[1].evidence)
    assert not np.allclose(cells[0].activity, cells[1].activity)  # the margin is that of all classes
