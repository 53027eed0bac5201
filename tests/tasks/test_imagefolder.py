"""Layouts, CSV, task.toml and parquet: what is accepted, what is listed, and one clear error for each wrong folder."""

import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmsel_auto.errors import MissingDependency, TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.scan import Scan


def fill(root: Path, *names: str) -> Path:
    """Small files with the given names; the scan does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    return root


def listed(scan: Scan) -> dict[str, tuple[str, str | None]]:
    return {entry.path: (entry.label, entry.part) for entry in scan.entries}


def strays(scan: Scan) -> dict[str, str]:
    return {bad.path: bad.reason for bad in scan.stray}


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
    assert {entry.part for entry in scan.entries} == {"train", "val", "test"}
    assert listed(scan)[f"{val}/a/2.png"] == ("a", "val")
    assert listed(scan)["Test/b/3.png"] == ("b", "test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "train/1.png", "train/steam/2.png", "bus/1.png", "car/1.png"))
    assert scan.classes == ("bus", "car", "train")


def test_only_train_counts_as_no_split_given(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path, "train/a/1.png", "train/b/1.png"))
    assert {entry.part for entry in scan.entries} == {None}
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
    assert reasons["a/loop.png"] == "refused: the link leads in a circle"
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert scan_folder(tmp_path / "alias").root == root.resolve()


# --- labels.csv


def table(root: Path, text: str, *, encoding: str = "utf-8") -> Path:
    (root / "labels.csv").write_text(textwrap.dedent(text), encoding=encoding)
    return root


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("path,label", ","),
        ("File;Class", ";"),
        ("image\tLABEL", "\t"),
        ("class, filename ,x", ","),
        ('"path","label"', ","),
    ],
)
def test_csv_columns_and_separators(tmp_path: Path, header: str, separator: str) -> None:
    fill(tmp_path, "images/1.png", "images/2.png", "top.png")
    swap = header.startswith("class")
    rows = [("1.png", "cat"), ("images/2.png", "dog"), ("top.png", "dog")]
    lines = [separator.join((label, file, "z") if swap else (file, label)) for file, label in rows]
    scan = scan_folder(table(tmp_path, "\n".join([header, *lines, "", ""])))
    assert listed(scan) == {"images/1.png": ("cat", None), "images/2.png": ("dog", None), "top.png": ("dog", None)}


def test_csv_with_splits_numbers_as_labels_byte_order_mark_and_unnamed_files(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "images/sub/2.png", "images/3.png", "images/.hid", "images/.h/x.png")
    table(tmp_path, "image,label,split\n1.png,0,train\nsub/2.png,1,Validation\n", encoding="utf-8-sig")
    scan = scan_folder(tmp_path)
    assert listed(scan) == {"images/1.png": ("0", "train"), "images/sub/2.png": ("1", "val")}
    assert scan.notes == ("1 files in images/ are not named in labels.csv and were not used",)


def test_csv_paths_of_windows_and_repeated_rows(tmp_path: Path) -> None:
    fill(tmp_path, "images/a/1.png", "images/2.png")
    scan = scan_folder(table(tmp_path, "path,label\na\\1.png,x\n2.png,y\n./2.png,y\n"))
    assert listed(scan) == {"images/a/1.png": ("x", None), "images/2.png": ("y", None)}
    assert strays(scan) == {"images/2.png": "named more than once in labels.csv"}


def test_csv_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "secret.png")
    root = fill(tmp_path / "task", "images/1.png", "images/2.png")
    (root / "images/link.png").symlink_to(tmp_path / "secret.png")
    absolute = root / "images/2.png"
    table(
        root,
        f"path,label\n1.png,x\n{absolute},y\n../secret.png,x\n{tmp_path}/secret.png,y\n/etc/passwd,y\nlink.png,x\n",
    )
    scan = scan_folder(root)
    assert sorted(listed(scan)) == ["images/1.png", "images/2.png"]
    assert len(scan.stray) == 4
    assert {bad.reason for bad in scan.stray} == {"refused: the path leads out of the task folder"}


BAD_TABLES: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "no label": (b"path,colour\n1.png,red\n", "'colour'"),
    "no path": (b"name,label\n1.png,red\n", "'name'"),
    "no header": (b"1.png,cat\n2.png,dog\n", "header line"),
    "empty cell": (b"path,label\n1.png,\n1.png,x\n", "empty cells in rows '1'"),
    "split": (b"path,label,split\n1.png,x,train\n1.png,y,holdout\n", "'holdout'"),
    "gap in split": (b"path,label,split\n1.png,x,train\n1.png,y,\n", "every row"),
    "latin-1": ("path,label\n1.png,\u00e9\n".encode("latin-1"), "UTF-8"),
    "binary": (bytes(range(256)), "UTF-8"),
    "header only": (b"path,label\n", "no image was found"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_csv(tmp_path: Path, kind: str) -> None:
    data, message = BAD_TABLES[kind]
    fill(tmp_path, "images/1.png")
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(TaskError, match=message):
        scan_folder(tmp_path)


def test_csv_naming_missing_files_lists_the_first_and_the_count(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png")
    rows = "".join(f"gone{k}.png,x\n" for k in range(12))
    with pytest.raises(TaskError, match=r"'gone0.png', .*'gone4.png', \.\.\. \(12 in all\)"):
        scan_folder(table(tmp_path, "path,label\n1.png,y\n" + rows))
    with pytest.raises(TaskError, match="neither in"):
        scan_folder(table(tmp_path, "path,label\n" + "a" * 5000 + ",y\nb\0c,y\n"))


# --- task.toml


def declared(root: Path, text: str) -> Scan:
    fill(root, "big_cat/1.png", "dog/1.png")
    (root / "task.toml").write_text(textwrap.dedent(text), encoding="utf-8")
    return scan_folder(root)


def test_task_toml(tmp_path: Path) -> None:
    scan = declared(
        tmp_path,
        """
        name = "pets"
        domain = "photos of pets"
        metric = "balanced_accuracy"
        templates = ["a photo of a {}.", "{}"]
        [prompts]
        big_cat = "lion"
        """,
    )
    told = scan.declaration
    assert (told.name, told.domain, told.metric) == ("pets", "photos of pets", "balanced_accuracy")
    assert (told.templates, told.prompts) == (("a photo of a {}.", "{}"), (("big_cat", "lion"),))
    assert scan.stray == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 'x'", "unknown key 'nam'"),
        ("name = 3", "name in task.toml must be a string"),
        ("domain = ''", "domain in task.toml"),
        ("metric = 'f1'", "metric in task.toml must be one of accuracy, balanced_accuracy"),
        ("metric = 1", "metric in task.toml"),
        ("templates = 'a {}'", "list of one or more strings"),
        ("templates = []", "list of one or more strings"),
        ("templates = ['a', 3]", "list of one or more strings"),
        ("templates = ['a photo']", r"one \{\}"),
        ("templates = ['{} {}']", r"one \{\}"),
        ("templates = ['{} {name}']", r"one \{\}"),
        ("prompts = 'x'", "table of class"),
        ("[prompts]\ndog = 4", "prompt of 'dog'"),
        ("[prompts]\ndog = ' '", "prompt of 'dog'"),
        ("[prompts]\nbird = 'b'", "'bird'"),
        ("name = ", "cannot be read as TOML"),
    ],
)
def test_bad_task_toml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        declared(tmp_path, text)


def test_task_toml_in_another_encoding(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "task.toml").write_bytes('name = "\u00e9"'.encode("latin-1"))
    with pytest.raises(TaskError, match="UTF-8"):
        scan_folder(tmp_path)


# --- wrong folders


def test_no_such_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path("a\0b")):
        with pytest.raises(TaskError, match="no such task folder"):
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


# --- parquet


def parquet_task(root: Path, *, labels: object = (0, 1), splits: object = None, told: object = None) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(stream, format="PNG")
    columns = {"image": [stream.getvalue()] * len(list(labels)), "label": list(labels)}
    if splits is not None:
        columns["split"] = list(splits)
    parquet.write_table(arrow.table(columns), root / "images.parquet")
    if told is None:
        told = {
            "slug": "small",
            "name": "Small",
            "domain": "d",
            "classes": ["x_1", "y"],
            "templates": ["a {}"],
            "notes": 1,
        }
    (root / "task.json").write_text(json.dumps(told))
    return root


def test_parquet(tmp_path: Path) -> None:
    scan = scan_folder(parquet_task(tmp_path, labels=[1, 0, 1], splits=["train", "train", "test"]))
    assert (scan.declaration.name, scan.classes) == ("small", ("x_1", "y"))
    assert [(entry.label, entry.part) for entry in scan.entries] == [("y", "train"), ("x_1", "train"), ("y", "test")]
    assert len(list(scan.source.images(np.array([0, 2])))) == 2
    assert scan.source.key(np.array([0])) != scan.source.key(np.array([0, 2]))
    assert {entry.part for entry in scan_folder(parquet_task(tmp_path)).entries} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 2]}, "integers from 0 to 1"),
        ({"labels": ["a", "b"]}, "integers from 0 to 1"),
        ({"labels": [0, None]}, "integers from 0 to 1"),
        ({"splits": ["train", "dev"]}, "train, val or test"),
        ({"splits": ["train", None]}, "train, val or test"),
        ({"labels": []}, "no rows|integers"),
        ({"told": [1]}, "must hold an object"),
        ({"told": {"classes": ["a", "a"], "templates": ["{}"]}}, "must differ"),
        ({"told": {"classes": "ab", "templates": ["{}"]}}, "list of names"),
        ({"told": {"classes": ["a", "b"], "templates": ["x"]}}, "one {}"),
        ({"told": {"classes": ["a", "b"]}}, "templates must be"),
        ({"told": {"classes": ["a", "b"], "templates": ["{}"], "name": 3}}, "must be strings"),
    ],
)
def test_bad_parquet_tasks(tmp_path: Path, options: dict[str, object], message: str) -> None:
    parquet_task(tmp_path, **options)
    with pytest.raises(TaskError, match=message):
        scan_folder(tmp_path)


def test_parquet_without_json_columns_or_sense(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet_task(tmp_path)
    parquet.write_table(arrow.table({"image": [b""]}), tmp_path / "images.parquet")
    with pytest.raises(TaskError, match="columns image and label"):
        scan_folder(tmp_path)
    (tmp_path / "images.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(TaskError, match="cannot be read as parquet"):
        scan_folder(tmp_path)
    (tmp_path / "task.json").unlink()
    with pytest.raises(TaskError, match=r"needs a task\.json"):
        scan_folder(tmp_path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_task(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependency, match=r"vlmsel-auto\[parquet\]"):
        scan_folder(tmp_path)
