"""Embeddings of class names in templates, measured once template by template, and of pictures of anything."""

import numpy as np
import pytest

from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.reference_embeddings import PICTURES, mean_text, reference_embeddings, reference_pictures
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve

PROMPTS = ("circle", "square", "star")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "{}.")


@pytest.fixture(scope="module")
def model():
    (candidate,) = resolve("ViT-Mi-4-32.glyph-s")
    return zoo.load(candidate)


def nobody():
    pytest.fail("nothing was missing")


def test_captions_are_the_models_own(model, tmp_path):
    found = reference_embeddings(
        model.candidate, PROMPTS, TEMPLATES, load=lambda: model, store=Store(tmp_path)
    ).captions
    assert found.shape == (3, 3, model.text_features(PROMPTS, TEMPLATES).shape[1])
    np.testing.assert_allclose(found, model.caption_features(PROMPTS, TEMPLATES).numpy().transpose(1, 0, 2), atol=1e-6)
    np.testing.assert_allclose(mean_text(found), model.text_features(PROMPTS, TEMPLATES).numpy(), atol=1e-6)


def test_only_templates_that_are_not_kept_are_measured(model, tmp_path):
    store, asked = Store(tmp_path), []

    class Watched:
        normalise, embed = model.normalise, model.embed

        def caption_features(self, prompts, templates):
            asked.append(tuple(templates))
            return model.caption_features(prompts, templates)

    def watched():
        return Watched()

    def made(templates, load):
        return reference_embeddings(model.candidate, PROMPTS, templates, load=load, store=store).captions

    some, everything = made(TEMPLATES[:2], watched), made(TEMPLATES, watched)
    again = made(TEMPLATES[::-1], nobody)
    assert asked == [TEMPLATES[:2], TEMPLATES[2:]]
    np.testing.assert_array_equal(everything[:2], some)
    np.testing.assert_array_equal(again, everything[::-1])


def test_other_class_names_are_others(model, tmp_path):
    store = Store(tmp_path)
    one = reference_embeddings(model.candidate, PROMPTS, TEMPLATES, load=lambda: model, store=store)
    other = reference_embeddings(model.candidate, PROMPTS[::-1], TEMPLATES, load=lambda: model, store=store)
    np.testing.assert_allclose(other.captions, one.captions[:, ::-1], atol=1e-6)


def test_pictures_of_anything_are_embedded_once(model, tmp_path):
    store = Store(tmp_path)
    one = reference_embeddings(model.candidate, PROMPTS, TEMPLATES, load=lambda: model, store=store)
    pixels = model.normalise(reference_pictures(model.candidate.view.size))
    np.testing.assert_allclose(one.elsewhere, model.embed(pixels).detach().numpy(), atol=1e-5)
    assert len(one.elsewhere) == PICTURES
    again = reference_embeddings(model.candidate, PROMPTS, TEMPLATES, load=nobody, store=store)
    np.testing.assert_array_equal(again.elsewhere, one.elsewhere)


@pytest.mark.parametrize("size", [32, 224])
def test_reference_pictures_differ_and_are_of_the_size_that_a_candidate_wants(size):
    found = reference_pictures(size)
    assert (found.shape, found.dtype) == ((PICTURES, size, size, 3), np.uint8)
    assert len(np.unique(found.reshape(PICTURES, -1), axis=0)) == PICTURES
    assert (found.reshape(PICTURES, -1).std(axis=1) > 0).all()


def test_reference_pictures_are_the_same_each_time():
    np.testing.assert_array_equal(reference_pictures(48), reference_pictures(48))
