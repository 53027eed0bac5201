"""One file of a hub: found, downloaded, resumed, refused for one clear reason; no secret is told."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from huggingface_hub import constants

from helpers.loopback_hub import Fault, LoopbackHub, loopback_hub, using
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.hub import cached, check_space, dataset_files, download, find, is_reachable
from vlmsel_auto.models.hub_reasons import endpoint
from vlmsel_auto.models.hubfiles import HubFile

REPOSITORY = "local/blob"
FILE = HubFile(repository=REPOSITORY, names=("weights.bin",))
SIZE = 3_000_000
ARCHIVE_SIZE = 1 << 22


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found, patch.object(constants, "DOWNLOAD_CHUNK_SIZE", 50_000):
        found.add(REPOSITORY, "weights.bin", bytes(range(250)) * (SIZE // 250))
        found.add(REPOSITORY, "small.json", b"{}")
        yield found


def fetched(file: HubFile = FILE, stop: threading.Event | None = None) -> tuple[Path, list[int]]:
    stop, counts = stop or threading.Event(), []
    found = find(file)
    assert found is not None
    download(found, arrived=counts.append, stop=stop)
    path = cached(file)
    assert path is not None
    return path, counts


def test_a_file_comes_into_the_cache_of_huggingface_hub(hub: LoopbackHub) -> None:
    assert cached(FILE) is None
    path, counts = fetched()
    assert path.read_bytes() == hub.files[f"{REPOSITORY}/weights.bin"]
    assert path.relative_to(hub.cache).parts[:3] == ("models--local--blob", "snapshots", hub.commit)
    assert counts == sorted(counts)
    assert counts[-1] == SIZE
    assert list(hub.cache.rglob("*.incomplete")) == []


def test_the_first_name_that_the_repository_has_is_taken(hub: LoopbackHub) -> None:
    found = find(HubFile(repository=REPOSITORY, names=("none.bin", "weights.bin", "small.json")))
    assert found is not None
    assert (found.name, found.size, found.remaining) == ("weights.bin", SIZE, SIZE)
    absent = HubFile(repository=REPOSITORY, names=("none.bin",), optional=True)
    assert find(absent) is None


def test_a_download_that_breaks_off_goes_on_by_itself(hub: LoopbackHub) -> None:
    hub.faults[REPOSITORY] = Fault(silent_after=1_200_000)
    with using(hub.url, hub.cache, HF_HUB_DOWNLOAD_TIMEOUT=0.5):
        path, _ = fetched()
    assert path.read_bytes() == hub.files[f"{REPOSITORY}/weights.bin"]
    assert len(hub.ranges) == 2


def test_what_another_run_has_whole_but_not_named_costs_no_byte(hub: LoopbackHub) -> None:
    found = find(FILE)
    assert found is not None
    found.blob.parent.mkdir(parents=True)
    found.blob.with_name(found.blob.name + ".incomplete").write_bytes(hub.files[f"{REPOSITORY}/weights.bin"])
    path, counts = fetched()
    assert (path.stat().st_size, counts, hub.count("GET")) == (SIZE, [], 0)


def test_wrong_bytes_are_found_and_deleted(hub: LoopbackHub) -> None:
    hub.faults[REPOSITORY] = Fault(wrong=True)
    with pytest.raises(TrialUnavailable, match=r"damaged and was deleted.*SHA-256 .* instead of"):
        fetched()
    assert list(hub.cache.rglob("*.incomplete")) == []
    assert cached(FILE) is None
    hub.faults.clear()
    assert fetched()[0].stat().st_size == SIZE


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=403, code="GatedRepo"), "wants a token with access"),
        (Fault(status=401), "wants a valid token .*401"),
        (Fault(status=404, code="RepoNotFound"), "no such repository"),
        (Fault(status=404, code="EntryNotFound"), "lacks every file of .'weights.bin'."),
        (Fault(status=429), "too many requests.*429"),
        (Fault(status=429, retry_after=3600), "asked again in 3600 s.*429"),
        (Fault(status=500), "try again later.*500"),
        (Fault(status=503), "try again later.*503"),
    ],
    ids=lambda each: f"{each.status}{each.code}{each.retry_after or ''}" if isinstance(each, Fault) else "",
)
def test_a_refusal_is_one_clear_reason_at_once(hub: LoopbackHub, fault: Fault, message: str) -> None:
    hub.faults[REPOSITORY] = fault
    start = time.monotonic()
    with pytest.raises(TrialUnavailable, match=f"{message}.*{REPOSITORY}"):
        fetched()
    assert time.monotonic() - start < 5
    assert hub.count("HEAD") == 1


def test_silence_is_given_up(hub: LoopbackHub) -> None:
    hub.faults[REPOSITORY] = Fault(silent_after=1000)
    start = time.monotonic()
    with (
        using(hub.url, hub.cache, HF_HUB_DOWNLOAD_TIMEOUT=0.2),
        pytest.raises(TrialUnavailable, match=r"broke off.*no answer for 0.2 s.*of 3,000,000 bytes"),
    ):
        fetched()
    assert time.monotonic() - start < 15


def test_a_file_without_network_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with using(url, tmp_path), pytest.raises(TrialUnavailable, match=f"Cannot reach the hub.*ConnectError.*{url}"):
        find(FILE)


def test_a_host_that_no_name_server_knows_is_told(tmp_path: Path) -> None:
    with using("http://hub.invalid", tmp_path), pytest.raises(TrialUnavailable, match=r"Cannot reach.*hub\.invalid"):
        find(FILE)


def test_a_download_ends_when_asked_and_can_be_resumed(hub: LoopbackHub) -> None:
    hub.faults[REPOSITORY] = Fault(slow=0.05, block=10_000)
    stop = threading.Event()
    threading.Timer(0.6, stop.set).start()
    start = time.monotonic()
    with pytest.raises(TrialUnavailable, match="was stopped"):
        fetched(stop=stop)
    assert time.monotonic() - start < 2
    (partial,) = hub.cache.rglob("*.incomplete")
    assert 0 < partial.stat().st_size < SIZE
    hub.faults.clear()
    path, counts = fetched()
    assert counts[0] > 10_000
    assert path.read_bytes() == hub.files[f"{REPOSITORY}/weights.bin"]


def test_a_full_disk_is_told_before_the_first_byte(tmp_path: Path) -> None:
    with using("http://127.0.0.1:9", tmp_path / "cache"):
        check_space(1000, what="'a'")
        with pytest.raises(TrialUnavailable, match=r"download of 'a' needs 1000000.00 GB.*HF_HUB_CACHE.*GB free"):
            check_space(10**15, what="'a'")


@pytest.mark.parametrize("fault", [None, Fault(status=401), Fault(cut_after=100), Fault(wrong=True)])
def test_a_token_is_told_to_nobody_but_the_hub(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Fault | None
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    caplog.set_level(logging.DEBUG)
    if fault is not None:
        hub.faults[REPOSITORY] = fault
    told = said(fetched)
    assert (told == "") == (fault is None)
    assert "hf_secret" not in told + caplog.text
    hosts = {host.partition(":")[0] for host, authorization in hub.tokens if authorization == "Bearer hf_secret"}
    assert hosts == {"127.0.0.1"}  # the host that files are sent on to gets none


def test_a_token_that_is_none_is_not_sent_and_not_told(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret\x0cx")
    caplog.set_level(logging.DEBUG)
    told = said(fetched)
    assert "HF_TOKEN" in told
    assert "hf_secret" not in told + caplog.text
    assert hub.asked == []


def said(act: Callable[[], object]) -> str:
    """What the error of an action says, with all that led to it."""
    text, error = "", None
    try:
        act()
    except TrialUnavailable as caught:
        error = caught
    while error is not None:
        text, error = text + repr(error), error.__cause__ or error.__context__
    return text


def test_a_password_in_the_address_of_a_mirror_is_hidden(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = hub.url.replace("http://", "http://someone:password@")
    with using(url, tmp_path):
        assert endpoint() == hub.url
        hub.faults[REPOSITORY] = Fault(status=500)
        with pytest.raises(TrialUnavailable) as caught:
            find(FILE)
        hub.faults[REPOSITORY] = Fault(cut_after=100)
        with pytest.raises(TrialUnavailable) as broken:
            fetched()
    assert "Trying to resume" in caplog.text  # huggingface_hub's own words
    assert "password" not in str(caught.value) + str(broken.value) + caplog.text


def test_a_hub_is_reachable_or_not(hub: LoopbackHub, tmp_path: Path) -> None:
    assert is_reachable()
    with using(hub.url, tmp_path, HF_HUB_OFFLINE=True):
        assert not is_reachable()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with using(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path):
            assert not is_reachable(timeout=0.5)
        assert time.monotonic() - start < 1.5
    assert hub.url == constants.ENDPOINT


@pytest.fixture
def data_hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        found.add("datasets/some/data", "test/0.tar", bytes(range(256)) * (ARCHIVE_SIZE // 256))
        found.add("datasets/some/data", "classnames.txt", b"one\ntwo\n")
        yield found


def test_parts_of_data_sets_are_read_and_nothing_is_kept(data_hub: LoopbackHub) -> None:
    with dataset_files("some/data") as files:
        assert (files.text("classnames.txt"), files.text("none.txt")) == ("one\ntwo\n", "")
        ((path, size),) = files.sizes("test").items()
        assert size == ARCHIVE_SIZE
        with files.open(path) as file:
            file.seek(1000)
            assert file.read(4) == bytes([232, 233, 234, 235])
    assert data_hub.ranges[-1].startswith("bytes=1000-")
    assert not list(data_hub.cache.rglob("*.tar"))


@pytest.mark.parametrize(
    ("repository", "fault", "reason"),
    [
        ("some/other", None, "no such repository"),
        ("some/data", Fault(status=403, code="GatedRepo"), "HF_TOKEN|no such repository"),
    ],
)
def test_what_cannot_be_read_is_one_reason(
    data_hub: LoopbackHub, repository: str, fault: Fault | None, reason: str
) -> None:
    if fault is not None:
        data_hub.faults["datasets/some/data"] = fault
    with pytest.raises(TrialUnavailable, match=rf"({reason}).*{repository}"), dataset_files(repository) as files:
        files.sizes("test")
    offline = using(data_hub.url, data_hub.cache, HF_HUB_OFFLINE=True)
    with offline, pytest.raises(TrialUnavailable, match="OFFLINE"), dataset_files(repository):
        pass
