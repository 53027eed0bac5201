"""All that a candidate needs from the hub: known before, told while it comes, one reason when it does not."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from huggingface_hub import constants

from helpers.loopback_hub import COMMIT, Fault, LoopbackHub, loopback_hub, using
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import DownloadProgress
from vlmsel_auto.models import hub, hubfiles, zoo
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.download import Prefetcher, fetch, is_cached, sizes
from vlmsel_auto.models.sources.table import source_of

WEIGHTS = ("open_clip_model.safetensors",)
MEMBERS = ("ViT-Mi-8-64.all-l", "RN-Mi-64.all-m")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found, patch.object(constants, "DOWNLOAD_CHUNK_SIZE", 50_000):
        for member in MEMBERS:
            found.add_mini_zoo(member)
        yield found


def weight_bytes(server: LoopbackHub, member: str = MEMBERS[0]) -> int:
    return server.size(f"mini/{member}/open_clip_model.safetensors")


def all_bytes(server: LoopbackHub, member: str = MEMBERS[0]) -> int:
    return weight_bytes(server, member) + server.size(f"mini/{member}/bpe.txt.gz")


def test_fetch_brings_all_and_tells_how_far_it_is(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    assert not is_cached(candidate)
    assert sizes([candidate]) == {candidate.id: all_bytes(server)}
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(slow=0.02, block=100_000)
    events: list[DownloadProgress] = []
    fetch(candidate, sink=events.append)
    assert is_cached(candidate)
    assert sizes([candidate]) == {candidate.id: 0}
    assert {event.candidate for event in events} == {candidate.id}
    assert {event.total for event in events} == {all_bytes(server)}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert 3 <= len(events) < 20  # a tenth of a second apart
    assert (done[0], done[-1], events[-1].ended) == (0, all_bytes(server), True)
    assert events[0].rate is None
    assert events[-1].rate is not None
    assert 1e5 < events[-1].rate < 1e8


def test_what_is_here_costs_no_question(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    fetch(candidate)
    events: list[DownloadProgress] = []
    asked = len(server.asked)
    with using(server.url, server.cache, HF_HUB_OFFLINE=True):
        fetch(candidate, sink=events.append)
        assert sizes([candidate]) == {candidate.id: 0}
    assert (len(server.asked), events) == (asked, [])


def test_nothing_is_asked_for_the_mini_zoo_and_folders(server: LoopbackHub) -> None:
    fetch(mini_zoo()[0])
    assert is_cached(mini_zoo()[0])
    assert sizes(mini_zoo()[:1]) == {mini_zoo()[0].id: 0}
    assert server.asked == []


def put(cache: Path, repository: str, name: str) -> None:
    """Lay a file into a cache as huggingface_hub does."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")


def test_what_huggingface_hub_has_in_its_cache_counts(server: LoopbackHub) -> None:
    plain, file, roberta = (
        resolve(name)[0]
        for name in ("ViT-B-32/openai", "ViTamin-S/datacomp1b", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k")
    )
    put(server.cache, "timm/vit_base_patch32_clip_224.openai", "open_clip_pytorch_model.bin")
    assert is_cached(plain)
    put(server.cache, "jienengchen/ViTamin-S", "open_clip_pytorch_model.bin")
    assert not is_cached(file)
    put(server.cache, "jienengchen/ViTamin-S", "pytorch_model.bin")
    assert is_cached(file)
    put(server.cache, "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", "open_clip_pytorch_model.bin")
    put(server.cache, "xlm-roberta-base", "config.json")
    assert not is_cached(roberta)
    put(server.cache, "xlm-roberta-base", "sentencepiece.bpe.model")
    assert is_cached(roberta)
    assert server.asked == []


def test_a_resumed_download_counts_what_was_here(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(slow=0.01, block=50_000, names=WEIGHTS)
    stop = threading.Event()
    events: list[DownloadProgress] = []

    def sink(event: DownloadProgress) -> None:
        events.append(event)
        if event.done > all_bytes(server) - weight_bytes(server) + 200_000:
            stop.set()

    with pytest.raises(TrialUnavailable, match="was stopped"):
        fetch(candidate, sink=sink, stop=stop)
    server.faults.clear()
    (left,) = sizes([candidate]).values()
    assert 0 < left < weight_bytes(server)
    events.clear()
    fetch(candidate, sink=events.append)
    assert events[0].done == weight_bytes(server) - left
    assert events[-1].done == events[-1].total == weight_bytes(server)


def test_a_download_that_fails_has_an_end_too(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(wrong=True, names=("open_clip_model.safetensors",))
    events: list[DownloadProgress] = []
    with pytest.raises(TrialUnavailable, match="damaged"):
        fetch(candidate, sink=events.append)
    assert events[-1].ended
    assert events[-1].done == server.size(f"mini/{MEMBERS[0]}/bpe.txt.gz")  # the damaged file was deleted
    other = resolve(f"hf-hub:mini/{MEMBERS[1]}")[0]
    fetch(other)
    assert is_cached(other)


def test_a_disk_without_room_is_told_before_the_first_byte(
    server: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    gets = server.count("GET")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=all_bytes(server) - 1))
    with pytest.raises(TrialUnavailable, match=rf"download of '{candidate.id}' needs 0.00 GB.*got 0.00 GB free"):
        fetch(candidate)
    assert server.count("GET") == gets
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=all_bytes(server)))
    fetch(candidate)


def test_a_missing_package_is_told_first(server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: None)
    with pytest.raises(TrialUnavailable, match=r"needs the package transformers.*\(roberta-base\)"):
        fetch(resolve("roberta-ViT-B-32/laion2b_s12b_b32k")[0])
    assert server.asked == []


def test_a_repository_that_moved_on_is_fetched_as_one_revision(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    server.commit = "f" * 40
    fetch(candidate)
    assert {hub.cached(file).parent.name for file in source_of(candidate).files(candidate)} == {"f" * 40}
    assert zoo.load(candidate).candidate is candidate


def test_sizes_are_of_what_is_still_to_come_and_leave_out_what_the_hub_does_not_tell(server: LoopbackHub) -> None:
    first, second = (resolve(f"hf-hub:mini/{member}")[0] for member in MEMBERS)
    lost = resolve("RN50/openai")[0]
    fetch(first)
    every = [first, second, lost, mini_zoo()[0]]
    known = {first.id: 0, mini_zoo()[0].id: 0}
    assert sizes(every) == known | {second.id: all_bytes(server, MEMBERS[1])}
    asked = len(server.asked)
    assert sizes(every, ask=False) == known
    assert len(server.asked) == asked


def test_a_file_that_two_share_is_asked_for_once(server: LoopbackHub) -> None:
    server.add("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors", b"1234")
    pair = [resolve(f"{arch}/openai")[0] for arch in ("ViT-B-32", "ViT-B-32-quickgelu")]
    asked = len(server.asked)
    assert sizes(pair) == dict.fromkeys((each.id for each in pair), 4)
    assert len(server.asked) == asked + 1


def test_a_hub_that_is_slow_to_tell_is_not_waited_for(server: LoopbackHub) -> None:
    pair = [resolve(f"hf-hub:mini/{member}")[0] for member in MEMBERS]
    asked = len(server.asked)
    assert sizes(pair, seconds=0.0) == {}
    assert len(server.asked) <= asked + 8  # none, or those that began at once


def test_without_a_hub_no_size_is_known(tmp_path: Path) -> None:
    with using("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE=True):
        assert sizes(resolve("RN50/openai")) == {}


def test_every_fault_is_one_reason_and_the_next_candidate_goes_on(server: LoopbackHub) -> None:
    faults = {
        "gated": (Fault(status=403, code="GatedRepo"), "token with access"),
        "unauthorised": (Fault(status=401), "got 401"),
        "gone": (Fault(status=404, code="RepoNotFound"), "no such repository"),
        "empty": (Fault(status=404, code="EntryNotFound"), "lacks every file"),
        "busy": (Fault(status=429), "got 429"),
        "broken": (Fault(status=500), "got 500"),
        "silent": (Fault(silent_after=1000), "no answer for 0.1 s"),
        "wrong": (Fault(wrong=True), "SHA-256"),
        "sound": (Fault(), "none"),
    }
    found = {name: resolve(server.add_mini_zoo(MEMBERS[0], f"local/{name}"))[0] for name in faults}
    reasons = {}
    server.faults |= {
        f"local/{name}": replace(fault, names=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
        for name, (fault, _) in faults.items()
    }
    with using(server.url, server.cache, HF_HUB_DOWNLOAD_TIMEOUT=0.1):
        for name, candidate in found.items():
            try:
                zoo.load(candidate)
                reasons[name] = "none"
            except TrialUnavailable as error:
                reasons[name] = str(error)
    assert [name for name, (_, reason) in faults.items() if reason not in reasons[name]] == []
    assert all("\n" not in reason and len(reason) < 400 for reason in reasons.values())


def waited(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_started_candidate_comes_by_itself_and_is_had_at_once(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
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
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(slow=0.05, block=400_000, names=WEIGHTS)
    with Prefetcher() as ahead:
        ahead.start(candidate)
        ahead.start(candidate)
        ahead.fetch(candidate)
    assert is_cached(candidate)
    assert server.ranges == []  # one download, from its start to its end


def test_fetch_alone_downloads(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    with Prefetcher() as ahead:
        ahead.fetch(candidate)
    assert is_cached(candidate)


def test_an_error_comes_out_where_the_candidate_is_asked_for(server: LoopbackHub) -> None:
    first, second = (resolve(f"hf-hub:mini/{member}")[0] for member in MEMBERS)
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(status=500)
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
    first, second = (resolve(f"hf-hub:mini/{member}")[0] for member in MEMBERS)
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(slow=0.05, block=50_000, names=WEIGHTS)
    with Prefetcher() as ahead:
        ahead.start(first)
        assert waited(lambda: any(server.cache.rglob("*.incomplete")))
        time.sleep(0.4)
        ahead.fetch(second)
        assert not is_cached(first)
        server.faults.clear()
        ahead.start(first)
        ahead.fetch(first)
    assert is_cached(first)
    assert is_cached(second)
    assert len(server.ranges) == 1


def test_the_end_of_the_block_ends_the_download_and_keeps_its_bytes(server: LoopbackHub) -> None:
    (candidate,) = resolve(f"hf-hub:mini/{MEMBERS[0]}")
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(silent_after=100_000, names=WEIGHTS)
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
        "from vlmsel_auto.models.download import Prefetcher, fetch\n"
        f"one = resolve('hf-hub:mini/{MEMBERS[0]}')[0]\n"
        f"with Prefetcher() as ahead:\n    {asking}\n"
    )
    server.faults[f"mini/{MEMBERS[0]}"] = Fault(silent_after=500_000, names=WEIGHTS)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=server.environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    assert waited(lambda: any(server.cache.rglob("*.incomplete")), seconds=60)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert time.monotonic() - start < 1.5
    assert told.splitlines()[-1] == b"KeyboardInterrupt"
    assert any(server.cache.rglob("*.incomplete"))
