"""The demo's task: real scans, crisp, disjoint splits, and writing twice changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.digits import DIGIT_NAMES, write_digits
from vlmsel_auto.tasks.task import load_task


def test_the_folder_is_a_task(tmp_path: Path) -> None:
    written = write_digits(tmp_path, train_per_class=12, test_per_class=5)
    task = load_task(written.task, views=[ImageView(size=32)], workdir=tmp_path / "work")
    assert task.classes == tuple(sorted(DIGIT_NAMES))
    assert task.prompts == task.classes
    assert len(task.templates) == 3
    assert task.name == "handwritten digits"
    assert np.bincount(task.labels[task.test]).tolist() == [5] * 10
    assert len(task.train) + len(task.val) == 120
    assert task.bad_files == ()


def test_pictures_are_the_scans_in_crisp_blocks_dark_on_white(tmp_path: Path) -> None:
    scans, labels = load_digits(return_X_y=True)
    written = write_digits(tmp_path, train_per_class=2, test_per_class=1)
    files = sorted(written.task.rglob("*.png"))
    assert len(files) == 30
    for file in files:
        place = int(file.stem)
        assert labels[place] == DIGIT_NAMES.index(file.parent.name)
        with Image.open(file) as image:
            values = np.asarray(image, dtype=float)
        assert values.shape == (32, 32)
        small = values[::4, ::4]
        np.testing.assert_array_equal(values, np.repeat(np.repeat(small, 4, 0), 4, 1))
        np.testing.assert_allclose(16 * (1 - small / 255), scans[place].reshape(8, 8), atol=0.05)
        assert values.mean() > 127


def test_unseen_pictures_are_in_no_split(tmp_path: Path) -> None:
    written = write_digits(tmp_path, train_per_class=100, test_per_class=73)
    assert [path.stem for path in written.unseen] == list(written.unseen_labels) == list(DIGIT_NAMES)
    assert len(list(written.task.rglob("*.png"))) == 1_730
    known = {path.read_bytes() for path in written.task.rglob("*.png")}
    assert not known & {path.read_bytes() for path in written.unseen}
    assert not any(path.is_relative_to(written.task) for path in written.unseen)


def test_writing_again_changes_nothing_and_mends_half_a_file(tmp_path: Path) -> None:
    written = write_digits(tmp_path, train_per_class=3, test_per_class=2)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    assert write_digits(tmp_path, train_per_class=3, test_per_class=2) == written
    assert [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in files] == before
    files[0].write_bytes(b"half")
    write_digits(tmp_path, train_per_class=3, test_per_class=2)
    assert files[0].read_bytes() == before[0][2]


def test_other_pictures_in_the_folder_are_not_mixed_in(tmp_path: Path) -> None:
    write_digits(tmp_path, train_per_class=4, test_per_class=2)
    with pytest.raises(TaskError, match="holds other images"):
        write_digits(tmp_path, train_per_class=3, test_per_class=2)
