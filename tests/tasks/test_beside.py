"""Images that screenings see beside the labelled ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.drawings import draw_task
from vlmsel_auto.records import ImageView, Task
from vlmsel_auto.tasks import beside
from vlmsel_auto.tasks.task import load_task


def load(root: Path, **options: object) -> Task:
    return load_task(root, workdir=root.parent / "work", **options)


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """Twelve labelled drawings beside thirty without a label."""
    root = tmp_path / "task"
    shutil.move(draw_task(tmp_path / "shapes", train=4, test=0) / "train", tmp_path / "labelled")
    shutil.move(draw_task(tmp_path / "more", train=10, test=0, seed=5) / "train", tmp_path / "unlabelled")
    root.mkdir()
    shutil.move(tmp_path / "labelled", root)
    shutil.move(tmp_path / "unlabelled", root)
    return root


def test_training_images_beyond_the_support_set_are_screened_up_to_160() -> None:
    train, support = np.arange(100, 400), np.arange(100, 400, 10)
    found = beside.further_images(train, support, seed=0)
    assert len(found) == 160 - 30
    assert set(found) <= set(train) - set(support)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, beside.further_images(train, support, seed=0))
    assert set(found) != set(beside.further_images(train, support, seed=1))
    assert not beside.further_images(train, np.arange(100, 300), seed=0).size
    np.testing.assert_array_equal(beside.further_images(train[:40], support, seed=0), np.setdiff1d(train[:40], support))


def test_a_labelled_folder_shows_more_than_its_support_set(tmp_path: Path) -> None:
    task = load(draw_task(tmp_path / "shapes", train=6, test=2), shots=2)
    assert len(task.support) == 6
    assert set(task.others) == set(task.train) - set(task.support)
    assert task.screening_size == len(task.train)
    assert task.beside is None


def test_files_without_a_label_are_a_task_of_their_own(partly: Path) -> None:
    task = load(partly)
    assert task.is_labelled
    assert task.beside is not None
    assert (task.beside.classes, task.beside.prompts, task.beside.templates) == (
        task.classes, task.prompts, task.templates,
    )  # fmt: skip
    assert len(task.beside.paths) == 30
    assert all(path.startswith("unlabelled/") for path in task.beside.paths)
    assert task.screening_size == len(task.train) + 30
    assert task.beside.pixels.read(ImageView(size=8), np.arange(30)).shape == (30, 8, 8, 3)
    assert "files without a label: 30; the ranking looks at 30 of them, no model learns from them" in task.notes
    assert task.digest == load(partly).digest


def test_no_more_are_drawn_than_screenings_see(partly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SCREENED_IMAGES", 20)
    task = load(partly)
    assert task.screening_size == 20
    assert task.beside is not None
    assert len(task.beside.paths) == 20 - len(task.train)
    monkeypatch.setattr(beside, "SCREENED_IMAGES", 3)
    task = load(partly)
    assert task.beside is None
    assert task.screening_size == len(task.support)
    assert "files without a label: 30; not used" in task.notes


def test_files_that_are_no_images_are_passed_over(partly: Path) -> None:
    for each in sorted((partly / "unlabelled").rglob("*.png"))[:29]:
        each.write_bytes(b"no picture")
    task = load(partly)
    assert task.beside is not None
    assert len(task.beside.paths) == 1
    for each in (partly / "unlabelled").rglob("*.png"):
        each.write_bytes(b"no picture")
    task = load(partly)
    assert task.beside is None
    assert any("files without a label: 30; not used: no image" in note for note in task.notes)
    assert not task.bad_files
