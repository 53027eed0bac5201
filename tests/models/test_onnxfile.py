"""An ONNX file computes what `predict` does, and says how to use it, for every architecture of the mini zoo."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession

from helpers.drawings import SHAPES, draw_task
from helpers.exported_world import LEVELS, export_member, export_pool
from helpers.own_process import run_python
from vlmsel_auto.errors import CandidateError, InputError, MissingDependency, TaskError
from vlmsel_auto.events import Event, StageFinished, StageProgress
from vlmsel_auto.models import onnxcheck, onnxfile
from vlmsel_auto.models.exported import load_exported
from vlmsel_auto.models.familiar import Familiar
from vlmsel_auto.models.onnxfile import OnnxExport, export_onnx
from vlmsel_auto.models.prediction import judge, predict
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.preprocessing import read_view

QUICK = "EffNet-Mi-64.all-m"
Made = Callable[[str], tuple[Path, OnnxExport]]
LONG = ("ConvNeXt-Mi-64.all-m", "RN-Mi-64.all-m", "ViT-GAP-8-64.all-l", "ViT-Deep-8-48.all-m")
KINDS = (QUICK, "ViT-Mi-16-64.all-m", *(pytest.param(name, marks=pytest.mark.slow) for name in LONG))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """201 drawn images in three folders of classes."""
    return draw_task(tmp_path_factory.mktemp("images"), train=1, test=67) / "test"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_member(QUICK, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Made:
    """The folder of a member and its file, which is made once."""

    @cache
    def made(name: str) -> tuple[Path, OnnxExport]:
        place = tmp_path_factory.mktemp("onnx")
        folder = export_member(name, place / "model")
        return folder, export_onnx(folder, place / "out" / "model.onnx", images=[images])

    return made


def run(file: Path, images: list[Path], *, batch: int) -> np.ndarray:
    """What a person gets who has the file alone: views and names from its metadata."""
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    pixels = {
        name: np.stack([read_view(path, ImageView(**view))[0] for path in images])
        for name, view in json.loads(about["inputs"]).items()
    }
    parts = [
        session.run(["probabilities"], {name: each[start : start + batch] for name, each in pixels.items()})[0]
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", KINDS)
def test_the_file_says_what_the_model_says_for_any_batch(name: str, images: Path, exported: Made) -> None:
    folder, made = exported(name)
    assert made.check.images == 201
    assert made.check.labelled == 201
    assert made.check.same_class == 201
    assert made.check.largest_difference <= 1e-4
    expected = predict(folder, [images])
    right = sum(path.parent.name == label for path, label in zip(expected.paths, expected.labels, strict=True))
    assert made.check.model_right == made.check.file_right == right
    assert 50 < right < 201
    for batch in (1, 64):
        found = run(made.file, list(expected.paths), batch=batch)
        assert found.dtype == np.float32
        assert np.abs(found - expected.probabilities).max() <= 1e-4
    assert [each.name for each in made.file.parent.iterdir()] == ["model.onnx"]
    assert made.bytes == made.file.stat().st_size


@pytest.mark.slow
def test_an_ensemble_is_one_file_with_an_input_for_each_view(images: Path, tmp_path: Path) -> None:
    weights = {QUICK: 0.7, "ViT-Mi-4-32.glyph-s": 0.4, "ConvNeXt-Mi-64.all-m": 0.1}
    folder = export_pool(weights, tmp_path / "ensemble")
    made = export_onnx(str(folder), str(tmp_path / "ensemble.onnx"), images=[str(images)])
    expected = predict(folder, [images])
    assert np.abs(run(made.file, list(expected.paths), batch=50) - expected.probabilities).max() <= 1e-4
    about = InferenceSession(str(made.file)).get_modelmeta().custom_metadata_map
    assert {name: view["size"] for name, view in json.loads(about["inputs"]).items()} == {
        "pixels_1": 64,
        "pixels_2": 32,
    }
    members = json.loads(about["members"])
    assert {each["candidate"]: each["weight"] for each in members} == weights
    assert [each["input"] for each in members] == ["pixels_1", "pixels_2", "pixels_1"]


def test_metadata_says_how_to_use_it_and_names_no_place(exported: Made) -> None:
    model_dir, made = exported(QUICK)
    about = InferenceSession(str(made.file)).get_modelmeta().custom_metadata_map
    assert set(about) == {"vlmsel_auto", "classes", "inputs", "members", "preprocessing", "weights", "answers"}
    assert json.loads(about["classes"]) == list(SHAPES)
    config = json.loads((model_dir / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert json.loads(about["inputs"]) == {
        "pixels": {
            "size": 64,
            "resize_mode": config["resize_mode"],
            "interpolation": config["interpolation"],
            "fill_color": config["fill_color"],
        }
    }
    assert json.loads(about["answers"]) == encode(LEVELS)
    (member,) = json.loads(about["members"])
    assert (member["mean"], member["std"]) == (config["mean"], config["std"])
    assert member["candidate"] == QUICK
    assert member["weight"] == 1
    assert 0 < member["temperature"] < 1
    written = made.file.read_bytes()
    assert str(model_dir.parent).encode() not in written
    assert str(Path(onnxfile.__file__).parents[2]).encode() not in written
    assert sys.prefix.encode() not in written
    onnx.checker.check_model(str(made.file), full_check=True)


def test_the_file_says_how_unlike_an_image_is(images: Path, tmp_path: Path) -> None:
    known = Familiar(means=np.eye(1, 96, dtype=np.float32), limit=0.7)
    folder = export_member(QUICK, tmp_path / "model", known=known)
    made = export_onnx(folder, tmp_path / "model.onnx")
    model, files = load_exported(folder), sorted(images.rglob("*.png"))[:5]
    pixels = np.stack([read_view(path, model.views[0])[0] for path in files])
    (found,) = InferenceSession(str(made.file)).run(["unlike"], {"pixels": pixels})
    assert found == pytest.approx(judge(model, (pixels,))[1], abs=1e-4)
    assert np.ptp(found) > 0


@pytest.mark.slow
def test_an_export_tells_microsoft_nothing(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What onnxruntime would send it keeps below the home first, with a number for the machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    run_python("-m", "vlmsel_auto", "export", model_dir, "--onnx", tmp_path / "model.onnx")
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))


@pytest.mark.parametrize("name", [QUICK, pytest.param("RN-Mi-64.all-m", marks=pytest.mark.slow)])
def test_half_is_half_the_size_and_says_what_it_changes(
    name: str, images: Path, exported: Made, tmp_path: Path
) -> None:
    folder, whole = exported(name)
    half = export_onnx(folder, tmp_path / "half.onnx", images=[images], half=True)
    assert half.bytes < 0.7 * whole.bytes  # what is not weights stays
    expected = predict(folder, [images])
    found = run(half.file, list(expected.paths), batch=64)
    assert half.check.largest_difference == pytest.approx(np.abs(found - expected.probabilities).max(), abs=1e-6)
    assert whole.check.largest_difference < half.check.largest_difference < 0.05
    said = [SHAPES[row] for row in found.argmax(axis=1)]
    assert half.check.file_right == sum(
        path.parent.name == label for path, label in zip(expected.paths, said, strict=True)
    )
    assert half.check.model_right == whole.check.model_right
    assert half.check.same_class == sum(ours == theirs for ours, theirs in zip(expected.labels, said, strict=True))


def test_large_weights_lie_beside_the_file(
    model_dir: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxfile, "_LARGEST", 1000)
    made = export_onnx(model_dir, tmp_path / "model.onnx")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert made.bytes == sum(each.stat().st_size for each in tmp_path.iterdir())
    assert made.check.images == 16  # of noise: none were given
    assert made.check.labelled == 0
    expected = predict(model_dir, [images])
    assert np.abs(run(made.file, list(expected.paths), batch=64) - expected.probabilities).max() <= 1e-4


def test_images_that_are_none_are_passed_over_and_progress_is_told(model_dir: Path, tmp_path: Path) -> None:
    folder = draw_task(tmp_path / "task", train=1, test=1) / "test"
    (folder / "circle" / "notes.txt").write_text("no image")
    (folder / "other").mkdir()
    (folder / "circle" / "000.png").rename(folder / "other" / "000.png")
    events: list[Event] = []
    made = export_onnx(model_dir, tmp_path / "model.onnx", images=[folder], sink=events.append)
    assert (made.check.images, made.check.labelled) == (3, 2)
    told = [(each.done, each.text) for each in events if isinstance(each, StageProgress)]
    assert told == [
        (0, "read and translate the model"),
        (1, "simplify the graph"),
        (2, "write the file"),
        (4, ""),  # images
    ]
    assert isinstance(events[-1], StageFinished)
    with pytest.raises(TaskError, match=r"At least one usable image.*notes\.txt"):
        export_onnx(model_dir, tmp_path / "other.onnx", images=[folder / "circle" / "notes.txt"])
    assert not (tmp_path / "other.onnx").exists()


def test_a_file_that_computes_something_else_is_not_kept(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxfile, "TOLERANCE", -1.0)
    with pytest.raises(CandidateError, match=r"computes something else.*but got probabilities that differ by"):
        export_onnx(model_dir, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_in_any_batch_is_the_largest_difference(place: int) -> None:
    differences = [0.0, 1e-5, 0.0]
    differences[place] = np.nan
    checks = [onnxcheck.OnnxCheck(images=2, largest_difference=each, same_class=2) for each in differences]
    found = onnxcheck._together(checks)
    assert found.images == 6
    assert np.isnan(found.largest_difference)


def test_what_onnx_lacks_is_one_error(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: onnxfile._Graph, *pixels: object) -> object:
        return self.model(*pixels).softmax(dim=-1).svd()[0]

    monkeypatch.setattr(onnxfile._Graph, "forward", forward)
    with pytest.raises(CandidateError, match=r"cannot be put into ONNX; use its folder, but got \w+"):
        export_onnx(model_dir, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxfile, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependency, match=r"need onnxscript; install with: pip install 'vlmsel-auto\[onnx\]'"):
        export_onnx(model_dir, tmp_path / "model.onnx")


def test_a_place_that_cannot_be_written_is_told(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="ONNX file cannot be written here"):
        export_onnx(model_dir, tmp_path / "file" / "model.onnx")
    with pytest.raises(CandidateError, match="but got"):
        export_onnx(tmp_path / "absent", tmp_path / "model.onnx")
