"""The store gives back bit-equal arrays, whole entries or none."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.cache import Store, default_cache_dir, digest, file_digest, write_atomically
from vlmsel_auto.errors import InputError


def test_who_has_no_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLMSEL_CACHE")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a number that has no name, as in a container
    with pytest.raises(InputError, match="set HOME or VLMSEL_CACHE"):
        default_cache_dir()
    monkeypatch.setenv("VLMSEL_CACHE", "here")
    assert default_cache_dir() == Path("here")


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


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_an_entry_that_is_cut_short_counts_as_absent(tmp_path: Path, kept: int) -> None:
    Store(tmp_path).put("ab12", {"a": np.ones(100)}, {})
    path = tmp_path / "ab" / "ab12.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert Store(tmp_path).get("ab12") is None


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_kill_while_an_entry_is_replaced_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """At each step of `put` that reaches the disk a reader, and who comes after a kill, has a whole entry."""
    store = Store(tmp_path)
    store.put("ab12", {"a": np.arange(3)}, {"n": 3})
    steps = iter(range(1, 100))
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        seen = store.get("ab12")
        assert seen is not None
        if next(steps) == moment:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with suppress(KeyboardInterrupt):
        store.put("ab12", {"a": np.arange(4)}, {"n": 4})
    monkeypatch.undo()
    got = store.get("ab12")
    assert got is not None
    assert len(got[0]["a"]) == got[1]["n"] == (3 if moment == 1 else 4)


def test_of_two_writers_the_last_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, steps = Path.replace, iter(range(100))

    def overtaken(self: Path, target: Path) -> Path:
        done = replace(self, target)
        if next(steps) == 0:  # between two steps of the first one
            Store(tmp_path).put("ab12", {"a": np.arange(5)}, {"n": 5})
        return done

    monkeypatch.setattr(Path, "replace", overtaken)
    Store(tmp_path).put("ab12", {"a": np.arange(4)}, {"n": 4})
    got = Store(tmp_path).get("ab12")
    assert got is not None
    assert len(got[0]["a"]) == got[1]["n"]


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
