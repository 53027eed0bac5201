"""Research figures are those of a direct computation on the images of the library's cells."""

import numpy as np
import pytest

from helpers.blobs import texts_and_images
from helpers.library_world import MEMBERS, SETTINGS, draw
from vlmsel_auto import events
from vlmsel_auto.bench.measure_research import assemble, class_statistics, measure_research
from vlmsel_auto.bench.research import load, save
from vlmsel_auto.cache import Store
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.measuring.build import load_tasks
from vlmsel_auto.measuring.cells import unlabelled_images
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.ranking.evidence import knn, zeroshot
from vlmsel_auto.ranking.signals import Embedded


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
    made = measure_research(model=model, task=task, settings=SETTINGS, store=Store(tmp_path / "store"))
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
    assert made.evidence[0, 2, "knn"] == knn.knn(features(task.support), task.labels[task.support])
    assert {"confidence", "iimm", "text_accuracy"} <= set(made.signals)
    assert "margin_cosine" not in made.signals  # the library has it
    whole = assemble([made])
    save(whole, tmp_path / "r.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "r.safetensors").signals, whole.signals)


def test_class_statistics_in_loops():
    features, labels, texts = texts_and_images(spread=0.6)
    seen = Embedded(features=features[:30], labels=labels[:30], texts=texts, baseline=np.zeros(texts.shape[1]))
    recall, means, spread = class_statistics(seen)
    unit = features[:30] / np.linalg.norm(features[:30], axis=1, keepdims=True)
    right = seen.predicted == seen.classes
    for c in range(3):
        assert recall[c] == pytest.approx(right[seen.classes == c].mean())
        np.testing.assert_allclose(means[c], unit[seen.classes == c].mean(axis=0))
    np.testing.assert_allclose(spread, unit.std(axis=0))
