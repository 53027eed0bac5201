"""Views equal open_clip's own preprocessing; the store decodes once, survives kills and cleans up after itself."""

import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks import pixels
from vlmsel_auto.tasks.pixels import PixelStore, StoreEntry, open_entry, pixel_digest, render

SIZES = [(64, 64), (37, 91), (91, 37), (224, 200), (200, 225), (7, 5), (1, 1), (100, 1), (33, 32), (640, 479)]
SMALL, SQUASHED = ImageView(size=8), ImageView(size=6, resize_mode="squash", interpolation="bilinear")


def picture(width: int, height: int, *, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def open_clip_bytes(image: Image.Image, view: ImageView) -> np.ndarray:
    """What open_clip's evaluation transform hands to the model, before mean and std."""
    config = PreprocessCfg(
        size=view.size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=view.interpolation,
        resize_mode=view.resize_mode,
        fill_color=view.fill_color,
    )
    tensor = image_transform_v2(config, is_train=False)(image)
    return (tensor * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, 64, 33])
def test_every_view_is_bit_equal_to_open_clip(mode: str, interpolation: str, size: int) -> None:
    view = ImageView(size=size, resize_mode=mode, interpolation=interpolation, fill_color=114)
    for width, height in SIZES:
        image = picture(width, height)
        if mode == "longest" and round(min(width, height) * size / max(width, height)) == 0:
            continue  # open_clip asks for an image of height 0 and fails; see below
        np.testing.assert_array_equal(render(image, view), open_clip_bytes(image, view), err_msg=f"{width}x{height}")


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    size=st.integers(8, 80),
    mode=st.sampled_from(["shortest", "squash", "longest"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.integers(0, 255),
)
def test_any_geometry_is_bit_equal_to_open_clip(
    *, width: int, height: int, size: int, mode: str, interpolation: str, fill: int
) -> None:
    view = ImageView(size=size, resize_mode=mode, interpolation=interpolation, fill_color=fill)
    image = picture(width, height)
    if mode == "longest" and round(min(width, height) * size / max(width, height)) == 0:
        assert render(image, view).shape == (size, size, 3)
    else:
        np.testing.assert_array_equal(render(image, view), open_clip_bytes(image, view))


def test_a_thin_strip_keeps_one_row_where_open_clip_fails() -> None:
    view = ImageView(size=32, resize_mode="longest", fill_color=9)
    shown = render(Image.new("RGB", (150, 1), (200, 200, 200)), view)
    assert (shown == 200).all(axis=(1, 2)).sum() == 1
    with pytest.raises(ValueError, match="height and width must be > 0"):
        open_clip_bytes(Image.new("RGB", (150, 1)), view)


def test_the_digest_of_pixels_sees_shape_and_every_value() -> None:
    one = picture(6, 4)
    assert pixel_digest(one) == pixel_digest(one.copy())
    assert pixel_digest(one) != pixel_digest(Image.frombytes("RGB", (4, 6), one.tobytes()))
    other = one.copy()
    other.putpixel((5, 3), tuple(255 - value for value in one.getpixel((5, 3))))
    assert pixel_digest(one) != pixel_digest(other)


class Sources:
    """Counts how often the images are asked for."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self.images = list(images)
        self.calls = 0

    def __call__(self) -> Sequence[bytes]:
        self.calls += 1
        return self.images


def opened(
    root: Path, sources: Sources, *, views: Sequence[ImageView] = (SMALL, SQUASHED), key: str = "k"
) -> StoreEntry:
    return open_entry(
        root=root, key=key, count=len(sources.images), sources=sources, views=views, progress=lambda _: None
    )


@pytest.fixture
def images() -> list[Image.Image]:
    return [picture(10 + k, 12, seed=k) for k in range(7)]


def store_of(entry: StoreEntry, rows: Sequence[int]) -> PixelStore:
    return PixelStore(entry=entry.path, n_rows=len(entry.decoded), rows=np.array(rows, dtype=np.int64))


def test_rows_come_back_in_the_asked_order(tmp_path: Path, images: list[Image.Image]) -> None:
    entry = opened(tmp_path, Sources([png(one) for one in images]))
    store = store_of(entry, [6, 2, 4])
    for view in (SMALL, SQUASHED):
        got = store.read(view, np.array([2, 0, 0, 1]))
        expected = np.stack([render(images[row], view) for row in (4, 6, 6, 2)])
        np.testing.assert_array_equal(got, expected)
        assert got.flags.writeable
    assert store.read(SMALL, np.array([], dtype=np.int64)).shape == (0, 8, 8, 3)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301  as a data loader's workers do with our own object
    np.testing.assert_array_equal(again.read(SMALL, np.arange(3)), store.read(SMALL, np.arange(3)))
    with pytest.raises(KeyError, match="without the view"):
        store.read(ImageView(size=9), np.arange(1))


def test_a_bad_image_leaves_its_reason_and_the_others_alone(tmp_path: Path, images: list[Image.Image]) -> None:
    entry = opened(tmp_path, Sources([png(images[0]), b"no image", b"", png(images[1])]))
    assert [bool(row.digest) for row in entry.decoded] == [True, False, False, True]
    assert "not an image" in entry.decoded[1].note
    assert entry.decoded[2].note == "empty file"
    np.testing.assert_array_equal(store_of(entry, [3]).read(SMALL, np.array([0]))[0], render(images[1], SMALL))


def test_a_second_call_decodes_nothing_and_a_new_view_everything_once(
    tmp_path: Path, images: list[Image.Image]
) -> None:
    sources = Sources([png(one) for one in images])
    first = opened(tmp_path, sources)
    second = opened(tmp_path, sources, views=[SQUASHED])
    assert (first.reused, second.reused, sources.calls) == (False, True, 1)
    assert second.decoded == first.decoded
    third = opened(tmp_path, sources, views=[SMALL, ImageView(size=10)])
    assert (third.reused, sources.calls, third.path) == (False, 2, first.path)
    assert opened(tmp_path, sources, key="other").path != first.path
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("damage", ["index", "short view", "no view", "short index"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, images: list[Image.Image], damage: str) -> None:
    sources = Sources([png(one) for one in images])
    entry = opened(tmp_path, sources)
    view = entry.path / "8-shortest-bicubic.u8"
    match damage:
        case "index":
            (entry.path / "index.json").write_text("{")
        case "short index":
            (entry.path / "index.json").write_text("[]")
        case "short view":
            os.truncate(view, 100)
        case "no view":
            view.unlink()
    again = opened(tmp_path, sources)
    assert (again.reused, sources.calls) == (False, 2)
    np.testing.assert_array_equal(store_of(again, range(7)).read(SMALL, np.array([5]))[0], render(images[5], SMALL))


def test_progress_counts_every_image_in_order(tmp_path: Path, images: list[Image.Image]) -> None:
    seen: list[int] = []
    data = [png(one) for one in images] * 20
    open_entry(root=tmp_path, key="k", count=140, sources=lambda: data, views=[SMALL], progress=seen.append)
    assert seen == list(range(1, 141))


def test_discard_removes_what_was_made_and_nothing_else(tmp_path: Path, images: list[Image.Image]) -> None:
    sources = Sources([png(one) for one in images])
    entry = opened(tmp_path / "work" / "pixels", sources)
    entry.discard()
    assert list(tmp_path.iterdir()) == []
    kept = opened(tmp_path / "work" / "pixels", sources)
    opened(tmp_path / "work" / "pixels", sources, key="second").discard()
    opened(tmp_path / "work" / "pixels", sources, views=[ImageView(size=10)]).discard()
    assert opened(tmp_path / "work" / "pixels", sources).reused
    assert sorted(path.name for path in kept.path.iterdir()) == [
        "6-squash-bilinear.u8",
        "8-shortest-bicubic.u8",
        "index.json",
    ]


def test_a_source_that_fails_leaves_no_trace(tmp_path: Path, images: list[Image.Image]) -> None:
    def failing() -> object:
        yield png(images[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_entry(root=tmp_path / "w" / "p", key="k", count=2, sources=failing, views=[SMALL], progress=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkdirError, match="decoded images below"):
        opened(tmp_path / "file" / "pixels", Sources([]))


def test_memory_stays_bounded_by_the_number_of_workers() -> None:
    taken = 0

    def many() -> object:
        nonlocal taken
        for _ in range(1_000):
            taken += 1
            yield b""

    rows = pixels._decode_all(many(), views=[], files=[], progress=lambda _: None)
    next(rows)
    assert taken <= 8 * pixels._WORKERS
    assert sum(1 for _ in rows) == 999


KILLED = """
import io, os, signal, sys
from pathlib import Path
from PIL import Image
from vlmsel_auto.tasks.pixels import open_entry
from vlmsel_auto.records import ImageView
stream = io.BytesIO()
Image.new("RGB", (9, 9), (1, 2, 3)).save(stream, format="PNG")
def progress(done):
    if done == 150:
        os.kill(os.getpid(), signal.SIGKILL)
open_entry(root=Path(sys.argv[1]), key="k", count=300, sources=lambda: [stream.getvalue()] * 300,
           views=[ImageView(size=8)], progress=progress)
"""


def test_killed_half_way_the_next_run_starts_clean(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".part-*"))) == 1
    sources = Sources([png(picture(9, 9))] * 300)
    entry = opened(tmp_path, sources, views=[SMALL])
    assert (entry.reused, len(entry.decoded), list(tmp_path.glob(".part-*"))) == (False, 300, [])
