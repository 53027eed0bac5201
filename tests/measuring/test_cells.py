import dataclasses

import numpy as np
import pytest

from helpers.library_world import SETTINGS, draw
from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.cells import (
    CellSettings,
    cell_key,
    compared_images,
    labelled_draws,
    measure_cell,
    path_points,
    source_task,
    unlabelled_images,
)
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.ranking.signals import IMAGE_SIGNALS, LABEL_SIGNALS, image_number
from vlmsel_auto.tasks.task import TaskOptions, load_task

MEMBER = "EffNet-Mi-64.all-m"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A loaded member of the mini zoo, a drawn task, and its cell."""
    root = tmp_path_factory.mktemp("cells")
    (candidate,) = resolve(MEMBER)
    task = load_task(
        draw(root / "shapes", shapes=("circle", "square"), seed=1),
        TaskOptions(shots=2),
        views=(candidate.view,),
        workdir=root,
    )
    model = zoo.load(candidate)
    cell = measure_cell(model=model, task=task, settings=SETTINGS, code_version="1.2", store=Store(root / "store"))
    return model, task, cell


def test_settings_are_told_as_sorted_texts():
    told = dict(CellSettings().as_text())
    assert list(told) == sorted(told)
    assert (told["shots"], told["images"], told["scalar"], told["baseline"]) == (
        "1, 2, 4, 8, 16",
        "32",
        "margin",
        "zeros",
    )


def test_unlabelled_images_and_draws_come_from_train_and_are_nested(world):
    _, task, _ = world
    unlabelled = unlabelled_images(task, SETTINGS)
    assert set(unlabelled.tolist()) <= set(task.train.tolist())
    draws = labelled_draws(task, SETTINGS)
    assert set(draws) == {(0, 1), (0, 2), (1, 1), (1, 2)}
    for (w, shots), images in draws.items():
        assert np.bincount(task.labels[images]).tolist() == [shots, shots]
        assert set(images.tolist()) <= set(task.train.tolist())
        assert set(draws[w, 1].tolist()) <= set(images.tolist())
    assert set(unlabelled.tolist()) == set(draws[0, 2].tolist())
    compared = compared_images(task, dataclasses.replace(SETTINGS, neighbour_images=5))
    assert len(compared) == 5
    assert set(compared.tolist()) <= set(compared_images(task, SETTINGS).tolist()) == set(task.train.tolist())


def test_a_cell_says_what_was_measured_and_how(world):
    model, task, cell = world
    assert cell.candidate.id == MEMBER
    assert cell.candidate.sha256 == fingerprint(model.candidate)
    assert len(cell.candidate.blocks) == len(cell.activity)
    assert cell.task == source_task(task)
    assert source_task(dataclasses.replace(task, metric="macro_f1")).metric == "macro_f1"
    assert (cell.task.n_test, cell.task.classes) == (len(task.test), ("circle", "square"))
    told = dict(cell.build.settings)
    assert cell.build.code_version == "1.2"
    assert told["points"] == str(path_points(model, SETTINGS))
    assert told["integrator"] in {"spectral", "trapezoid"}
    hits = cell.zero_shot * len(task.test)
    assert hits == pytest.approx(round(hits))
    unlabelled = unlabelled_images(task, SETTINGS)
    assert cell.predicted.shape == unlabelled.shape
    assert cell.predicted_on == image_number(unlabelled)
    compared = compared_images(task, SETTINGS)
    assert cell.neighbours.shape == (len(compared), 0)  # few images have no near ones
    assert cell.neighbours_on == image_number(compared)
    assert {name for _, _, name in cell.evidence} <= {"knn", *LABEL_SIGNALS}
    assert set(cell.signals) <= set(IMAGE_SIGNALS)
    assert cell.tuned == {}
    assert cell.seconds > 0


def test_the_key_follows_whatever_the_figures_depend_on(world):
    model, task, _ = world
    candidate, other = resolve([MEMBER, "RN-Mi-64.all-m"])
    keys = [
        cell_key(candidate=candidate, task=task, settings=SETTINGS),
        cell_key(candidate=other, task=task, settings=SETTINGS),
        cell_key(candidate=candidate, task=dataclasses.replace(task, digest="other"), settings=SETTINGS),
        cell_key(candidate=candidate, task=task, settings=dataclasses.replace(SETTINGS, seed=1)),
    ]
    assert len(set(keys)) == 4
    renamed = dataclasses.replace(task, name="renamed")
    assert cell_key(candidate=model.candidate, task=renamed, settings=SETTINGS) == keys[0]
