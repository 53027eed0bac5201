"""What the layouts share: files as a source of images, and the scan of a folder of them."""

import numpy as np
import pytest

from helpers.task_folders import fill
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.scan import Files, ListedImage, scan_of_files, split_name


@pytest.fixture
def files(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    return Files(root=tmp_path, paths=("cat/1.png", "dog/1.png"))


def test_the_key_of_files_follows_their_content(files):
    both, first = np.arange(2), np.array([0])
    before = files.key(both), files.key(first)
    assert files.key(both) == before[0] != before[1]
    (files.root / "dog/1.png").write_bytes(b"another")
    assert files.key(both) != before[0]
    assert files.key(first) == before[1]


def test_a_file_that_is_gone_has_a_key_and_no_bytes(files):
    whole = files.encoded_bytes(np.arange(2))
    (files.root / "dog/1.png").unlink()
    assert 0 < files.encoded_bytes(np.arange(2)) < whole
    assert files.key(np.arange(2))


def test_labels_must_be_among_the_named_classes(files):
    entries = [ListedImage(path=path, label=path.split("/")[0], split=None) for path in files.paths]
    labels = [entry.label for entry in entries]
    scan = scan_of_files(files.root, labels=labels, entries=entries, stray=(), named=["cat", "dog", "emu"])
    assert scan.classes == ("cat", "dog", "emu")
    assert scan.prompts == ("cat", "dog", "emu")
    with pytest.raises(TaskError, match="'dog'"):
        scan_of_files(files.root, labels=labels, entries=entries, stray=(), named=["cat", "emu"])
    with pytest.raises(TaskError, match="no image was found that has a class"):
        scan_of_files(files.root, labels=[], entries=[], stray=())


@pytest.mark.parametrize(("name", "part"), [("Train", "train"), (" valid ", "val"), ("validation", "val"), ("x", None)])
def test_parts_of_a_split_by_name(name, part):
    assert split_name(name) == part
