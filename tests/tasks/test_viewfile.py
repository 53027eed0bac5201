"""A file of rows says which are there; half-written and missing ones never count."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.viewfile import ViewFile, view_name


def rows_of(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_who_may_write_rows_is_what_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with ViewFile(path=tmp_path / "view.u8", count=1, size=1).writer():
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "view.u8").stat().st_mode & 0o777 == mode


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 5_000),
    size=st.integers(1, 9),
    data=st.data(),
)
def test_rows_that_were_committed_are_there_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, *, count: int, size: int, data: st.DataObject
) -> None:
    file = ViewFile(path=tmp_path_factory.mktemp("rows") / "view.u8", count=count, size=size)
    every = np.arange(count)
    some = st.lists(st.integers(0, count - 1), max_size=8, unique=True)
    written, committed = data.draw(some), data.draw(some)
    pixels = rows_of(count, size)
    with file.writer() as writer:
        for row in {*written, *committed}:
            writer.put(row, pixels[row])
        writer.commit(committed)
    assert np.flatnonzero(file.has(every)).tolist() == sorted(committed)
    wanted = np.array(committed[::-1], dtype=np.int64)
    np.testing.assert_array_equal(file.read(wanted), pixels[wanted])
    with file.writer() as writer:  # what is there stays
        for row in written:
            writer.put(row, pixels[row])
        writer.commit(written)
    assert np.flatnonzero(file.has(every)).tolist() == sorted({*committed, *written})


@pytest.mark.parametrize("length", [0, 100, 10_000_000])
def test_a_file_of_another_length_holds_nothing_and_begins_anew(tmp_path: Path, length: int) -> None:
    file, every = ViewFile(path=tmp_path / "v", count=5, size=4), np.arange(5)
    assert not file.has(every).any()
    with file.writer() as writer:
        writer.put(2, rows_of(5, 4)[2])
        writer.commit([2])
    assert file.has(every).tolist() == [False, False, True, False, False]
    os.truncate(file.path, length)
    assert not file.has(every).any()
    with file.writer():
        pass
    assert not file.has(every).any()


def test_rows_that_are_not_there_take_no_space(tmp_path: Path) -> None:
    file = ViewFile(path=tmp_path / "v", count=50_000, size=224)
    with file.writer() as writer:
        writer.put(40_000, rows_of(1, 224)[0])
        writer.commit([40_000])
    assert file.path.stat().st_size > 7e9
    assert file.path.stat().st_blocks * 512 < 1e6


def test_geometries_have_names_of_their_own() -> None:
    views = [
        ImageView(size=size, resize_mode=mode, interpolation=interpolation, fill_color=fill)
        for size in (32, 64)
        for mode in ("shortest", "squash", "longest")
        for interpolation in ("bicubic", "bilinear")
        for fill in (0, 114)
    ]
    names = {view_name(view) for view in views}
    assert len(names) == 2 * 2 * (1 + 1 + 2)  # the colour of padding matters where there is padding
