"""Embeddings of a task's images are made once, image by image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.drawings import SHAPES, draw_shape, draw_task
from helpers.labelling import write_heap
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models import embedding, zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.embedding import embed, find_embeddings, reword
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.unlabelled_pool import spoken_in


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("embedding")
    candidate = resolve("RN-Mi-64.glyph-s")[0]
    task = load_task(draw_task(root / "shapes"), TaskOptions(shots=2), views=(candidate.view,), workdir=root / "work")
    return candidate, task, zoo.load(candidate)


def refuse():
    raise AssertionError("nothing is missing, so no model is wanted")


def test_values_are_those_of_the_model(world, tmp_path):
    candidate, task, model = world
    found = embed(candidate, task, task.train[:5], load=lambda: model, store=Store(tmp_path))
    with torch.no_grad():
        direct = model.embed(model.normalise(task.pixels.read(candidate.view, task.train[:5])))
    np.testing.assert_allclose(found.images, direct.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.text, model.text_features(task.prompts, task.templates).numpy(), atol=1e-6)
    assert found.baseline.shape == found.images.shape[1:]
    assert found.logit_scale == model.logit_scale


def test_only_missing_images_are_embedded_and_rows_come_in_the_order_wanted(world, tmp_path, monkeypatch):
    candidate, task, model = world
    store, seen = Store(tmp_path), []
    read = type(task.pixels).read

    def watched(self, view, indices):
        seen.extend(indices.tolist())
        return read(self, view, indices)

    monkeypatch.setattr(type(task.pixels), "read", watched)
    first = embed(candidate, task, task.train[[3, 1]], load=lambda: model, store=store)
    assert sorted(seen) == sorted(task.train[[3, 1]].tolist())
    seen.clear()
    more = embed(candidate, task, task.train[[0, 1, 2, 3]], load=lambda: model, store=store)
    assert sorted(seen) == sorted(task.train[[0, 2]].tolist())
    np.testing.assert_array_equal(more.images[[3, 1]], first.images)
    again = embed(candidate, task, task.train[[2, 0, 2]], load=refuse, store=store)
    np.testing.assert_array_equal(again.images, more.images[[2, 0, 2]])
    assert find_embeddings(candidate, task, task.train[:4], store=store) is not None
    assert find_embeddings(candidate, task, task.train[:5], store=store) is None
    assert find_embeddings(candidate, task, task.train[:1], store=Store(tmp_path / "other")) is None


def test_draws_of_a_heap_share_what_is_known_of_its_images(world, tmp_path, monkeypatch):
    candidate, _, model = world
    root, store = write_heap(tmp_path / "heap"), Store(tmp_path / "store")

    def drawn(images):
        return load_task(root, TaskOptions(classes=SHAPES, images=images), workdir=tmp_path / "work")

    few, many = drawn(10), drawn(16)
    first = embed(candidate, few, few.screened, load=lambda: model, store=store)
    assert find_embeddings(candidate, many, many.screened, store=store) is None
    more = embed(candidate, many, many.screened, load=lambda: model, store=store)
    rows = [many.paths.index(path) for path in few.paths]
    np.testing.assert_array_equal(more.images[rows], first.images)
    assert more.at.tolist() == list(range(16))
    draw_shape("circle", np.random.default_rng(9)).save(root / few.paths[3])
    assert find_embeddings(candidate, drawn(10), few.screened, store=store) is None  # a changed file is another image
    monkeypatch.setattr(embedding, "_MOST", 12)
    embed(candidate, drawn(10), few.screened, load=lambda: model, store=store)
    assert find_embeddings(candidate, drawn(10), few.screened, store=store) is not None
    assert find_embeddings(candidate, many, many.screened, store=store) is None  # five of them were dropped


def test_other_texts_of_the_same_images_need_no_image_again(world, tmp_path):
    candidate, _, model = world
    store = Store(tmp_path / "store")
    task = load_task(write_heap(tmp_path / "heap"), TaskOptions(classes=SHAPES), workdir=tmp_path / "work")
    spoken = spoken_in(task, ("a drawing of a {}.",))
    text = model.text_features(task.prompts, spoken.templates).numpy()
    reword(candidate, task, spoken, text=text, store=store)
    assert find_embeddings(candidate, spoken, task.screened, store=store) is None  # nothing was known
    seen = embed(candidate, task, task.screened, load=lambda: model, store=store)
    reword(candidate, task, spoken, text=text, store=store)
    found = find_embeddings(candidate, spoken, task.screened, store=store)
    np.testing.assert_array_equal(found.images, seen.images)
    np.testing.assert_array_equal(found.text, text)
    assert not np.allclose(found.text, seen.text)


def test_what_the_check_raises_ends_the_work_and_keeps_nothing_half(world, tmp_path):
    candidate, task, model = world

    def late():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        embed(candidate, task, task.train[:1], load=lambda: model, store=Store(tmp_path), check=late)
    assert find_embeddings(candidate, task, task.train[:1], store=Store(tmp_path)) is None


@pytest.mark.parametrize("place", ["an image", "the zero image"])
def test_embeddings_that_are_not_finite_make_a_candidate_unavailable(world, tmp_path, place):
    candidate, task, _ = world
    model = zoo.load(candidate)
    bias = next(each for name, each in model.visual.named_parameters() if name.endswith("bias"))
    if place == "an image":
        model = replace(model, std=(1e-45, 1e-45, 1e-45))  # pixels become infinite on any machine
    else:
        bias.data.fill_(3e38)
    with pytest.raises(TrialUnavailable, match=r"embeddings of .* are not finite.*but got NaN"):
        embed(candidate, task, task.train[:3], load=lambda: model, store=Store(tmp_path))
    assert find_embeddings(candidate, task, task.train[:3], store=Store(tmp_path)) is None
