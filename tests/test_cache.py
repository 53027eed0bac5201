"""The store gives back bit-equal arrays, whole entries or none."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.cache import Store, digest, file_digest, write_atomically


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    arrays = {"a": np.linspace(0, 1, 7), "b": np.arange(6, dtype=np.int64).reshape(2, 3).T}
    store.put("ab12", arrays, {"n": 3, "name": "x"})
    got = store.get("ab12")
    assert got is not None
    assert got[1] == {"n": 3, "name": "x"}
    for name, value in arrays.items():
        assert np.array_equal(got[0][name], value)
        assert got[0][name].dtype == value.dtype


def test_absent_entry_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path).get("nothing") is None


def test_an_entry_of_the_store_behind_is_read_and_never_written(tmp_path: Path) -> None:
    behind = Store(tmp_path / "behind")
    behind.put("ab12", {}, {"n": 1})
    store = Store(tmp_path / "own", behind=behind.root)
    assert store.get("ab12") == ({}, {"n": 1})
    store.put("ab12", {}, {"n": 2})
    assert store.get("ab12") == ({}, {"n": 2})
    assert behind.get("ab12") == ({}, {"n": 1})


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("cut", [0, 10])
def test_damaged_entry_counts_as_absent(tmp_path: Path, suffix: str, cut: int) -> None:
    store = Store(tmp_path)
    store.put("ab12", {"a": np.ones(100)}, {})
    path = (tmp_path / "ab" / "ab12").with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:cut])
    assert store.get("ab12") is None


def test_one_flipped_bit_counts_as_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("ab12", {"a": np.ones(100)}, {})
    path = tmp_path / "ab" / "ab12.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert store.get("ab12") is None


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "x.bin", b"123")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.bin"]
    assert file_digest(tmp_path / "deep" / "x.bin").startswith("a665a459")  # sha256 of "123"


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_digest_ignores_the_order_of_keys(record: dict[str, int | float]) -> None:
    backwards = dict(reversed(record.items()))
    assert digest(dict(record)) == digest(backwards)


def test_digest_tells_values_apart() -> None:
    assert digest("a", 1) != digest("a", 2)
    assert digest(["a", "b"]) != digest("a", "b")
    with pytest.raises(ValueError, match="Out of range"):
        digest(float("nan"))
