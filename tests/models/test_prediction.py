"""Class probabilities of files and folders."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from helpers.exported_world import export_member, export_pool
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError, InputError, TaskError, TrialUnavailable
from vlmsel_auto.events import Event, StageFinished, StageProgress, StageStarted
from vlmsel_auto.models import candidates, prediction, zoo
from vlmsel_auto.models.exported import load_exported
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.familiar import UNLIKE, Familiar
from vlmsel_auto.models.pooling import log_probabilities, pool
from vlmsel_auto.models.prediction import iter_predictions, judge, predict
from vlmsel_auto.records import ImageView, TrialSpec
from vlmsel_auto.tasks.decode import decode_image
from vlmsel_auto.tasks.preprocessing import read_view, render
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.runner import Trial, TrialRunner

CLASSES = ("circle", "square", "cross")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported zero-shot classifier."""
    return export_member("ViT-Mi-16-64.all-m", tmp_path_factory.mktemp("export") / "model", classes=CLASSES)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven images in folders, odd ones among them, and three files that are none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for index, place in enumerate(["a.png", "b.jpg", "c.bmp", "deep/d.png", "deep/er/e.webp"]):
        Image.fromarray(rng.integers(0, 256, (40 + index, 60, 3), dtype=np.uint8)).save(root / place)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (30, 60, 3), dtype=np.uint8)).save(root / "turned.jpg", exif=exif)
    Image.fromarray(rng.integers(0, 256, (30, 60, 4), dtype=np.uint8)).save(root / "clear.png")
    (root / "empty.png").write_bytes(b"")
    (root / "half.png").write_bytes((root / "a.png").read_bytes()[:2000])
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden" / "thumb.png").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def test_files_and_folders_in_order_with_the_bad_ones_listed(folder: Path, images: Path) -> None:
    found = predict(folder, [images / "b.jpg", images, images / "absent.png"])
    names = [path.relative_to(images).as_posix() for path in found.paths]
    assert names == ["b.jpg", "a.png", "c.bmp", "clear.png", "turned.jpg", "deep/d.png", "deep/er/e.webp"]
    reasons = {Path(bad.path).name: bad.reason for bad in found.bad_files if not bad.used}
    assert set(reasons) == {"empty.png", "half.png", "notes.txt", "absent.png"}
    assert reasons["absent.png"] == "no such file"
    assert found.probabilities.shape == (7, 3)
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    assert found.labels == tuple(CLASSES[index] for index in found.best)


def test_texts_and_one_path_alone_are_paths(folder: Path, images: Path) -> None:
    found = predict(folder, [images])
    for given in (str(images), images, [str(images)]):
        again = predict(str(folder), given)
        assert again.paths == found.paths
        assert np.array_equal(again.probabilities, found.probabilities)


def test_a_class_is_named_only_where_the_wanted_accuracy_is_assured(folder: Path, images: Path) -> None:
    events = []
    every = predict(folder, images)
    found = predict(folder, images, accuracy=0.88, sink=events.append)
    assert np.array_equal(found.probabilities, every.probabilities)
    sure = every.probabilities.max(axis=1)
    assert 0 < (sure >= 0.6).sum() < len(sure)
    expected = [label if high >= 0.6 else None for label, high in zip(every.labels, sure, strict=True)]
    assert list(found.labels) == expected
    assert [why.startswith("not sure enough: 0.") for why in found.doubts] == [label is None for label in expected]
    assert "from a probability of 0.600 on, as 70 % of the held-out images" in events[0].text
    assert set(every.doubts) == {""}
    with pytest.raises(InputError, match="assure 92"):
        predict(folder, images, accuracy=0.95)


def test_an_image_beyond_the_limit_is_unlike_what_the_model_learned(images: Path, tmp_path: Path) -> None:
    name, files = "ViT-Mi-16-64.all-m", [images / "a.png", images / "clear.png"]
    model = load_exported(export_member(name, tmp_path / "plain"))
    pixels = np.stack([read_view(file, model.views[0])[0] for file in files])
    tower = model.members[0].model
    with torch.no_grad():
        one, other = normalize(tower.embed(tower.normalise(pixels)), dim=-1).numpy()
    known = Familiar(means=one[None], limit=(1 - float(one @ other)) / 1.5)
    single = export_member(name, tmp_path / "known", known=known)
    assert judge(load_exported(single), (pixels,))[1] == pytest.approx([0, 1.5], abs=1e-3)
    assert predict(single, files).doubts == ("", UNLIKE)
    assert None not in predict(single, files).labels
    silent = predict(single, files, accuracy=0.92)
    assert (silent.labels[1], silent.doubts[1]) == (None, UNLIKE)
    pool = export_pool({name: 0.5, "EffNet-Mi-64.all-m": 0.25}, tmp_path / "pool")  # which knows nothing
    export_member(name, pool / "member-1", known=known)
    assert predict(pool, files).doubts == ("", UNLIKE)


def test_probabilities_are_the_formula_on_the_pixels_of_the_trials(folder: Path, images: Path) -> None:
    found = predict(folder, [images])
    model = zoo.load(candidates.resolve("ViT-Mi-16-64.all-m")[0])
    head = load_file(folder / "head.safetensors")
    pixels = np.stack([render(decode_image(path).image, model.candidate.view) for path in found.paths])
    embeddings = model.embed(model.normalise(pixels)).double()
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    logits = head["scale"].double() * unit @ head["weight"].double().T + head["bias"].double()
    assert np.allclose(found.probabilities, logits.softmax(dim=1).numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_nothing(folder: Path, images: Path, batch_size: int) -> None:
    one = predict(folder, [images])
    other = predict(folder, [images], batch_size=batch_size)
    assert other.paths == one.paths
    assert other.labels == one.labels
    assert np.allclose(other.probabilities, one.probabilities, atol=1e-5)


def test_the_order_of_the_images_only_reorders(folder: Path, images: Path) -> None:
    paths = [images / "a.png", images / "c.bmp", images / "b.jpg"]
    forward, backward = predict(folder, paths), predict(folder, paths[::-1])
    assert backward.paths == tuple(paths[::-1])
    assert np.allclose(backward.probabilities[::-1], forward.probabilities, atol=1e-6)


def _drawing(rng: np.random.Generator, kind: int) -> Image.Image:
    height, width = (int(each) for each in rng.integers(40, 120, 2))
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j] - rng.uniform(-0.4, 0.4, (2, 1, 1))
    inside = [np.hypot(down, across) < 0.5, np.maximum(abs(down), abs(across)) < 0.45, abs(down * across) < 0.05][kind]
    pixels = rng.normal(110, 60, (height, width, 3)) + 70 * inside[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("method", "settings", "epochs"),
    [
        ("probe", {}, 0),
        ("finetune", {"learning_rate": 1e-3, "weight_decay": 0.01, "augmentation": 0.3}, 8),
    ],
)
def test_accuracy_equals_the_trials(tmp_path: Path, method: str, settings: dict[str, float], epochs: int) -> None:
    rng = np.random.default_rng(3)
    for split, count in {"train": 12, "val": 6, "test": 20}.items():
        for kind, name in enumerate(CLASSES):
            (tmp_path / "task" / split / name).mkdir(parents=True)
            for index in range(count):
                _drawing(rng, kind).save(tmp_path / "task" / split / name / f"{index}.{'jpg' if index % 2 else 'png'}")
    (candidate,) = candidates.resolve("RN-Mi-64.glyph-s")
    task = load_task(tmp_path / "task", views=[candidate.view], workdir=tmp_path / "work")
    spec = TrialSpec(candidate=candidate.id, method=method, settings=settings, epochs=epochs, seed=0)
    store = Store(tmp_path / "store")
    runner = TrialRunner(
        task=task, candidates=[candidate], load=zoo.load, store=store, workdir=tmp_path / "work"
    )  # fmt: skip
    result = runner.run(Trial(number=0, spec=spec))
    learned = load_trial(tmp_path / "work", result)
    model = zoo.load(candidate)
    if learned.visual is not None:
        model.visual.load_state_dict(learned.visual)
    classifier = Classifier(
        head=learned.weight,
        bias=learned.bias,
        scale=learned.scale,
        classes=task.classes,
        prompts=task.prompts,
        templates=task.templates,
    )
    exported = export(model, classifier, directory=tmp_path / "model")
    found = predict(exported, [tmp_path / "task" / "test"])
    right = [path.parent.name == label for path, label in zip(found.paths, found.labels, strict=True)]
    assert len(right) == 60
    assert result.test is not None
    assert 0.34 < result.test < 1
    assert sum(right) / len(right) == pytest.approx(result.test, abs=1e-12)


def test_large_jpegs_are_the_pixels_that_a_task_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for kind, name in enumerate(CLASSES):
        (tmp_path / "task" / name).mkdir(parents=True)
        for index in range(4):
            large = _drawing(rng, kind).resize((512, 400 + index))  # three of the four have odd sizes
            large.save(tmp_path / "task" / name / f"{index}.jpg")
    view = ImageView(size=64)
    wanted = [load_task(tmp_path / "task", views=views, workdir=tmp_path / f"{len(views)}") for views in ([], [view])]
    for task in wanted:
        read = task.pixels.read(view, np.arange(len(task.paths)))
        shown = [prediction._read(task.root / path, views=[view]).pixels[0] for path in task.paths]
        np.testing.assert_array_equal(read, np.stack(shown))
        full = render(decode_image(task.root / task.paths[0]).image, view)
        assert 0 < np.abs(read[0].astype(int) - full).mean() < 2  # decoded at half its size


def test_progress_is_told(folder: Path, images: Path) -> None:
    events: list[Event] = []
    predict(folder, [images], batch_size=4, sink=events.append)
    assert isinstance(events[0], StageStarted)
    assert events[0].total == 10
    assert [event.done for event in events if isinstance(event, StageProgress)] == [4, 8, 10]
    assert isinstance(events[-1], StageFinished)


def test_not_one_usable_image_is_an_error(folder: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"The file is no usable image.*notes\.txt"):
        predict(folder, [images / "notes.txt"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(TaskError, match="At least one image"):
        predict(folder, [tmp_path / "nothing"])
    with pytest.raises(TaskError, match="At least one image"):
        predict(folder, [])


def test_only_an_exported_folder_predicts(minizoo: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match=r"classes\.json is missing"):
        predict(minizoo / "ViT-Mi-16-64.all-m", [images])
    with pytest.raises(CandidateError, match="but got"):
        predict(tmp_path / "absent", [images])


def test_a_head_of_another_width_is_refused(folder: Path, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    head = load_file(copy / "head.safetensors")
    save_file({**head, "weight": torch.zeros(3, 5)}, copy / "head.safetensors")
    with pytest.raises(CandidateError, match="width 5"):
        predict(copy, [images])
    (copy / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(TrialUnavailable, match="copy"):
        predict(copy, [images])


def test_paths_may_be_texts_and_one_needs_no_list(folder: Path, images: Path) -> None:
    expected = predict(folder, [images]).probabilities
    assert np.array_equal(predict(str(folder), [str(images)]).probabilities, expected)
    assert np.array_equal(predict(str(folder), images).probabilities, expected)
    assert np.array_equal(predict(folder, str(images)).probabilities, expected)
    with pytest.raises(TypeError, match="images must be paths of files or folders, but got ndarray"):
        predict(folder, [np.zeros((8, 8, 3), dtype=np.uint8)])  # type: ignore[list-item]


def test_a_batch_size_of_zero_is_refused(folder: Path, images: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, but got 0"):
        predict(folder, [images], batch_size=0)


def test_an_ensemble_is_the_pool_of_its_members_and_one_stage(images: Path, tmp_path: Path) -> None:
    weights = {"ViT-Mi-16-64.all-m": 0.7, "ViT-Mi-4-32.glyph-s": 0.6, "EffNet-Mi-64.all-m": 0.2}
    folder = export_pool(weights, tmp_path / "ensemble")
    events: list[Event] = []
    found = predict(folder, [images], sink=events.append)
    alone = [predict(folder / f"member-{place}", [images]) for place in (1, 2, 3)]
    logs = [log_probabilities(np.log(each.probabilities)) for each in alone]
    assert np.allclose(found.probabilities, np.exp(pool(logs, list(weights.values()))), atol=1e-6)
    assert found.bad_files == alone[0].bad_files
    assert sum(isinstance(each, StageStarted) for each in events) == 1


def test_members_of_other_classes_are_refused(images: Path, tmp_path: Path) -> None:
    folder = export_pool({"EffNet-Mi-64.all-m": 0.5, "RN-Mi-64.all-m": 0.5}, tmp_path / "ensemble")
    shutil.rmtree(folder / "member-2")
    export_member("RN-Mi-64.all-m", folder / "member-2", classes=("cat", "dog"))
    with pytest.raises(CandidateError, match=r"need the same classes, but got \('cat', 'dog'\)"):
        predict(folder, [images])


def test_each_file_is_told_in_order_and_memory_holds_a_batch(
    folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = prediction._read

    def reading(path: Path, **views: object) -> object:
        opened.append(path)
        return read(path, **views)

    monkeypatch.setattr(prediction, "_read", reading)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    many = tmp_path / "many"
    many.mkdir()
    for k in range(100):
        (many / f"{k:03d}.png").write_bytes((images / ("a.png" if k % 10 else "half.png")).read_bytes())
    found = iter_predictions(folder, [many], batch_size=4)
    every = [next(found)]
    assert len(opened) <= 4 + 8 * 2 + 1  # a batch, and what two threads read ahead
    every += found
    assert [each.path.name for each in every] == [f"{k:03d}.png" for k in range(100)]
    assert [k for k, each in enumerate(every) if each.probabilities is None] == list(range(0, 100, 10))
    assert all(bool(each.note) == (each.probabilities is None) for each in every)


@pytest.mark.parametrize("given", [["a.png", "."], [".", "a.png"], [".", "deep"], ["deep", "."], [".", "."]])
def test_a_file_that_is_reached_twice_is_taken_once(images: Path, given: list[str]) -> None:
    found = list(prediction.image_files([images / each for each in given]))
    assert sorted(found) == sorted(prediction.image_files([images]))
    first = images / given[0]
    assert found[0] == first if first.is_file() else found[0].is_relative_to(first)


def test_paths_that_cannot_be_reached_are_rows_with_a_note(folder: Path, images: Path) -> None:
    long, deepest = images / ("a" * 300), images / "deep" / "z"
    deepest.mkdir()
    here = os.open(deepest, os.O_RDONLY)
    for _ in range(20):  # deeper than a path can name
        os.mkdir("d" * 250, dir_fd=here)
        here, done = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
        os.close(done)
    os.close(here)
    found = list(iter_predictions(folder, [long, images / "deep", images / "b.jpg"]))
    notes = {each.path.name: each.note for each in found if each.probabilities is None}
    assert notes == {
        "a" * 300: "cannot be reached: File name too long",
        "d" * 250: "cannot be reached: File name too long",
    }
    assert [each.path.name for each in found if each.probabilities is not None] == ["d.png", "e.webp", "b.jpg"]
