import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from helpers.cell_world import assert_equal, small
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.file import _content_digest, load, save


def test_file_round_trip_is_equal_to_the_bit(tmp_path):
    made = small()
    path = tmp_path / "one.safetensors"
    save(made, path)
    assert_equal(load(path), made)
    assert [one.name for one in tmp_path.iterdir()] == ["one.safetensors"]


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "lib.safetensors"
    save(small(), path)
    return path


def rewritten(path: Path, **metadata: str) -> None:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    old = json.loads(data[8 : 8 + size])["__metadata__"]
    save_file(load_file(path), path, metadata={**old, **metadata})


def test_a_library_from_before_neighbours_were_kept_is_read(saved):
    arrays = load_file(saved)
    assert arrays["neighbours"].dtype == np.uint16
    del arrays["neighbours"], arrays["neighbours_on"]
    with safe_open(saved, framework="numpy") as stream:
        metadata = stream.metadata()
    save_file(arrays, saved, metadata={**metadata, "sha256": _content_digest(metadata["document"], arrays)})
    made, found = small(), load(saved)
    assert found.neighbours.shape == (*made.zero_shot.shape, 0, 0)
    assert np.isnan(found.neighbours_on).all()
    np.testing.assert_array_equal(found.predicted, made.predicted)
    assert found.cell("a", "birds").neighbours.size == 0


def test_foreign_files_are_refused_by_name_and_reason(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("not a library")
    foreign = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, foreign)
    for path, reason in (
        (text, "not a safetensors file"),
        (foreign, "not a file of this kind"),
        (tmp_path, "cannot be read"),
        (tmp_path / "none", "there is no library"),
    ):
        with pytest.raises(LibraryError, match=reason) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_newer_and_unknown_versions_are_refused(saved):
    rewritten(saved, version="4")
    with pytest.raises(LibraryError, match="written by a newer vlmsel_auto"):
        load(saved)
    rewritten(saved, version="x")
    with pytest.raises(LibraryError, match="unknown version"):
        load(saved)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(saved, fraction):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(LibraryError, match=r"lib\.safetensors"):
        load(saved)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_harmless(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("flip") / "lib.safetensors"
    save(small(), path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = load(path)
    except LibraryError:
        return
    assert_equal(found, small())  # a flip in padding


def test_a_document_of_another_shape_is_refused_not_crashed_on(saved):
    arrays = load_file(saved)
    for document in ("[]", "{}", "nonsense", '{"candidates": 3}', "null"):
        rewritten(saved, document=document, sha256=_content_digest(document, arrays))
        with pytest.raises(LibraryError, match="damaged"):
            load(saved)
