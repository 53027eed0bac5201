"""Images are decoded when a view of them is first read, once, whoever asks; damaged files stop nothing."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pictures import broken_later, encoded, picture, write_pictures
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Event, Notice, StageFinished, StageProgress, StageStarted
from vlmsel_auto.records import BadFile, ImageView
from vlmsel_auto.tasks import pixels
from vlmsel_auto.tasks.pixels import ImageProgress, LocalSink, PixelStore
from vlmsel_auto.tasks.preprocessing import read_view
from vlmsel_auto.tasks.scan import Files

SMALL, SQUASHED = ImageView(size=8), ImageView(size=6, resize_mode="squash", interpolation="bilinear")
COUNT = 12
PEERS = 4  # images that may stand in for each other


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "task", "a", count=COUNT)


def store_of(root: Path, *, rows: range = range(COUNT), sink: object = None, entry: Path | None = None) -> PixelStore:
    """A store without an index: reading needs none."""
    paths = tuple(f"a/{k:03d}.jpg" for k in range(COUNT))
    entry = root.parent / "entry" if entry is None else entry
    entry.mkdir(exist_ok=True)
    return PixelStore(
        entry=entry,
        root=root,
        source=Files(root=root, paths=paths),
        positions=np.arange(COUNT),
        rows=np.array(rows),
        paths=tuple(paths[row] for row in rows),
        peers=np.array(rows) // PEERS,
        noted=frozenset(),
        **({} if sink is None else {"told": LocalSink(sink)}),
    )


def shown(root: Path, rows: list[int], view: ImageView) -> np.ndarray:
    return np.stack([read_view(root / f"a/{row:03d}.jpg", view)[0] for row in rows])


@settings(max_examples=25, deadline=None)
@given(
    reads=st.lists(st.tuples(st.sampled_from([SMALL, SQUASHED]), st.lists(st.integers(0, 7), max_size=6)), max_size=6)
)
def test_whatever_is_read_in_whatever_order_is_what_the_files_show(
    tmp_path_factory: pytest.TempPathFactory, *, reads: list[tuple[ImageView, list[int]]]
) -> None:
    root = write_pictures(tmp_path_factory.mktemp("lazy") / "task", "a", count=COUNT)
    store = store_of(root, rows=range(3, 11))
    for view, indices in reads:
        got = store.read(view, np.array(indices, dtype=np.int64))
        assert got.shape == (len(indices), view.size, view.size, 3)
        assert got.flags.writeable
        if indices:
            np.testing.assert_array_equal(got, shown(root, [3 + one for one in indices], view))


def test_only_what_is_read_is_decoded_and_only_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(
        pixels, "read_view", lambda path, view: (decoded.append(f"{path.name} {view.size}"), read_view(path, view))[1]
    )
    store = store_of(root)
    before = store.read(SMALL, np.array([5, 1, 5]))
    assert sorted(decoded) == ["001.jpg 8", "005.jpg 8"]
    decoded.clear()
    np.testing.assert_array_equal(store_of(root).read(SMALL, np.array([5, 1, 5])), before)
    assert decoded == []
    store.read(SMALL, np.array([1, 2]))
    store.read(SQUASHED, np.array([2]))
    assert sorted(decoded) == ["002.jpg 6", "002.jpg 8"]


def test_a_pickled_store_reads_the_same_and_tells_nobody(root: Path) -> None:
    store = store_of(root, sink=[].append)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301  as a pool of processes does with our own object
    np.testing.assert_array_equal(again.read(SMALL, np.arange(3)), store.read(SMALL, np.arange(3)))
    again.told.sink(Notice(text="nobody hears this"))


def test_decoding_that_takes_a_while_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    store = store_of(root, sink=events.append)
    store.read(SMALL, np.arange(5))
    assert events == []
    monkeypatch.setattr(pixels, "_TOLD_AFTER", 0.0)
    store.prepare(SMALL, np.arange(COUNT))
    assert isinstance(events[0], StageStarted)
    assert events[0].total == COUNT - 5
    assert [event.done for event in events if isinstance(event, StageProgress)] == list(range(1, COUNT - 4))
    assert isinstance(events[-1], StageFinished)
    events.clear()
    store.prepare(SMALL, np.arange(COUNT))
    assert events == []


def test_a_check_that_raises_ends_the_work_and_what_was_decoded_stays(root: Path) -> None:
    left = 5

    def check() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise TimeoutError

    store = store_of(root)
    with pytest.raises(TimeoutError):
        store.prepare(SMALL, np.arange(COUNT), check=check)
    assert store._file(SMALL).has(np.arange(COUNT)).tolist() == [True] * 5 + [False] * (COUNT - 5)


# --- damaged files


def test_the_next_image_of_its_kind_stands_in_for_a_damaged_one(root: Path) -> None:
    for row in (5, 7):
        path = root / f"a/{row:03d}.jpg"
        path.write_bytes(broken_later(path.read_bytes()))
    (root / "a/006.jpg").unlink()
    events: list[Event] = []
    store = store_of(root, sink=events.append)
    everything = np.arange(COUNT)
    expected = shown(root, [0, 1, 2, 3, 4, 4, 4, 4, 8, 9, 10, 11], SMALL)
    np.testing.assert_array_equal(store.read(SMALL, everything), expected)
    bad = store.found_bad
    assert [(one.path, one.used) for one in bad] == [(f"a/00{row}.jpg", False) for row in (5, 6, 7)]
    assert "truncated" in bad[0].reason
    assert "no such file" in bad[1].reason
    assert all(one.reason.endswith("; a/004.jpg stood in for it") for one in bad)
    assert [event.text for event in events] == [f"{one.path}: {one.reason}" for one in bad]
    assert store_of(root).found_bad == bad
    store.read(SQUASHED, everything)
    assert store.found_bad == bad


def test_where_none_can_stand_in_the_image_is_grey(root: Path) -> None:
    for row in range(4, 8):
        (root / f"a/{row:03d}.jpg").write_bytes(b"")
    store = store_of(root)
    assert (store.read(SMALL, np.array([5])) == 127).all()
    assert store.found_bad == (BadFile(path="a/005.jpg", reason="empty file; a grey image stood in for it"),)


def test_no_images_are_an_array_too(root: Path) -> None:
    assert store_of(root).read(SQUASHED, np.empty(0, dtype=np.int64)).shape == (0, 6, 6, 3)


def test_a_folder_that_was_emptied_is_an_error(root: Path) -> None:
    store = store_of(root)
    for file in root.rglob("*.*"):
        file.unlink()
    with pytest.raises(TaskError, match=r"bring it back \(is a disk unmounted\?\)"):
        store.read(SMALL, np.array([0]))
    assert store.found_bad == ()


def test_a_folder_that_is_gone_is_an_error(root: Path) -> None:
    store = store_of(root)
    store.read(SMALL, np.array([0]))
    shutil.move(root, root.with_name("moved"))
    store.read(SMALL, np.array([0]))
    with pytest.raises(TaskError, match="bring it back"):
        store.read(SMALL, np.array([1]))
    shutil.move(root.with_name("moved"), root)
    np.testing.assert_array_equal(store.read(SMALL, np.array([1])), shown(root, [1], SMALL))
    assert store.found_bad == ()


def test_what_had_to_be_converted_is_listed_unless_the_task_does(root: Path) -> None:
    (root / "a/003.jpg").write_bytes(encoded(picture().convert("CMYK"), "JPEG"))
    store = store_of(root)
    store.read(SMALL, np.arange(COUNT))
    assert store.found_bad == (BadFile(path="a/003.jpg", reason="CMYK image, converted to RGB", used=True),)
    (store.entry / "late.jsonl").write_text('["a/003.jpg", "half a li')
    assert store.found_bad == ()


# --- kills, and two at once


READER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks import pixels
from vlmsel_auto.tasks.pixels import PixelStore
from vlmsel_auto.tasks.scan import Files
root, count, kill_after, log = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
read_view = pixels.read_view
def watched(path, view):
    with log.open("a") as stream:
        stream.write(path.name + "\\n")
    return read_view(path, view)
pixels.read_view = watched
paths = tuple(f"a/{k:03d}.jpg" for k in range(count))
store = PixelStore(entry=root.parent / "entry", root=root, source=Files(root=root, paths=paths),
                   positions=np.arange(count), rows=np.arange(count), paths=paths, peers=np.arange(count),
                   noted=frozenset())
done = 0
def check():
    global done
    done += 1
    if done == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
store.prepare(ImageView(size=8), np.arange(count), check=check)
print(int(store.read(ImageView(size=8), np.arange(count)).astype(np.int64).sum()))
"""


def reader(root: Path, count: int, *, log: Path, kill_after: int = -1) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(READER), str(root), str(count), str(kill_after), str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_half_way_whole_rows_are_kept_and_the_rest_is_decoded_next_time(tmp_path: Path) -> None:
    root, count, log = write_pictures(tmp_path / "task", "a", count=200), 200, tmp_path / "log"
    (tmp_path / "entry").mkdir()
    with reader(root, count, log=log, kill_after=150) as killed:
        assert killed.wait() == -signal.SIGKILL
    log.unlink()
    with reader(root, count, log=log) as again:
        out, _ = again.communicate()
    assert len(log.read_text().splitlines()) == count - 2 * pixels._COMMIT
    assert int(out) == int(shown(root, list(range(count)), SMALL).astype(np.int64).sum())


def test_two_processes_at_once_decode_every_image_once(tmp_path: Path) -> None:
    root, count, log = write_pictures(tmp_path / "task", "a", count=150), 150, tmp_path / "log"
    (tmp_path / "entry").mkdir()
    with reader(root, count, log=log) as one, reader(root, count, log=log) as two:
        sums = [each.communicate()[0] for each in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0)
    assert sums[0] == sums[1]
    assert sorted(log.read_text().split()) == [f"{k:03d}.jpg" for k in range(count)]


MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.pixels import PixelStore
from vlmsel_auto.tasks.scan import Files
root, count = Path(sys.argv[1]), 200
paths = tuple(f"{k}.png" for k in range(count))
store = PixelStore(entry=root.parent / "entry", root=root, source=Files(root=root, paths=paths),
                   positions=np.arange(count), rows=np.arange(count), paths=paths, peers=np.arange(count),
                   noted=frozenset())
view = ImageView(size=64)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
store.prepare(view, np.arange(20))
before = peak()
store.prepare(view, np.arange(count))
print(json.dumps([before, peak()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "task").mkdir()
    (tmp_path / "task/0.png").write_bytes(encoded(picture(12, 9).resize((1_000, 750))))  # 2.25 MB decoded
    for k in range(1, 200):
        os.link(tmp_path / "task/0.png", tmp_path / f"task/{k}.png")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / "task")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    before, after = json.loads(done.stdout)  # KiB
    assert after - before < 40_000 < 180 * 2_250


def run(total: int, *, after: float) -> list[Event]:
    events: list[Event] = []
    progress = ImageProgress(sink=events.append, total=total, text="reading", after=after)
    for done in range(1, total + 1):
        progress(done)
    progress.finish("read")
    return events


@pytest.mark.parametrize("total", [1, 99, 1_234])
def test_about_a_hundred_steps_between_start_and_end(total: int) -> None:
    events = run(total, after=0)
    assert events[0] == StageStarted(stage="images", total=total, text="reading")
    assert isinstance(events[-1], StageFinished)
    assert events[-1].text == "read"
    done = [event.done for event in events[1:-1] if isinstance(event, StageProgress)]
    assert len(done) == len(events) - 2 <= 110
    assert done == sorted(done)
    assert done[-1] == total


def test_quick_work_is_not_told() -> None:
    assert run(50, after=1_000) == []
