import dataclasses

import numpy as np
import pytest

from helpers.labelling import write_heap
from helpers.library_world import draw
from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.measure import (
    embed_target,
    find_measurement,
    margin_conductance,
    measure,
    measure_target,
    profiled_images,
)
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.tasks.task import TaskOptions, load_task

MEMBER = "EffNet-Mi-64.all-m"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A loaded member of the mini zoo, a drawn task and a store that holds the whole measurement."""
    root = tmp_path_factory.mktemp("measure")
    (candidate,) = resolve(MEMBER)
    task = load_task(
        draw(root / "shapes", shapes=("circle", "square"), seed=1),
        TaskOptions(shots=4),
        views=(candidate.view,),
        workdir=root,
    )
    model, store = zoo.load(candidate), Store(root / "store")
    return model, task, store, measure_target(model, task, store=store)


def blind(model):
    """The model, but what runs through it now is wrong."""
    return dataclasses.replace(model, mean=(9.0, 9.0, 9.0))


def test_profiled_images_are_a_seeded_part_of_the_support_images(world):
    _, task, _, _ = world
    images = profiled_images(task)
    assert len(set(images.tolist())) == len(images) == min(32, len(task.support))
    assert set(images.tolist()) <= set(task.support.tolist())
    np.testing.assert_array_equal(images, profiled_images(task))


def test_a_measurement_holds_embeddings_and_the_means_of_the_conductance(world):
    model, task, _, found = world
    assert found.candidate == MEMBER
    assert found.weights == fingerprint(model.candidate)
    pixels = task.pixels.read(model.candidate.view, task.support)
    np.testing.assert_allclose(found.features, model.embed(model.normalise(pixels)).numpy(), atol=1e-5)
    assert found.text_features.shape == (2, found.features.shape[1])
    made = margin_conductance(model, task, profiled_images(task), text=found.text_features.astype(np.float32))
    assert found.blocks == made.blocks
    np.testing.assert_allclose(found.activity, made.activity.mean(axis=0), rtol=1e-6)
    assert found.total == pytest.approx(made.total.mean(), rel=1e-6)


def test_further_images_are_embedded_beside_the_labelled_ones(world, tmp_path):
    model, task, _, _ = world
    beside = load_task(
        write_heap(tmp_path / "heap", count=5),
        TaskOptions(classes=task.classes),
        views=(model.candidate.view,),
        workdir=tmp_path / "work",
    )
    partly, store = dataclasses.replace(task, beside=beside), Store(tmp_path / "store")
    assert len(task.others)
    found = embed_target(model, partly, store=store)
    shown = [(task, task.others), (beside, beside.screened)]
    pixels = np.concatenate([each.pixels.read(model.candidate.view, images) for each, images in shown])
    np.testing.assert_allclose(found.others, model.embed(model.normalise(pixels)).numpy(), atol=1e-5)
    assert len(found.features) == len(task.support)
    again = find_measurement(model.candidate, partly, store=store)
    np.testing.assert_array_equal(again.others, found.others)
    assert find_measurement(model.candidate, task, store=store) is not None
    other = dataclasses.replace(partly, others=task.test)
    assert find_measurement(model.candidate, other, store=store) is None  # some were not screened


def test_embeddings_alone_are_those_of_the_whole_measurement(world, tmp_path):
    model, task, _, whole = world
    store = Store(tmp_path)
    assert find_measurement(model.candidate, task, store=store) is None
    found = embed_target(model, task, store=store)
    assert found.blocks == ()
    assert np.isnan(found.total)
    for name in ("features", "text_features", "baseline"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    again = find_measurement(model.candidate, task, store=store)
    assert again.blocks == ()
    assert np.isnan(again.total)
    np.testing.assert_array_equal(again.features, found.features)


def test_what_is_kept_costs_no_pass_through_the_model(world):
    model, task, store, found = world
    for again in (
        find_measurement(model.candidate, task, store=store),
        measure_target(blind(model), task, store=store),
    ):
        for field in dataclasses.fields(found):
            np.testing.assert_equal(getattr(again, field.name), getattr(found, field.name), err_msg=field.name)


def test_draws_of_a_heap_are_profiled_on_the_same_images(world, tmp_path):
    model, _, _, _ = world
    root, store = write_heap(tmp_path / "heap", count=50), Store(tmp_path / "store")
    few, many = (
        load_task(root, TaskOptions(classes=("circle", "square"), images=images), workdir=tmp_path / "work")
        for images in (34, 50)
    )
    names = [[task.paths[place] for place in profiled_images(task)] for task in (few, many)]
    assert names[0] == names[1]
    assert len(set(names[0])) == 32
    whole = measure_target(model, few, store=store)
    embed_target(model, many, store=store)
    found = find_measurement(model.candidate, many, store=store)
    assert found.blocks == whole.blocks
    np.testing.assert_array_equal(found.activity, whole.activity)


def test_another_number_of_points_or_other_images_are_measured_anew(world):
    model, task, store, found = world
    few = profiled_images(task)[:2]
    kwargs = {"images": task.support, "store": store}
    coarse = measure(model, task, profiled=few, points=3, **kwargs)
    fine = measure(model, task, profiled=few, points=5, **kwargs)
    assert coarse.blocks == fine.blocks == found.blocks
    assert coarse.total == pytest.approx(fine.total)  # completeness: the total needs no path
    assert not np.array_equal(coarse.activity, fine.activity)
    assert not np.array_equal(fine.activity, found.activity)
