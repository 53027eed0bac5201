"""Folders with images.parquet: what is accepted, what is listed."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmsel_auto.errors import MissingDependency, TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder


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
    assert [(entry.label, entry.split) for entry in scan.entries] == [("y", "train"), ("x_1", "train"), ("y", "test")]
    assert len(list(scan.source.images(np.array([0, 2])))) == 2
    assert scan.source.key(np.array([0])) != scan.source.key(np.array([0, 2]))
    assert {entry.split for entry in scan_folder(parquet_task(tmp_path)).entries} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 2]}, "integers from 0 to 1"),
        ({"labels": ["a", "b"]}, "integers from 0 to 1"),
        ({"labels": [0, None]}, "integers from 0 to 1"),
        ({"splits": ["train", "dev"]}, "train, val or test"),
        ({"splits": ["train", None]}, "train, val or test"),
        ({"labels": []}, "no rows|integers"),
        ({"told": [1]}, "expected an object"),
        ({"told": {"classes": ["a", "a"], "templates": ["{}"]}}, "named once"),
        ({"told": {"classes": "ab", "templates": ["{}"]}}, "classes: expected"),
        ({"told": {"classes": ["a", "b"], "templates": ["x"]}}, "one {}"),
        ({"told": {"classes": ["a", "b"]}}, "templates: this field is missing"),
        ({"told": {"classes": ["a", "b"], "templates": ["{}"], "name": 3}}, "name: expected str"),
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
