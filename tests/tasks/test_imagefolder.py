"""Folders of class folders: what is accepted, what is listed, and one clear error for each wrong folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.task_folders import fill, listed, strays
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.file_names import SEARCH_LOCK
from vlmsel_auto.tasks.imagefolder import scan_folder


def test_class_folders(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "dog/a.png", "cat/B.JPG", "cat/deep/er/c.tif"))
    assert scan.classes == ("cat", "dog")
    assert listed(scan) == {
        "cat/B.JPG": ("cat", None),
        "cat/deep/er/c.tif": ("cat", None),
        "dog/a.png": ("dog", None),
    }
    assert (scan.declaration.name, scan.declaration.metric) == (tmp_path.name, "accuracy")
    assert scan.declaration.templates == ("a photo of a {}.",)
    assert scan.stray == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    scan = scan_folder(fill(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/a/2.png", "Test/b/3.png"))
    assert scan.classes == ("a", "b")
    assert {entry.split for entry in scan.entries} == {"train", "val", "test"}
    assert listed(scan)[f"{val}/a/2.png"] == ("a", "val")
    assert listed(scan)["Test/b/3.png"] == ("b", "test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "train/1.png", "train/steam/2.png", "bus/1.png", "car/1.png"))
    assert scan.classes == ("bus", "car", "train")


def test_only_train_counts_as_no_split_given(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "train/a/1.png", "train/b/1.png"))
    assert {entry.split for entry in scan.entries} == {None}
    assert scan.notes == ("only train/ was given: val and test were split from it",)


def test_a_test_folder_without_classes_is_not_used_and_told(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/9.png"))
    assert strays(scan) == {"test/9.png": "not in a class folder"}
    assert "test/ holds no class folder and was not used" in scan.notes


def test_hidden_and_system_files_are_passed_over_and_others_listed(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "README.md", ".git/config", "__MACOSX/a/1.png", "a/.DS_Store", "a/Thumbs.db")
    fill(tmp_path, "a/.hidden/2.png", "desktop.ini", "b/__MACOSX/x.png", "a/notes.txt")
    scan = scan_folder(tmp_path)
    assert sorted(listed(scan)) == [
        "a/1.png",
        "a/notes.txt",
        "b/1.png",
    ]  # that notes.txt is no image, decoding will tell
    assert strays(scan) == {"README.md": "not in a class folder"}


def test_a_folder_beside_the_splits_is_listed(tmp_path: Path) -> None:
    scan = scan_folder(
        fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "docs/x.txt", "train/loose.png")
    )
    assert strays(scan) == {
        "docs": "folder beside train, val and test; not used",
        "train/loose.png": "not in a class folder",
    }


@pytest.mark.parametrize("own", ["search.json", SEARCH_LOCK])
def test_work_directories_of_searches_are_passed_over(tmp_path: Path, own: str) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", f"vlmsel-x/{own}", "vlmsel-x/pixels/y")
    assert scan_folder(tmp_path).classes == ("a", "b")
    assert len(scan_folder(tmp_path, classes=["c", "d"], unlabelled=True).entries) == 2


def test_names_of_classes_as_a_text(tmp_path: Path) -> None:
    fill(tmp_path / "heap", "1.png")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    assert scan_folder(tmp_path / "heap", classes="dog, cat").classes == ("dog", "cat")
    assert scan_folder(tmp_path / "heap", classes=str(tmp_path / "names.txt")).classes == ("dog", "cat")
    with pytest.raises(TaskError, match="two classes or more, but got 'cat'"):
        scan_folder(tmp_path / "heap", classes="cat")


def test_the_work_directory_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "work/pixels/x", "b/out/y")
    assert scan_folder(tmp_path, exclude=(tmp_path / "work", tmp_path / "b" / "out")).classes == ("a", "b")
    assert len(scan_folder(tmp_path, exclude=(tmp_path / "work", tmp_path / "b" / "out")).entries) == 2


def test_unicode_names_in_both_normal_forms_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path, f"train/{composed}/\u732b 1.png", f"test/{decomposed}/2.png", "train/b/1.png", "test/b/2.png")
    scan = scan_folder(tmp_path)
    assert scan.classes == ("b", composed)
    assert len(scan.entries) == 4


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    for folder in (b"a", b""):
        with open(os.path.join(os.fsencode(tmp_path), folder, b"\xff.txt"), "wb") as stream:  # noqa: PTH118, PTH123  bytes
            stream.write(b"x")
    scan = scan_folder(tmp_path)
    assert strays(scan) == {"\ufffd.txt": "not in a class folder"}
    assert len(scan.entries) == 3
    assert scan.source.key(np.arange(3))


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "secret.png", "more/x.png")
    root = fill(tmp_path / "task", "a/1.png", "b/1.png")
    (root / "a/inner.png").symlink_to(root / "b/1.png")
    (root / "a/outer.png").symlink_to(outside / "secret.png")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "a/gone.png").symlink_to(root / "a/nothing.png")
    (root / "b/folder").symlink_to(outside / "more", target_is_directory=True)
    (root / "b/up").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(outside / "more", target_is_directory=True)
    scan = scan_folder(root)
    assert scan.classes == ("a", "b")
    assert sorted(listed(scan)) == ["a/1.png", "a/inner.png", "b/1.png"]
    reasons = strays(scan)
    out = "refused: the link leads out of the task folder"
    assert (reasons["a/outer.png"], reasons["b/folder"], reasons["c"]) == (out, out, out)
    assert reasons["b/up"] == "refused: links to folders are not followed"
    assert reasons["a/gone.png"] == "refused: the link leads nowhere"
    assert reasons["a/loop.png"] == reasons["loop"] == "refused: the link leads in a circle"
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert scan_folder(tmp_path / "alias").root == root.resolve()


def test_no_such_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path("a\0b")):
        with pytest.raises(TaskError, match="the task folder must exist"):
            scan_folder(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(TaskError):
        scan_folder(tmp_path / "loop")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    with pytest.raises(TaskError, match="got the file"):
        scan_folder(tmp_path / "a.png")


@pytest.mark.parametrize("names", [(), ("flat.png", "other.png"), (".hidden/a/1.png",)])
def test_no_image_at_all(tmp_path: Path, names: tuple[str, ...]) -> None:
    fill(tmp_path, *names)
    with pytest.raises(TaskError, match="no image was found"):
        scan_folder(tmp_path)


def test_splits_without_train_or_without_classes(tmp_path: Path) -> None:
    fill(tmp_path / "one", "test/a/1.png", "val/a/1.png")
    with pytest.raises(TaskError, match="needs train/<class>"):
        scan_folder(tmp_path / "one")
    fill(tmp_path / "two", "test/1.png", "train/1.png")
    with pytest.raises(TaskError, match="class folders in each"):
        scan_folder(tmp_path / "two")


READ = """
import sys
from pathlib import Path
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder
if sys.argv[2] == "drop":
    import os
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    scan_folder(Path(sys.argv[1]))
except TaskError as error:
    print(error)
"""


@pytest.mark.parametrize("closed", ["", "a", "a/deep"])
def test_an_unreadable_folder(tmp_path: Path, closed: str) -> None:
    """In a process without root's rights, since root may read everything."""
    root = fill(tmp_path / "task", "a/1.png", "a/deep/2.png", "b/1.png")
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own folders are closed to others
        folder.chmod(folder.stat().st_mode | 0o055)
    (root / closed).chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READ, str(root), "drop" if os.geteuid() == 0 else "stay"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        (root / closed).chmod(0o755)
    assert "cannot be read; check its rights" in done.stdout
