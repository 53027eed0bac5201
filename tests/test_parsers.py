"""Whatever a file or an option holds: every parser gives a value of its type, or an error of this project's tree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from helpers.cell_world import small
from helpers.mutations import JSON, changed, damaged, json_of
from helpers.report_world import make_report
from vlmsel_auto.errors import InputError
from vlmsel_auto.library import file as library_file
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.ensembles import read_ensemble
from vlmsel_auto.models.limits import read_limits
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import Ranking, TrialResult
from vlmsel_auto.reporting import report
from vlmsel_auto.tasks.class_names import read_class_names
from vlmsel_auto.tasks.declaration import Declaration, declared_classes, read_declaration
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.labels_csv import scan_csv
from vlmsel_auto.units import parse_duration

often = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

TOML = b"""\
name = "birds"
domain = "garden"
metric = "macro_f1"
templates = ["a photo of a {}.", "a {}"]
classes = ["cat", "dog"]
[prompts]
cat = "a tabby"
"""
TABLE = "path,label,split\n0.png,cat,train\nimages/1.png,dog,val\n\u00e9.png,cat,test\n".encode()
REPORT = encode(make_report())


def read(parser: Callable[[], object], kind: type | tuple[type, ...]) -> None:
    """A value of the kind, or an error of the tree whose message says something."""
    try:
        found = parser()
    except InputError as error:
        assert str(error)  # noqa: PT017  either is right
    else:
        assert isinstance(found, kind)


@often
@given(data=damaged(TOML))
def test_task_toml(tmp_path: Path, data: bytes):
    (tmp_path / "task.toml").write_bytes(data)
    read(lambda: read_declaration(tmp_path, classes=["cat", "dog"]), Declaration)
    read(lambda: declared_classes(tmp_path), object)


@often
@given(key=st.sampled_from(["name", "domain", "metric", "templates", "classes", "prompts", "x"]), value=JSON)
def test_task_toml_of_any_values(tmp_path: Path, key: str, value: Any):
    text = json.dumps(value) if not isinstance(value, dict) else "{a = 1}"
    (tmp_path / "task.toml").write_text(f"{key} = {text}\n", "utf-8", errors="replace")
    read(lambda: read_declaration(tmp_path, classes=["cat", "dog"]), Declaration)
    (tmp_path / "cat").mkdir(exist_ok=True)
    read(lambda: scan_folder(tmp_path), object)


@often
@given(data=damaged(TABLE))
def test_labels_csv(tmp_path: Path, data: bytes):
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in ("0.png", "1.png", "\u00e9.png"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "labels.csv").write_bytes(data)
    read(lambda: scan_csv(tmp_path), object)


@often
@given(
    rows=st.lists(
        st.lists(
            st.text(max_size=6) | st.sampled_from(["path", "label", "split", "0.png", "..", "~", "train"]), max_size=4
        ),
        max_size=5,
    ),
    separator=st.sampled_from(",;\t"),
)
def test_labels_csv_of_any_cells(tmp_path: Path, rows: list[list[str]], separator: str):
    (tmp_path / "0.png").touch()
    lines = [separator.join(row) for row in [["path", "label"], *rows]]
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8", errors="replace")
    read(lambda: scan_csv(tmp_path), object)


@often
@given(data=damaged(json_of(REPORT)))
def test_json(data: bytes):
    read(lambda: parse_json(data), object)


RECORDS = {Ranking: REPORT["ranking"], TrialResult: REPORT["trials"][0], report.SearchReport: REPORT}


@often
@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
def test_records(kind: type, data: st.DataObject):
    value = data.draw(changed(RECORDS[kind]) | JSON)
    read(lambda: decode(kind, value), kind)


@often
@given(data=damaged(json_of(REPORT)) | changed(REPORT).map(json_of))
def test_reports(tmp_path: Path, data: bytes):
    (tmp_path / "report.json").write_bytes(data)
    read(lambda: report.load(tmp_path), report.SearchReport)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "sound.safetensors"
    library_file.save(small(), path)
    return path


@often
@given(data=st.data())
def test_libraries(library: Path, data: st.DataObject):
    spoilt = library.with_name("spoilt.safetensors")
    spoilt.write_bytes(data.draw(damaged(library.read_bytes())))
    read(lambda: library_file.load(spoilt), library_file.Library)


@often
@given(data=st.data())
def test_libraries_whose_digest_is_right(library: Path, data: st.DataObject):
    """Made by hand: the parser behind the digest is met."""
    spoilt = library.with_name("signed.safetensors")
    arrays = load_file(library)
    document, _ = library_file.read_document(
        library, lambda told, found: (told, found), kind=library_file.FORMAT, version=library_file.VERSION
    )
    name = data.draw(st.sampled_from(sorted(arrays)))
    if data.draw(st.booleans()):
        arrays[name] = np.zeros(
            data.draw(st.lists(st.integers(0, 3), max_size=3)), data.draw(st.sampled_from(["f4", "i8", "u1"]))
        )
    library_file.write_document(
        spoilt, data.draw(changed(document)), arrays, kind=library_file.FORMAT, version=library_file.VERSION
    )
    read(lambda: library_file.load(spoilt), library_file.Library)


CONFIG = json.loads((mini_zoo()[0].path / "open_clip_config.json").read_text())


@often
@given(data=damaged(json_of(CONFIG)) | changed(CONFIG).map(json_of))
def test_model_folders(tmp_path: Path, data: bytes):
    (tmp_path / "open_clip_model.safetensors").touch()
    (tmp_path / "open_clip_config.json").write_bytes(data)
    (tmp_path / "ensemble.json").write_bytes(data)
    read(lambda: resolve(f"local-dir:{tmp_path}"), tuple)
    read(lambda: read_ensemble(tmp_path), object)


@often
@given(text=st.text(max_size=20) | st.from_regex(r"[-+]?[0-9]*\.?[0-9]*(e[0-9]+)? ?[A-Za-z]{0,3}", fullmatch=True))
def test_options(text: str):
    read(lambda: parse_duration(text), float)
    read(lambda: read_class_names(text), tuple)
    for option in ("max_params", "max_download", "max_memory", "max_latency", "image_size", "licence"):
        read(lambda option=option: read_limits(**{option: text}), object)
    if "\n" not in text and not text.startswith("hf-hub:"):
        read(lambda: resolve(text), tuple)
