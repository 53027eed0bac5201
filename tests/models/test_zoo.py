"""Loading real weights through open_clip."""

import gzip
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models import candidates, hubfiles, zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.catalogue import installed, package_file, read_json, tags
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.models.loaders import NoStartValues
from vlmsel_auto.models.modeldir import family_of, view_of
from vlmsel_auto.models.sources.open_clip_tags import published
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.preprocessing import render

ONE_OF_EACH = [
    "ViT-Mi-8-64.all-l",
    "ViT-GAP-8-64.odd-s",
    "RN-Mi-64.all-m",
    "ConvNeXt-Mi-64.all-m",
    "EffNet-Mi-64.all-m",
]
SIGLIP = {
    "embed_dim": 16,
    "custom_text": True,
    "init_logit_bias": -10.0,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture
def folder(minizoo: Path, tmp_path: Path) -> Path:
    target = tmp_path / "mine"
    shutil.copytree(minizoo / "ViT-Mi-16-64.all-m", target)
    return target


def _local(folder: Path) -> Candidate:
    return candidates.resolve(f"local-dir:{folder}")[0]


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        table, _, inner = key.partition("__")
        config["model_cfg"][table][inner] = value
    path.write_text(json.dumps(config))


def _prepare(folder: Path, **changes: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "preprocess_cfg": {**config["preprocess_cfg"], **changes}}))


def _noise(size: int, *, n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_embeddings_equal_open_clips_own(name: str) -> None:
    (candidate,) = candidates.resolve(name)
    model = zoo.load(candidate)
    reference, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{candidate.path}")
    reference.eval()
    images = [
        Image.fromarray(each) for each in np.random.default_rng(1).integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    ]
    theirs = torch.stack([preprocess(image) for image in images])
    ours = model.normalise(np.stack([render(image, candidate.view) for image in images]))
    assert torch.equal(ours, theirs)
    with torch.no_grad():
        # not to the bit: products depend on how the weights lie in memory
        assert torch.allclose(model.embed(ours), reference.encode_image(theirs, normalize=False), atol=1e-5, rtol=1e-5)
    assert all(each.dtype == torch.float32 and not each.requires_grad for each in model.model.parameters())
    assert not model.model.training
    assert model.logit_scale == pytest.approx(float(reference.logit_scale.detach().exp()))


def test_every_member_of_the_zoo_loads_and_fits_its_card() -> None:
    for candidate in candidates.mini_zoo():
        model = zoo.load(candidate)
        assert sum(each.numel() for each in model.model.parameters()) == candidate.params
        assert model.text_features(["cat", "dog", "car"], ["a photo of a {}."]).shape == (3, 96)


def test_the_shipped_catalogue_is_what_the_installed_open_clip_knows() -> None:
    shipped = read_json(package_file("data") / "openclip_catalogue.json")
    if shipped["open_clip"] != version("open_clip_torch"):
        pytest.skip("made for another open_clip; candidates.resolve then asks the installed one")
    known = installed()
    assert {arch: set(each) for arch, each in tags().items()} == {arch: set(each) for arch, (_, each) in known.items()}
    assert sum(len(each) for _, each in known.values()) > 150
    for arch, (model_cfg, each) in known.items():
        size = model_cfg["vision_cfg"]["image_size"]
        for tag, cfg in each.items():
            found = published(arch, tag)
            assert found is not None
            assert found.view == view_of(cfg, size=size, name=arch)
            assert found.family == family_of(model_cfg)


def test_class_weights_are_means_of_unit_text_embeddings() -> None:
    model = zoo.load(candidates.resolve("ViT-Mi-8-64.all-l")[0])
    templates = ["a photo of a {}.", "a drawing of the {}."]
    found = model.text_features(["red fox", "{brace}"], templates)
    for row, prompt in zip(found, ["red fox", "{brace}"], strict=True):
        each = torch.stack([model.text_features([template.replace("{}", prompt)], ["{}"])[0] for template in templates])
        expected = each.mean(dim=0)
        assert torch.allclose(row, expected / expected.norm(), atol=1e-6)
    assert not found.requires_grad
    assert found.dtype == torch.float32


def test_zero_shot_tells_drawn_shapes_apart() -> None:
    model = zoo.load(candidates.resolve("ViT-Mi-8-64.synth-s")[0])
    size, grid = 64, np.mgrid[-1:1:64j, -1:1:64j]
    disc = np.hypot(*grid) < 0.6
    square = np.abs(grid).max(axis=0) < 0.55
    pixels = np.full((2, size, size, 3), 255, dtype=np.uint8)
    pixels[0][disc] = pixels[1][square] = (200, 30, 30)
    text = model.text_features(["circle", "square"], ["a {}.", "a drawing of a {}."])
    with torch.no_grad():
        logits = class_logits(
            model.embed(model.normalise(pixels)), head=text, bias=torch.zeros(2), scale=model.logit_scale
        )
    margins = logits[:, 0] - logits[:, 1]
    assert margins[0] > margins[1]


def test_embedding_is_differentiable() -> None:
    model = zoo.load(candidates.resolve("RN-Mi-64.all-m")[0])
    images = model.normalise(_noise(64)).requires_grad_()
    model.embed(images).norm(dim=1).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_normalise_takes_read_only_arrays_and_tensors_and_leaves_them_alone() -> None:
    model = zoo.load(candidates.resolve("RN-Mi-64.all-m")[0], text=False)
    pixels = _noise(64)
    pixels.flags.writeable = False
    tensor = torch.tensor(pixels)
    assert torch.equal(model.normalise(pixels), model.normalise(tensor))
    assert torch.equal(tensor, torch.tensor(pixels))
    with pytest.raises(ValueError, match=r"uint8 \(n, S, S, 3\), but got torch.float32"):
        model.normalise(tensor.float())
    with pytest.raises(ValueError, match="but got"):
        model.normalise(tensor[0])


def test_without_text_there_are_no_class_weights() -> None:
    model = zoo.load(candidates.resolve("RN-Mi-64.all-m")[0], text=False)
    with pytest.raises(TrialUnavailable, match="loaded without text"):
        model.text_features(["a"], ["{}"])
    with pytest.raises(ValueError, match="At least one prompt"):
        zoo.load(candidates.resolve("RN-Mi-64.all-m")[0]).text_features([], ["{}"])


def test_weights_that_vanish_after_resolving_are_refused(folder: Path) -> None:
    candidate = _local(folder)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(CandidateError, match="no weights"):  # open_clip alone would return a random model
        zoo.load(candidate)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing", "shape"])
def test_damaged_weights_are_unavailable(folder: Path, damage: str) -> None:
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "text":
        weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif damage == "missing":
        del state["visual.proj"]
        save_file(state, weights)
    else:
        save_file({**state, "visual.proj": state["visual.proj"][:, :-1].contiguous()}, weights)
    with pytest.raises(TrialUnavailable, match=r"Cannot load candidate .*mine.* from .*safetensors.*but got"):
        zoo.load(_local(folder))


def test_a_pickle_loads_only_as_plain_weights(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    assert zoo.load(_local(folder)).logit_scale > 1

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harmed"),)

    torch.save({**state, "evil": Evil()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(TrialUnavailable, match="only tensors are read, no code") as refused:
        zoo.load(_local(folder))
    assert "weights_only" not in str(refused.value)  # torch advises to set it to False
    assert not (tmp_path / "harmed").exists()


def test_weights_with_nan_are_refused_by_name(folder: Path) -> None:
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(TrialUnavailable, match=r"NaN or infinite values in 'visual\.proj'"):
        zoo.load(_local(folder))


def test_a_buffer_with_nan_is_refused_by_name_and_a_mask_is_not(minizoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(minizoo / "RN-Mi-64.all-m", folder)
    state = load_file(folder / "open_clip_model.safetensors")
    name = next(each for each in state if each.startswith("visual.") and each.endswith("running_mean"))
    save_file({**state, name: torch.full_like(state[name], torch.nan)}, folder / "open_clip_model.safetensors")
    with pytest.raises(TrialUnavailable, match=f"NaN or infinite values in {name!r}"):
        zoo.load(_local(folder))
    loaded = zoo.load(candidates.resolve("ViT-Mi-16-64.all-m")[0])
    assert any(torch.isinf(each).any() for each in loaded.model.buffers())


@pytest.mark.parametrize("value", [[0, 0, 0, 0], [0.5], "abc", 0.5, [0, "1", 0], [0, 1e39, 0], [True, 0, 0]])
@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_mean_or_std_that_is_not_three_numbers_is_refused(folder: Path, key: str, value: object) -> None:
    _prepare(folder, **{key: value})
    with pytest.raises(CandidateError, match=f"needs three .* as {key}, but got "):
        zoo.load(_local(folder))


@pytest.mark.parametrize("value", [[0, 0, 0], [1, -1, 1]])
def test_a_std_that_nothing_can_be_divided_by_is_refused(folder: Path, value: list[float]) -> None:
    _prepare(folder, std=value)
    with pytest.raises(CandidateError, match="needs three finite positive numbers as std"):
        zoo.load(_local(folder))


def test_arguments_of_a_tokenizer_that_are_no_object_are_refused(folder: Path) -> None:
    candidate = _local(folder)
    _edit(folder, text_cfg__tokenizer_kwargs="x")
    with pytest.raises(CandidateError, match=r"tokenizer_kwargs in .* must be an object, but got 'x'"):
        zoo.load(candidate)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_that_open_clip_would_pass_over_for_a_head_are_refused(folder: Path, suffix: str) -> None:
    candidate = _local(folder)
    weights = folder / "open_clip_model.safetensors"
    shutil.copyfile(weights, folder / "head.safetensors")
    assert zoo.load(candidate).logit_scale > 1
    weights.rename(folder / f"weights{suffix}")
    with pytest.raises(CandidateError, match=r"name it open_clip_model.safetensors, but got 'weights.*beside 'head"):
        zoo.load(candidate)


def test_safetensors_win_over_pickles(folder: Path) -> None:
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not a pickle")
    assert zoo.load(_local(folder)).logit_scale > 1


def test_a_vocabulary_is_found_in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = zoo.load(candidates.resolve("ViT-Mi-16-64.all-m")[0]).text_features(["cat"], ["a {}."])
    (folder / "vocabulary").mkdir()
    (folder / "bpe.txt.gz").rename(folder / "vocabulary" / "merges.gz")
    _edit(folder, text_cfg__tokenizer_kwargs={"bpe_path": "vocabulary/merges.gz"})
    monkeypatch.chdir(tmp_path)
    assert torch.equal(zoo.load(_local(folder)).text_features(["cat"], ["a {}."]), expected)


def test_a_vocabulary_too_large_for_the_tower_is_refused(folder: Path) -> None:
    (folder / "bpe.txt.gz").unlink()  # what is left is open_clip's own, of 49408 tokens
    with pytest.raises(TrialUnavailable, match="49408 > 2014"):
        zoo.load(_local(folder))
    (folder / "bpe.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(TrialUnavailable, match="mine"):
        zoo.load(_local(folder))
    (folder / "bpe.txt.gz").write_bytes(gzip.compress(b"header\na b"))
    assert zoo.load(_local(folder)).text_features(["a"], ["{}"]).shape == (1, 96)


def test_a_tokenizer_of_transformers_is_asked_for_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: None)
    _edit(
        folder, text_cfg__hf_tokenizer_name="someone/tokenizer", text_cfg__tokenizer_kwargs={"trust_remote_code": True}
    )
    with pytest.raises(TrialUnavailable, match="needs the package transformers"):
        zoo.load(_local(folder))


def test_a_siglip_style_model_keeps_its_bias_and_text_tower(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{key: value for key, value in SIGLIP.items() if key != "custom_text"})
    save_file({key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIGLIP}))
    loaded = zoo.load(_local(tmp_path))
    assert float(loaded.model.logit_bias) == -10.0
    assert loaded.text_features(["cat", "dog"], ["a {}."]).shape == (2, 16)


def test_quick_gelu_of_a_folder_is_kept(folder: Path) -> None:
    plain = zoo.load(_local(folder))
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_cfg": {**config["model_cfg"], "quick_gelu": True}}))
    quick = zoo.load(_local(folder))
    images = plain.normalise(_noise(64))
    with torch.no_grad():
        assert not torch.allclose(plain.embed(images), quick.embed(images), atol=1e-3)


def test_a_folder_that_changed_its_geometry_is_refused(folder: Path) -> None:
    candidate = _local(folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "preprocess_cfg": {**config["preprocess_cfg"], "resize_mode": "shortest"}}))
    with pytest.raises(TrialUnavailable, match="prepares images"):
        zoo.load(candidate)


def test_loading_leaves_the_terminal_and_the_logging_alone(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    import logging

    before = logging.root.manager.disable
    zoo.load(_local(folder))
    assert logging.root.manager.disable == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.trunc_normal_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    ],
)
def test_nothing_is_drawn_within_and_everything_after(fill):
    kept = torch.full((3, 4), 0.25)
    before = torch.get_rng_state()
    with NoStartValues():
        fill(kept)
        layer = nn.Linear(5, 5)
        nn.init.ones_(layer.weight)  # what is not random is filled
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layer.weight, torch.ones(5, 5))
    fill(kept)
    assert not torch.equal(torch.get_rng_state(), before)
    assert len(kept.unique()) > 6


@pytest.mark.parametrize("candidate", mini_zoo()[::5], ids=lambda each: each.id)
def test_a_loaded_model_has_every_weight_of_its_file(candidate):
    model = zoo.load(candidate).model
    (file,) = candidate.path.glob("*.safetensors")
    known = load_file(file)
    found = dict(model.named_parameters())
    assert set(found) <= set(known)
    assert all(torch.equal(value, known[name].float()) for name, value in found.items())
