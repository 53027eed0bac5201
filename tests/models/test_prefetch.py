"""The next candidate comes while the present one computes; its errors come out where it is asked for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.loopback_hub import Fault, LoopbackHub, loopback_hub
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import DownloadProgress
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.download import is_cached
from vlmsel_auto.models.prefetch import Prefetcher

FIRST, SECOND = "ViT-Mi-8-64.all-l", "RN-Mi-64.all-m"
WEIGHTS = ("open_clip_model.safetensors",)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        for member in (FIRST, SECOND):
            found.add_mini_zoo(member)
        yield found


def waited(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_started_candidate_comes_by_itself_and_is_had_at_once(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{FIRST}")
    events: list[DownloadProgress] = []
    with Prefetcher(sink=events.append) as ahead:
        ahead.start(candidate)
        assert waited(lambda: is_cached(candidate))
        gets = server.count("GET")
        ahead.fetch(candidate)
        ahead.fetch(candidate)  # nothing is under way any more
    assert server.count("GET") == gets
    assert [event.ended for event in events].count(True) == 1


def test_fetch_waits_for_a_download_under_way(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{FIRST}")
    server.faults[f"mini/{FIRST}"] = Fault(slow=0.05, block=400_000, names=WEIGHTS)
    with Prefetcher() as ahead:
        ahead.start(candidate)
        ahead.start(candidate)
        ahead.fetch(candidate)
    assert is_cached(candidate)
    assert server.ranges == []  # one download, from its start to its end


def test_fetch_alone_downloads(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{FIRST}")
    with Prefetcher() as ahead:
        ahead.fetch(candidate)
    assert is_cached(candidate)


def test_an_error_comes_out_where_the_candidate_is_asked_for(server: LoopbackHub) -> None:
    first, second = (resolve(f"hf-hub:mini/{member}")[0] for member in (FIRST, SECOND))
    server.faults[f"mini/{FIRST}"] = Fault(status=500)
    asked = server.count("HEAD")
    with Prefetcher() as ahead:
        ahead.start(first)
        assert waited(lambda: server.count("HEAD") > asked)
        with pytest.raises(TrialUnavailable, match="got 500"):
            ahead.fetch(first)
        ahead.fetch(second)
        server.faults.clear()
        ahead.fetch(first)  # asked again, it is tried again
    assert is_cached(first)
    assert is_cached(second)


def test_another_candidate_breaks_a_download_off_and_it_is_resumed(server: LoopbackHub) -> None:
    first, second = (resolve(f"hf-hub:mini/{member}")[0] for member in (FIRST, SECOND))
    server.faults[f"mini/{FIRST}"] = Fault(slow=0.05, block=50_000, names=WEIGHTS)
    with Prefetcher() as ahead:
        ahead.start(first)
        assert waited(lambda: any(server.cache.rglob("*.incomplete")))
        time.sleep(0.2)
        ahead.fetch(second)
        assert not is_cached(first)
        server.faults.clear()
        ahead.start(first)
        ahead.fetch(first)
    assert is_cached(first)
    assert is_cached(second)
    assert len(server.ranges) == 1


def test_the_end_of_the_block_ends_the_download_and_keeps_its_bytes(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{FIRST}")
    server.faults[f"mini/{FIRST}"] = Fault(silent_after=100_000, names=WEIGHTS)
    with Prefetcher() as ahead:
        ahead.start(candidate)
        assert waited(lambda: any(each.stat().st_size for each in server.cache.rglob("*.incomplete")))
        start = time.monotonic()
    assert time.monotonic() - start < 1
    server.closing.set()  # the silent connection ends
    assert not is_cached(candidate)


@pytest.mark.parametrize(
    "asking", ["ahead.start(one); time.sleep(60)", "ahead.start(one); ahead.fetch(one)", "fetch(one)"]
)
def test_ctrl_c_ends_within_a_second_and_leaves_a_file_to_resume(server: LoopbackHub, asking: str) -> None:
    code = (
        "import sys, time\n"
        "from vlmsel_auto.models.candidates import resolve\n"
        "from vlmsel_auto.models.download import fetch\n"
        "from vlmsel_auto.models.prefetch import Prefetcher\n"
        f"one = resolve('hf-hub:mini/{FIRST}')[0]\n"
        f"with Prefetcher() as ahead:\n    {asking}\n"
    )
    server.faults[f"mini/{FIRST}"] = Fault(silent_after=500_000, names=WEIGHTS)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=server.environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    partial = lambda: [each.stat().st_size for each in server.cache.rglob("*.incomplete")]  # noqa: E731
    assert waited(lambda: partial() == [500_000], seconds=60)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert time.monotonic() - start < 1.5
    assert told.splitlines()[-1] == b"KeyboardInterrupt"
    assert partial() == [500_000]
