"""ranking/research.py: files, figures in a library's order; measure_research.py against a direct computation."""

import dataclasses

import numpy as np
import pytest

from benchmarks.ranking import compared_scores, research
from helpers.blobs import texts_and_images
from helpers.library_world import MEMBERS, SETTINGS, draw
from helpers.research_world import research_of
from helpers.zoo_world import World
from tools import measure_research
from vlmsel_auto import events
from vlmsel_auto.cache import Store
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.file import save as save_library
from vlmsel_auto.measuring.build import load_tasks
from vlmsel_auto.measuring.cells import unlabelled_images
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.signals import Embedded


@pytest.fixture(scope="module")
def world():
    return World(candidates=3, tasks=4)


@pytest.fixture(scope="module")
def figures(world):
    return research_of(world)


def test_file_round_trip(figures, tmp_path):
    research.save(figures, tmp_path / "r.safetensors")
    read = research.load(tmp_path / "r.safetensors")
    for item in dataclasses.fields(research.Research):
        one, other = getattr(read, item.name), getattr(figures, item.name)
        if item.name.startswith("class_") or item.name in ("image_sd", "signature", "absolute", "norm_activity"):
            for a, b in zip(one, other, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)  # embeddings are kept as float16
        else:
            np.testing.assert_equal(one, other, err_msg=item.name)


def test_files_of_another_kind_are_refused(world, tmp_path):
    save_library(world.library(), tmp_path / "l.safetensors")
    with pytest.raises(LibraryError, match="do not say 'vlmsel_auto research figures'"):
        research.load(tmp_path / "l.safetensors")


def test_figures_go_by_the_order_of_the_library(world, figures):
    library = world.library().select(world.ids[::-1]).select_tasks(world.names[1:3])
    found = figures.aligned(library)
    assert [one.id for one in found.candidates] == world.ids[::-1]
    np.testing.assert_array_equal(found.signals, figures.signals[::-1, 1:3])
    np.testing.assert_array_equal(found.signature[0][1], figures.signature[2][1][1:3])
    np.testing.assert_array_equal(found.class_text[0], figures.class_text[2][4:12])
    rest = found.take(np.arange(len(found.candidates)), np.array([1]))
    np.testing.assert_array_equal(rest.class_text[0], figures.class_text[2][8:12])
    assert found.class_slices() == (slice(0, 4), slice(4, 8))


def test_other_weights_and_other_images_are_not_known(world, figures):
    library = world.library()
    other = dataclasses.replace(
        library,
        candidates=(dataclasses.replace(library.candidates[0], sha256="other"), *library.candidates[1:]),
        tasks=(*library.tasks[:3], dataclasses.replace(library.tasks[3], digest="other")),
    )
    found = figures.aligned(other)
    assert np.isnan(found.signals[0]).all()
    assert np.isnan(found.signals[:, 3]).all()
    np.testing.assert_array_equal(found.signals[1:, :3], figures.signals[1:, :3])
    assert found.signature[0] == ()
    assert np.isnan(found.class_text[1][12:]).all()


def test_a_joined_library_has_the_scores_of_both(world, figures):
    library = world.library()
    both, aligned = research.joined(library, figures)
    np.testing.assert_array_equal(aligned.signals, figures.signals)
    assert set(both.signal_names) == {*library.signal_names, *figures.signal_names}
    assert set(both.evidence_names) == {*library.evidence_names, *figures.evidence_names}
    k = both.evidence_names.index("hscore")
    np.testing.assert_array_equal(
        both.evidence_draws[..., k], figures.evidence_draws[..., figures.evidence_names.index("hscore")]
    )


def test_figures_are_those_of_a_direct_computation(tmp_path):
    candidate = resolve(MEMBERS[0])[0]
    folder = draw(tmp_path / "two", shapes=("bar", "circle", "square"), seed=2)
    (task,) = load_tasks(
        [folder],
        candidates=(candidate,),
        settings=SETTINGS,
        leave_out=(),
        cache=tmp_path / "cache",
        sink=events.discard,
    )
    model = zoo.load(candidate)
    made = measure_research.measure_research(model=model, task=task, settings=SETTINGS, store=Store(tmp_path / "store"))
    texts = model.text_features(task.prompts, task.templates)

    def features(images):
        return model.embed(model.normalise(task.pixels.read(candidate.view, images))).detach().numpy()

    right = zeroshot.cosines(features(task.test), texts.numpy()).argmax(axis=1) == task.labels[task.test]
    np.testing.assert_allclose(made.class_accuracy, [right[task.labels[task.test] == k].mean() for k in range(3)])
    np.testing.assert_allclose(made.class_text, texts.numpy(), atol=1e-6)
    found = conductance(
        model.visual,
        model.normalise(task.pixels.read(candidate.view, unlabelled_images(task, SETTINGS)[:4])),
        scalar=make_scalar("margin", text_features=texts, logit_scale=model.logit_scale),
        points=5,
    )
    np.testing.assert_allclose(made.signature[0], found.signature[0].mean(axis=0), rtol=1e-3, atol=1e-4)
    assert made.norm_activity.shape == (len(found.blocks),)
    assert (made.norm_activity > 0).all()
    assert made.evidence[0, 2, "hscore"] == compared_scores.hscore(features(task.support), task.labels[task.support])
    assert {"confidence", "iimm", "text_accuracy"} <= set(made.signals)
    whole = measure_research.assemble([made])
    research.save(whole, tmp_path / "r.safetensors")
    np.testing.assert_array_equal(research.load(tmp_path / "r.safetensors").signals, whole.signals)


def test_class_statistics_in_loops():
    features, labels, texts = texts_and_images(spread=0.6)
    seen = Embedded(features=features[:30], labels=labels[:30], texts=texts, baseline=np.zeros(texts.shape[1]))
    recall, means, spread = measure_research.class_statistics(seen)
    unit = features[:30] / np.linalg.norm(features[:30], axis=1, keepdims=True)
    right = seen.predicted == seen.classes
    for c in range(3):
        assert recall[c] == pytest.approx(right[seen.classes == c].mean())
        np.testing.assert_allclose(means[c], unit[seen.classes == c].mean(axis=0))
    np.testing.assert_allclose(spread, unit.std(axis=0))
