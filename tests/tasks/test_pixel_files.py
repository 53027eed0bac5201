"""What each image is, found out once, survives kills; a file of rows says which are there, whole."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import encoded, picture
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Event, Notice, Sink, discard
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks import pixel_files
from vlmsel_auto.tasks.pixel_files import Identify, StoreEntry, ViewFile, open_entry, view_name
from vlmsel_auto.tasks.preprocessing import render

SMALL, SQUASHED = ImageView(size=8), ImageView(size=6, resize_mode="squash", interpolation="bilinear")


class Sources:
    """Counts how often the images are asked for."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self.images = list(images)
        self.calls = 0

    def __call__(self) -> Sequence[bytes]:
        self.calls += 1
        return self.images


def opened(
    root: Path,
    sources: Sources,
    *,
    views: Sequence[ImageView] = (SMALL, SQUASHED),
    key: str = "k",
    identify: Identify = "pixels",
    sink: Sink = discard,
) -> StoreEntry:
    return open_entry(
        root=root,
        key=key,
        count=len(sources.images),
        sources=sources,
        identify=identify,
        views=views,
        progress=lambda _: None,
        sink=sink,
    )


@pytest.fixture
def images() -> list[Image.Image]:
    return [picture(10 + k, 12, seed=k) for k in range(7)]


@pytest.fixture
def sources(images: list[Image.Image]) -> Sources:
    return Sources([encoded(one) for one in images])


def file_of(entry: StoreEntry, view: ImageView) -> ViewFile:
    return ViewFile(path=entry.path / view_name(view), count=len(entry.identities), size=view.size)


def test_a_pass_over_the_pixels_makes_the_wanted_views(
    tmp_path: Path, sources: Sources, images: list[Image.Image]
) -> None:
    entry = opened(tmp_path, sources)
    every = np.arange(7)
    for view in (SMALL, SQUASHED):
        assert file_of(entry, view).has(every).all()
        np.testing.assert_array_equal(file_of(entry, view).read(every), [render(one, view) for one in images])
    assert not file_of(entry, ImageView(size=9)).has(every).any()


def test_views_beyond_the_room_are_left_for_later(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_files, "_EAGER_BYTES", 7 * 8 * 8 * 3 + 7 * 6 * 6 * 3 - 1)
    entry = opened(tmp_path, sources)
    assert file_of(entry, SMALL).has(np.arange(7)).all()
    assert not file_of(entry, SQUASHED).path.exists()


def test_a_bad_image_leaves_its_reason_and_the_others_alone(tmp_path: Path, images: list[Image.Image]) -> None:
    entry = opened(tmp_path, Sources([encoded(images[0]), b"no image", b"", encoded(images[1])]))
    assert [bool(one.digest) for one in entry.identities] == [True, False, False, True]
    assert "not an image" in entry.identities[1].note
    assert entry.identities[2].note == "empty file"
    assert file_of(entry, SMALL).has(np.arange(4)).tolist() == [True, False, False, True]


def test_by_bytes_nothing_is_decoded(tmp_path: Path, sources: Sources) -> None:
    entry = opened(tmp_path, sources, identify="bytes")
    assert len({one.digest for one in entry.identities}) == 7
    assert [path.name for path in entry.path.iterdir()] == ["index.json"]
    assert opened(tmp_path, sources).path != entry.path


@pytest.mark.parametrize("identify", ["pixels", "bytes"])
def test_a_second_call_asks_for_no_image(tmp_path: Path, sources: Sources, identify: Identify) -> None:
    first = opened(tmp_path, sources, identify=identify)
    second = opened(tmp_path, sources, identify=identify, views=[ImageView(size=10)])
    assert (first.reused, second.reused, sources.calls) == (False, True, 1)
    assert (second.identities, second.path) == (first.identities, first.path)
    assert opened(tmp_path, sources, identify=identify, key="other").path != first.path
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("identify", ["pixels", "bytes"])
@pytest.mark.parametrize("harm", ["cut", "another", "gone"])
def test_a_damaged_index_is_said_and_made_again_and_the_rows_stay(
    tmp_path: Path, images: list[Image.Image], identify: Identify, harm: str
) -> None:
    sources = Sources([*map(encoded, images), b""])
    entry = opened(tmp_path, sources, identify=identify)
    (entry.path / "late.jsonl").write_text("what was found of files when they were decoded")
    index = entry.path / "index.json"
    sound = index.read_bytes()
    if harm == "gone":
        index.unlink()
    else:
        index.write_bytes({"cut": b"{", "another": b"[]"}[harm])
    kept = {path.name: path.read_bytes() for path in entry.path.iterdir() if path != index}
    said: list[Event] = []
    again = opened(tmp_path, sources, identify=identify, sink=said.append)
    assert (again.reused, sources.calls) == (False, 2)
    assert again.identities == entry.identities
    (told,) = said
    assert isinstance(told, Notice)
    assert f"{index} was damaged and is made again" in told.text
    assert {path.name: path.read_bytes() for path in entry.path.iterdir()} == {**kept, "index.json": sound}
    assert opened(tmp_path, sources, identify=identify).reused


def test_progress_counts_every_image_in_order(tmp_path: Path, sources: Sources) -> None:
    for identify in ("pixels", "bytes"):
        seen: list[int] = []
        open_entry(
            root=tmp_path, key="k", count=140, sources=lambda: sources.images * 20, identify=identify, views=[SMALL],
            progress=seen.append,
        )  # fmt: skip
        assert seen == list(range(1, 141))


def test_discard_removes_what_was_made_and_nothing_else(tmp_path: Path, sources: Sources) -> None:
    root = tmp_path / "work" / "pixels"
    opened(root, sources).discard()
    assert [path.name for path in root.iterdir()] == [".lock"]
    kept = opened(root, sources)
    opened(root, sources, key="second").discard()
    opened(root, sources, views=[ImageView(size=10)]).discard()
    assert opened(root, sources).reused
    assert sorted(path.name for path in kept.path.iterdir()) == [view_name(SQUASHED), view_name(SMALL), "index.json"]


@pytest.mark.parametrize("identify", ["pixels", "bytes"])
def test_a_source_that_fails_leaves_no_entry(tmp_path: Path, images: list[Image.Image], identify: Identify) -> None:
    def failing() -> object:
        yield encoded(images[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_entry(
            root=tmp_path, key="k", count=2, sources=failing, identify=identify, views=[SMALL],
            progress=lambda _: None,
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_store_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        WorkdirError, match=r"decoded images below .* name another folder \(--cache-dir, of a search --workdir\)"
    ):
        opened(tmp_path / "file" / "pixels", Sources([]))


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers.pictures import encoded, picture
from vlmsel_auto.tasks import pixel_files
from vlmsel_auto.tasks.pixel_files import open_entry
from vlmsel_auto.records import ImageView
data = encoded(picture(9, 9))
def progress(done):
    if done == 150:
        os.kill(os.getpid(), signal.SIGKILL)
open_entry(root=Path(sys.argv[1]), key="k", count=300, sources=lambda: [data] * 300, identify="pixels",
           views=[ImageView(size=8)], progress=progress)
"""


def test_killed_half_way_the_next_run_starts_clean(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".part-*"))) == 1
    entry = opened(tmp_path, Sources([encoded(picture(9, 9))] * 300), views=[SMALL])
    assert (entry.reused, len(entry.identities), list(tmp_path.glob(".part-*"))) == (False, 300, [])


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
