"""Parts of files of a hub, and its small files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.loopback_hub import Fault, LoopbackHub, loopback_hub
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.hub import HubFile, RemoteFile, find
from vlmsel_auto.models.remote import read_from, read_text

SIZE = 4 << 20
ARCHIVE = HubFile(repository="some/data", names=("test/0.tar",), kind="dataset")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        found.add("datasets/some/data", "test/0.tar", bytes(range(256)) * (SIZE // 256))
        found.add("datasets/some/data", "classnames.txt", b"one\ntwo\n")
        yield found


def archive() -> RemoteFile:
    found = find(ARCHIVE)
    assert found is not None
    return found


def test_a_part_is_read_and_nothing_is_kept(hub: LoopbackHub) -> None:
    assert archive().size == SIZE
    with read_from(archive(), 1000) as (start, chunks):
        assert start == 1000
        assert next(chunks)[:4] == bytes([232, 233, 234, 235])
    assert hub.ranges == ["bytes=1000-"]
    assert not list(hub.cache.rglob("*.tar"))
    assert not list(hub.cache.rglob("*incomplete"))


def test_a_mirror_without_ranges_begins_at_the_beginning(hub: LoopbackHub) -> None:
    hub.faults["datasets/some/data"] = Fault(ranges=False)
    with read_from(archive(), 1000) as (start, chunks):
        assert (start, next(chunks)[:2]) == (0, b"\0\1")


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault(status=500), "500"), (Fault(cut_after=100_000), "broke off")], ids=["status", "cut"]
)
def test_what_cannot_be_read_is_one_reason(hub: LoopbackHub, fault: Fault, reason: str) -> None:
    found = archive()
    hub.faults["datasets/some/data"] = fault
    with pytest.raises(TrialUnavailable, match=rf"{reason}.*some/data"), read_from(found, 1000) as (_, chunks):
        for _ in chunks:
            pass


def test_small_files_are_kept_in_the_cache_of_data_sets(hub: LoopbackHub) -> None:
    file = HubFile(repository="some/data", names=("classnames.txt",), kind="dataset")
    assert read_text(file) == "one\ntwo\n"
    hub.remove("datasets/some/data")
    assert read_text(file) == "one\ntwo\n"
    assert (hub.cache / "datasets--some--data" / "snapshots" / hub.commit / "classnames.txt").is_file()
    hub.add("datasets/some/other", "readme.md", b"\xff\xfe")
    other = HubFile(repository="some/other", names=("none.txt",), optional=True, kind="dataset")
    assert read_text(other) is None
    with pytest.raises(TrialUnavailable, match=r"readme\.md|some/other"):
        read_text(HubFile(repository="some/other", names=("readme.md",), kind="dataset"))
