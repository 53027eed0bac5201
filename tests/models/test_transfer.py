"""A file over connections that fail: every byte once, in order, checked; no hub in sight."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmsel_auto.models.transfer import BrokenOff, Chunks, Damaged, Stopped, incomplete_bytes, receive

DATA = bytes(range(256)) * 16_384  # 4 MiB


class Server:
    """Connections to DATA, each of which breaks off after its number of bytes; the last number holds for the rest."""

    def __init__(self, *limits: int, ranges: bool = True) -> None:
        self.limits = list(limits)
        self.ranges = ranges
        self.offsets: list[int] = []

    @contextmanager
    def __call__(self, offset: int) -> Iterator[Chunks]:
        self.offsets.append(offset)
        start = offset if self.ranges else 0
        limit = self.limits.pop(0) if len(self.limits) > 1 else self.limits[0]
        yield start, self.chunks(start, limit)

    def chunks(self, start: int, limit: int) -> Iterator[bytes]:
        stop = min(len(DATA), start + limit)
        for place in range(start, stop, 100_000):
            yield DATA[place : min(place + 100_000, stop)]
        if stop < len(DATA):
            raise BrokenOff("cut")


def take(path: Path, server: Server, **changes: object) -> list[int]:
    counts: list[int] = []
    arguments = {
        "open_at": server, "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest(), "arrived": counts.append,
        "stop": threading.Event(),
    }  # fmt: skip
    receive(path, **arguments | changes)
    return counts


def test_a_whole_file_takes_one_connection(tmp_path: Path) -> None:
    server = Server(len(DATA))
    counts = take(tmp_path / "made" / "file", server)
    assert (tmp_path / "made" / "file").read_bytes() == DATA
    assert (server.offsets, counts[-1]) == ([0], len(DATA))


def test_connections_that_bring_much_may_break_off_often(tmp_path: Path) -> None:
    server = Server(1 << 20)
    take(tmp_path / "file", server)
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.offsets == [0, 1 << 20, 2 << 20, 3 << 20]


def test_three_that_bring_little_are_enough(tmp_path: Path) -> None:
    server = Server(2 << 20, 5, 6, 0)
    with pytest.raises(BrokenOff, match=r"cut after 2,097,163 of 4,194,304 bytes"):
        take(tmp_path / "file", server)
    assert incomplete_bytes(tmp_path / "file") == (2 << 20) + 11
    assert not (tmp_path / "file").exists()
    take(tmp_path / "file", Server(len(DATA)))
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_server_that_starts_again_is_followed(tmp_path: Path) -> None:
    server = Server(1 << 20, len(DATA), ranges=False)
    take(tmp_path / "file", server)
    assert (tmp_path / "file").read_bytes() == DATA


def test_an_unknown_size_ends_with_the_connection(tmp_path: Path) -> None:
    take(tmp_path / "file", Server(len(DATA)), size=None)
    assert (tmp_path / "file").read_bytes() == DATA
    with pytest.raises(BrokenOff, match="cut after 0 bytes"):
        take(tmp_path / "other", Server(0), size=None)


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": len(DATA) - 1}])
def test_what_was_not_promised_is_deleted(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(Damaged, match="instead of"):
        take(tmp_path / "file", Server(len(DATA)), **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    @contextmanager
    def nothing(offset: int) -> Iterator[Chunks]:
        yield offset, iter(())

    take(tmp_path / "file", nothing, size=0, sha256=hashlib.sha256().hexdigest())
    assert (tmp_path / "file").read_bytes() == b""


def test_a_stop_keeps_what_came(tmp_path: Path) -> None:
    stop = threading.Event()

    def arrived(count: int) -> None:
        if count >= 500_000:
            stop.set()

    with pytest.raises(Stopped):
        take(tmp_path / "file", Server(len(DATA)), arrived=arrived, stop=stop)
    assert incomplete_bytes(tmp_path / "file") == 500_000
