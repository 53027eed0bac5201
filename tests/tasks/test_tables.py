"""Folders with labels.csv or images.parquet: what is accepted, what is listed."""

import io
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.task_folders import fill, listed, strays
from vlmsel_auto.errors import MissingDependency, TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder


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
    assert scan.unlabelled == ("images/3.png",)


def test_csv_paths_of_windows_and_repeated_rows(tmp_path: Path) -> None:
    fill(tmp_path, "images/a/1.png", "images/2.png")
    scan = scan_folder(table(tmp_path, "path,label\na\\1.png,x\n2.png,y\nimages/2.png,y\n"))
    assert listed(scan) == {"images/a/1.png": ("x", None), "images/2.png": ("y", None)}
    assert strays(scan) == {"images/2.png": "named more than once in labels.csv"}


def test_csv_paths_from_the_root_and_with_blanks(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "images/1.png", "images/2.png", "3.png ", "4\r.png")
    table(tmp_path, 'path,label\n./1.png,x\n1.png,y\n"./3.png ",x\n"./4\r.png",x\n')
    found = {"1.png": ("x", None), "images/1.png": ("y", None), "3.png ": ("x", None), "4\r.png": ("x", None)}
    assert listed(scan_folder(tmp_path)) == found
    with pytest.raises(TaskError, match=r"begin with ./ must be there\), but got './2.png'"):
        scan_folder(table(tmp_path, "path,label\n./2.png,x\n"))


def test_csv_images_without_a_row_to_any_depth(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "images/2.PNG", "images/odd", "images/b/c/3.jpg", "images/b/notes.txt", "README.md")
    scan = scan_folder(table(tmp_path, "path,label\n1.png,x\n"))
    assert scan.unlabelled == ("images/2.PNG", "images/odd", "images/b/c/3.jpg")


def test_named_classes_keep_their_order(tmp_path: Path) -> None:
    root = table(fill(tmp_path, "1.png", "2.png"), "path,label\n1.png,cat\n2.png,dog\n")
    assert scan_folder(root).classes == ("cat", "dog")
    assert scan_folder(root, classes=["dog", "cat"]).classes == ("dog", "cat")
    (root / "task.toml").write_text('classes = ["emu", "dog", "cat"]')
    assert scan_folder(root).classes == ("emu", "dog", "cat")


def test_csv_beside_labelled_folders(tmp_path: Path) -> None:
    fill(tmp_path, "labelled/a/1.png", "labelled/a/2.png", "labelled/b/3.png", "unlabelled/4.png", "unlabelled/5.png")
    root = table(tmp_path, "path,label\n./labelled/a/1.png,b\n./unlabelled/4.png,a\n")
    found = {"labelled/a/1.png": "b", "unlabelled/4.png": "a", "labelled/a/2.png": "a", "labelled/b/3.png": "b"}
    scan = scan_folder(root)
    assert listed(scan) == {path: (label, None) for path, label in found.items()}
    assert scan.unlabelled == ("unlabelled/5.png",)
    table(root, "path,label,split\nunlabelled/4.png,a,train\n")
    assert len(scan_folder(root).entries) == 1


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
