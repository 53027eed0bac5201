import dataclasses
import json

import numpy as np
import pytest
import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.conductance.profiles import load, profile, profile_key, save
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.zoo import load as load_model


@pytest.fixture(scope="module")
def model():
    return load_model(resolve("RN-Mi-64.all-m")[0])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, size=(3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def text(model):
    return model.text_features(["a cat", "a dog", "a house"], ["a photo of {}."])


def _profile(model, pixels, text, **options):
    settings = {"text_features": text, "candidate": "RN-Mi-64.all-m", "task": "pets", "error": 0.1}
    return profile(model, pixels, **{**settings, **options})


def _equal(a, b):
    for field in dataclasses.fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        elif isinstance(one, tuple) and one and isinstance(one[0], np.ndarray):
            for x, y in zip(one, two, strict=True):
                np.testing.assert_array_equal(x, y)
        else:
            assert one == two
    return True


def test_a_profile_of_a_mini_zoo_member(model, pixels, text):
    made = _profile(model, pixels, text)
    assert made.blocks == ("layer1.0", "layer2.0", "layer3.0", "layer4.0")
    assert made.activity.shape == made.completeness_error.shape == (3, 4)
    assert [s.shape[0] for s in made.signature] == [3] * 4
    assert (made.scalar, made.baseline, made.integrator) == ("margin", "zeros", "trapezoid")
    assert 0 < made.error < 0.1
    assert np.isfinite(made.total).all()
    for b in range(4):
        np.testing.assert_allclose(made.absolute[b].sum(1), made.activity[:, b], rtol=1e-5)
        assert (np.abs(made.signature[b]) <= made.absolute[b] * (1 + 1e-5) + 1e-7).all()


def test_a_profile_says_whether_the_wanted_error_was_reached(model, pixels, text):
    made = _profile(model, pixels, text)
    assert (made.wanted, made.reached) == (0.1, True)
    short = _profile(model, pixels, text, error=0.001, max_points=65)
    assert (short.wanted, short.reached, short.points) == (0.001, False, 65)
    assert short.error > 0.001
    fixed = _profile(model, pixels, text, points=9)
    assert (fixed.wanted, fixed.reached, fixed.points) == (None, True, 9)


def test_provenance_tells_what_a_profile_was_made_from(model, pixels, text):
    made = dict(_profile(model, pixels, text).provenance)
    assert made["images"] == "3"
    assert (made["device"], made["precision"], made["torch"]) == ("cpu", "model", torch.__version__)
    assert made["tower"] == "ModifiedResNet"
    other = dict(_profile(model, pixels[:, ::-1].copy(), None).provenance)
    changed = {name for name in made if made[name] != other[name]}
    assert changed == {"pixels_sha256", "class_weights_sha256"}
    assert other["class_weights_sha256"] == "none"
    assert len(made["weights_sha256"]) == 64


def test_without_class_names_the_norm_is_taken(model, pixels):
    assert _profile(model, pixels, None).scalar == "norm"


def test_a_stored_profile_is_read_back_to_the_bit(model, pixels, text, tmp_path, monkeypatch):
    store = Store(tmp_path)
    made = _profile(model, pixels, text, store=store)
    files = sorted(p.suffix for p in tmp_path.rglob("*") if p.is_file())
    assert files == [".json", ".safetensors"]
    monkeypatch.setattr("vlmsel_auto.conductance.profiles.conductance", lambda *_, **__: pytest.fail("computed again"))
    assert _equal(_profile(model, pixels, text, store=store), made)


def test_a_nan_error_survives_the_round_trip(model, pixels, text, tmp_path):
    made = dataclasses.replace(_profile(model, pixels, text), error=float("nan"))
    save(Store(tmp_path), "ab" * 32, made)
    found = load(Store(tmp_path), "ab" * 32)
    assert found is not None
    assert np.isnan(found.error)


def test_the_key_changes_with_everything_that_matters(model, pixels, text):
    def key(*, model=model, pixels=pixels, text=text, names=("c", "t"), settings=(0.1,)):
        return profile_key(model, pixels, text_features=text, names=list(names), settings=list(settings))

    other = pixels.copy()
    other[0, 0, 0, 0] ^= 1
    keys = {
        key(),
        key(pixels=other),
        key(text=text.flip(0)),
        key(text=None),
        key(names=("c", "u")),
        key(settings=(0.2,)),
        key(model=dataclasses.replace(model, logit_scale=model.logit_scale * 2)),
        key(model=dataclasses.replace(model, mean=(0.1, 0.2, 0.3))),
    }
    assert len(keys) == 8
    assert key() in keys
    parameter = next(model.visual.parameters())
    with torch.no_grad():
        parameter.add_(1)
        changed = key()
        parameter.sub_(1)
    assert changed not in keys


def test_another_version_or_damage_is_computed_again(model, pixels, text, tmp_path):
    store = Store(tmp_path)
    made = _profile(model, pixels, text, store=store)
    record = next(tmp_path.rglob("*.json"))
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "version": 0}))
    assert load(store, record.stem) is None
    record.write_text(json.dumps({**content, "version": 1}))  # its spectral rule had other points
    assert load(store, record.stem) is None
    for damage in ({"points": None}, {"provenance": 3}, {"wanted": "much"}):
        record.write_text(json.dumps({**content, **damage}))
        assert load(store, record.stem) is None
    assert _equal(_profile(model, pixels, text, store=store), made)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((1, 64, 64, 3)), "uint8 .* got float64"),
        (np.zeros((64, 64, 3), np.uint8), r"got uint8 \(64, 64, 3\)"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"got uint8 \(0, 64"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"\(64, 64\) pixels, but got \(32, 32\)"),
    ],
)
def test_bad_pixels_are_refused(model, text, bad, message):
    with pytest.raises(ConductanceError, match=message):
        _profile(model, bad, text)
