"""Exported folders load in plain open_clip and say the same."""

import json
import os
import re
import resource
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmsel_auto.errors import CandidateError, WorkdirError
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.exporting import Classifier, export, read_classifier
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.prediction import predict

CLASSES = ("cat", "dog", "odd `name`")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


def _model(name: str = "RN-Mi-64.all-m") -> LoadedModel:
    return zoo.load(candidates.resolve(name)[0])


def _export(model: LoadedModel, directory: Path, *, bias: float = 0.25, about: dict[str, str] | None = None) -> Path:
    classifier = Classifier(
        head=model.text_features(CLASSES, TEMPLATES).numpy(),
        bias=np.array([0.0, bias, -bias]),
        scale=model.logit_scale,
        classes=CLASSES,
        prompts=CLASSES,
        templates=TEMPLATES,
        about=about or {},
    )
    return export(model, classifier, directory=directory)


def _image(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("name", ["ViT-Mi-16-64.all-m", "RN-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "EffNet-Mi-64.all-m"])
def test_plain_open_clip_gives_the_same_embeddings(name: str, tmp_path: Path) -> None:
    model = _model(name)
    with torch.no_grad():  # as tuning would: weights that no published file has
        for each in model.model.parameters():
            each.mul_(1.01)
    folder = _export(model, tmp_path / "model")
    plain, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    plain.eval()
    assert all(torch.equal(value, model.model.state_dict()[key]) for key, value in plain.state_dict().items())
    image = Image.open(_image(tmp_path / "image.png"))
    with torch.no_grad():
        theirs = plain.encode_image(preprocess(image).unsqueeze(0))
        ours = model.embed(preprocess(image).unsqueeze(0))
    assert torch.allclose(theirs, ours, atol=1e-5, rtol=1e-5)


def test_our_own_loader_gets_the_texts_back_wherever_the_folder_lies(tmp_path: Path) -> None:
    model = _model()
    folder = _export(model, tmp_path / "model")
    shutil.move(folder, tmp_path / "moved")
    again = zoo.load(candidates.resolve(f"local-dir:{tmp_path / 'moved'}")[0])
    assert torch.allclose(again.text_features(CLASSES, TEMPLATES), model.text_features(CLASSES, TEMPLATES), atol=1e-6)
    assert (again.mean, again.std, again.candidate.view) == (model.mean, model.std, model.candidate.view)


@pytest.mark.filterwarnings("ignore")  # of open_clip
def test_the_model_cards_own_code_runs_and_agrees_with_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _export(_model(), tmp_path / "model")
    image = _image(tmp_path / "image.png")
    with Image.open(image) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6  # as of a telephone that was held upright
        picture.save(image, exif=exif)
    card = (folder / "README.md").read_text()
    code = re.search(r"## Use with plain open_clip\n\n(.*?)\n## Files", card, re.DOTALL)
    assert code is not None
    lines = [line.removeprefix("    ") for line in code[1].splitlines() if line.startswith("    ")]
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec("\n".join(lines), space)  # noqa: S102 - our own card
    found = predict(folder, [image])
    assert np.allclose(space["probabilities"][0].tolist(), found.probabilities[0], atol=1e-5)
    assert space["tokenizer"].vocab_size == 2014


def test_the_classifier_comes_back_as_it_was(tmp_path: Path) -> None:
    model = _model()
    folder = _export(model, tmp_path / "model", about={"method": "probe"})
    found = read_classifier(folder)
    assert torch.equal(torch.tensor(found.head), model.text_features(CLASSES, TEMPLATES))
    assert found.bias.tolist() == [0.0, 0.25, -0.25]
    assert found.scale == pytest.approx(model.logit_scale, rel=1e-6)
    assert (found.classes, found.prompts, found.templates) == (CLASSES, CLASSES, TEMPLATES)
    assert found.about == {"method": "probe"}
    record = json.loads((folder / "classes.json").read_text())
    assert record["candidate"] == "RN-Mi-64.all-m"


def test_quick_gelu_and_a_hub_style_configuration_are_kept(tmp_path: Path) -> None:
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "custom_text": True,
        "init_logit_bias": -10.0,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    (tmp_path / "source").mkdir()
    save_file(
        {key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "source" / "model.safetensors"
    )
    record = {"model_cfg": config, "preprocess_cfg": {"resize_mode": "longest", "fill_color": 7}}
    (tmp_path / "source" / "open_clip_config.json").write_text(json.dumps(record))
    loaded = zoo.load(candidates.resolve(f"local-dir:{tmp_path / 'source'}")[0])
    folder = _export(loaded, tmp_path / "model")
    written = json.loads((folder / "open_clip_config.json").read_text())
    assert written["model_cfg"] == config
    again = zoo.load(candidates.resolve(folder)[0])
    assert again.candidate.view == loaded.candidate.view
    assert again.candidate.view.fill_color == 7
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert torch.allclose(again.embed(images), loaded.embed(images), atol=1e-6)
    assert float(again.model.logit_bias) == float(loaded.model.logit_bias) == -10.0
    assert str(tmp_path) not in "".join(
        path.read_text() for path in folder.iterdir() if path.suffix in {".json", ".md"}
    )


def test_an_earlier_export_is_replaced_and_nothing_is_left_behind(tmp_path: Path) -> None:
    model = _model()
    (tmp_path / ".part-model").mkdir()  # of a run that was killed
    _export(model, tmp_path / "model")
    (tmp_path / "model" / "stale.txt").write_text("old")
    _export(model, tmp_path / "model", bias=0.5)
    assert read_classifier(tmp_path / "model").bias.tolist() == [0.0, 0.5, -0.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "bpe.txt.gz",
        "classes.json",
        "head.safetensors",
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_a_running_export_of_a_neighbour_is_left_alone(tmp_path: Path) -> None:
    neighbours = {".part-model-2", ".old-model-2"}
    for each in (*neighbours, ".part-model", ".old-model"):
        (tmp_path / each).mkdir()
    _export(_model(), tmp_path / "model", bias=0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"model", *neighbours}


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_between_the_renames_keeps_the_earlier_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    model, rename, done = _model(), Path.rename, list[int]()
    _export(model, tmp_path / "model")

    def interrupted(self: Path, target: Path) -> Path:
        done.append(1)
        if len(done) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _export(model, tmp_path / "model", bias=0.5)
    assert read_classifier(tmp_path / "model").bias.tolist() == [0.0, 0.25, -0.25]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_was_killed_between_the_renames_is_back_before_anything_is_written(tmp_path: Path) -> None:
    model = _model()
    _export(model, tmp_path / "model").rename(tmp_path / ".old-model")
    model.model_cfg["vision_cfg"]["no JSON"] = {1j}  # this export fails
    with pytest.raises(TypeError, match="not JSON serializable"):
        _export(model, tmp_path / "model", bias=0.5)
    assert read_classifier(tmp_path / "model").bias.tolist() == [0.0, 0.25, -0.25]


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(WorkdirError, match="must be new, empty or an earlier export"):
        _export(_model(), tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="must be new"):
        _export(_model(), tmp_path / "file")


@pytest.mark.parametrize("limit", [1_000, 100_000, 1_000_000])
def test_a_full_disk_keeps_the_earlier_export(tmp_path: Path, limit: int) -> None:
    model = _model()
    _export(model, tmp_path / "model")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # larger files fail as they do on a full disk
    try:
        with pytest.raises(WorkdirError, match="Cannot write the export folder"):
            _export(model, tmp_path / "model", bias=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_classifier(tmp_path / "model").bias.tolist() == [0.0, 0.25, -0.25]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_export_is_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = _export(_model(), tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) & 0o444 for path in folder.iterdir()} == {0o444}


@pytest.mark.parametrize("wrong", ["rows", "bias", "nan", "scale", "prompts", "none", "twice"])
def test_a_head_that_does_not_fit_is_refused(tmp_path: Path, wrong: str) -> None:
    head, bias, scale = np.zeros((2, 96)), np.zeros(2), 10.0
    names: tuple[str, ...] = ("a", "b")
    prompts = names
    match wrong:
        case "rows":
            head = np.zeros((3, 96))
        case "bias":
            bias = np.zeros((2, 1))
        case "nan":
            head[0, 0] = np.nan
        case "scale":
            scale = 0.0
        case "prompts":
            prompts = ("a",)
        case "twice":
            names = ("a", "a")
        case "none":
            head, bias, names, prompts = np.zeros((0, 96)), np.zeros(0), (), ()
    classifier = Classifier(head=head, bias=bias, scale=scale, classes=names, prompts=prompts, templates=("{}",))
    with pytest.raises(ValueError, match="but got"):
        export(_model(), classifier, directory=tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage", ["head", "json", "version", "classes", "short", "absent", "no head", "truncated", "twice"]
)
def test_a_damaged_classifier_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    folder = _export(_model(), tmp_path / "model")
    record = json.loads((folder / "classes.json").read_text())
    head = load_file(folder / "head.safetensors")
    match damage:
        case "head":
            save_file({"weight": head["weight"]}, folder / "head.safetensors")
        case "json":
            (folder / "classes.json").write_text("{")
        case "version":
            (folder / "classes.json").write_text(json.dumps({**record, "version": 99}))
        case "classes":
            (folder / "classes.json").write_text(json.dumps({**record, "classes": [1, 2, 3]}))
        case "short":
            (folder / "classes.json").write_text(json.dumps({**record, "classes": ["a"], "prompts": ["a"]}))
        case "twice":
            (folder / "classes.json").write_text(json.dumps({**record, "classes": ["cat", "cat", "dog"]}))
        case "absent":
            (folder / "classes.json").unlink()
        case "no head":
            (folder / "head.safetensors").unlink()
        case "truncated":
            (folder / "head.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CandidateError, match=r"(damaged|is missing).*but got .*model"):
        read_classifier(folder)


@pytest.mark.parametrize("name", ["head.safetensors", "classes.json"])
def test_no_file_of_the_classifier_may_be_a_link_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = _export(_model(), tmp_path / "model")
    (folder / name).rename(folder / "kept")
    (folder / name).symlink_to("kept")
    assert len(read_classifier(folder).classes) > 1
    (folder / "kept").rename(tmp_path / "outside")
    (folder / name).unlink()
    (folder / name).symlink_to("../outside")
    with pytest.raises(CandidateError, match=f"must lie inside it, but got '{name}'"):
        read_classifier(folder)
