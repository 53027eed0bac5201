"""A search whose candidates lie on a hub (a real server on loopback), some of which cannot be had."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vlmsel_auto
from helpers.drawings import draw_task
from helpers.loopback_hub import Fault, LoopbackHub, loopback_hub, using
from helpers.real_architectures import serve_weights
from helpers.sessions import session_of, shapes_task
from vlmsel_auto import candidates
from vlmsel_auto.events import Notice
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.sources.open_clip_tags import places
from vlmsel_auto.pipeline.screen import screen

GOOD, POOR = "ViT-Mi-8-64.all-l", "RN-Mi-64.glyph-s"
FAULTS = {
    "mini/missing": (Fault(status=404, code="RepoNotFound"), "no such repository"),
    "mini/gated": (Fault(status=403, code="GatedRepo"), "token"),
    "mini/damaged": (Fault(wrong=True), "damaged"),
    "mini/failing": (Fault(status=500), "500"),
}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_task(tmp_path / "shapes")


@pytest.fixture
def hub(tmp_path: Path):
    with loopback_hub(tmp_path) as found:
        yield found


def serve(hub: LoopbackHub, *, faults: bool = True) -> list[str]:
    names = [hub.add_mini_zoo(GOOD), hub.add_mini_zoo(POOR)]
    for repository, (fault, _) in FAULTS.items() if faults else ():
        config = "open_clip_config.json"  # is there, so that the name resolves; the weights are what fails
        hub.add_mini_zoo(GOOD, repository)
        fault.names = tuple(name.rpartition("/")[2] for name in hub.files if not name.endswith(config))
        hub.faults[repository] = fault
        names.append(f"hf-hub:{repository}")
    return names


def test_the_right_one_wins_and_the_others_are_explained(hub, shapes, tmp_path):
    names, events = serve(hub), []
    result = vlmsel_auto.search(
        shapes,
        candidates=names,
        budget=vlmsel_auto.Budget(trials=3),
        method=["zero_shot", "probe"],
        shots=4,
        workdir=tmp_path / "work",
        library=default_library(),
        learn=False,
        sink=events.append,
    )
    assert result.best.candidate == f"hf-hub:mini/{GOOD}"
    assert sorted(result.ranking.order) == sorted(names[:2])
    for repository, (_, why) in FAULTS.items():
        assert why in result.ranking.failures[f"hf-hub:{repository}"], repository
        assert any(isinstance(each, Notice) and repository in each.text for each in events)
    page = (result.report_dir / "report.html").read_text()
    assert all(f"hf-hub:{repository}" in page for repository in FAULTS)
    assert {each.name for each in result.tradeoffs} == {*names[:2], "pool of 2"}


@pytest.mark.slow
def test_real_architectures_that_know_nothing_lose_to_a_small_model_that_does(hub, tmp_path):
    shapes, real = draw_task(tmp_path / "shapes", train=5, test=3), {}  # an image costs them a hundred times more
    for name in ("MobileCLIP2-S0/dfndr2b", "ViT-B-32/laion2b_s34b_b79k"):  # published figures call both good
        (candidate,) = candidates.resolve(name)
        _, place = places(candidate.arch, candidate.tag)
        path = tmp_path / f"{candidate.arch}.safetensors"
        serve_weights(hub, candidate.arch, candidate.tag, path, place.rstrip("/"))
        real[name] = path
    good, gone = hub.add_mini_zoo(GOOD), "RN50/openai"
    result = vlmsel_auto.search(
        shapes,
        candidates=[*real, gone, good],
        budget=vlmsel_auto.Budget(trials=3),
        method=["zero_shot", "probe"],
        shots=4,
        workdir=tmp_path / "work",
        library=default_library(),
        learn=False,
    )
    assert result.best.candidate == good
    assert result.ranking.order[0] == good
    assert set(result.ranking.order) == {*real, good}
    assert "no such repository" in result.ranking.failures[gone]
    for path in real.values():
        path.unlink()


def test_what_was_downloaded_serves_a_search_without_the_hub(hub, shapes, tmp_path):
    names = serve(hub, faults=False)
    vlmsel_auto.rank(shapes, candidates=names, shots=4, cache_dir=tmp_path / "first", library=default_library())
    hub.faults = {repository: Fault(status=500) for repository in (f"mini/{GOOD}", f"mini/{POOR}")}
    asked = len(hub.asked)
    ranking = vlmsel_auto.rank(
        shapes, candidates=names, offline=True, shots=4, cache_dir=tmp_path / "second", library=default_library()
    )
    assert len(ranking.order) == 2
    assert len(hub.asked) == asked


def test_a_hub_that_is_gone_is_not_waited_for_again_and_again(hub, tmp_path):
    names, events = serve(hub, faults=False), []
    for number in range(6):
        names.append(hub.add_mini_zoo(GOOD, f"mini/copy-{number}"))
    found = candidates.resolve(names)  # reads their configurations
    task = shapes_task(tmp_path / "task", found)
    with using("http://127.0.0.1:9", hub.cache):
        screening = screen(session_of(task, found, tmp_path / "store", price=0.0, sink=events.append), kept={})
    gone = [why for why in screening.failures.values() if "cannot be reached any more" in why]
    assert len(screening.failures) == len(names)
    assert len(gone) == len(names) - 3
    assert any(isinstance(each, Notice) and "cannot be reached any more" in each.text for each in events)


def test_offline_what_is_not_on_the_disk_is_told(hub, shapes, tmp_path):
    with pytest.raises(vlmsel_auto.errors.CandidateError, match="OFFLINE"):
        vlmsel_auto.rank(
            shapes, candidates=serve(hub, faults=False), offline=True, shots=4, cache_dir=tmp_path / "cache"
        )


@pytest.mark.slow
def test_the_command_line_from_another_process(hub, shapes, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "vlmsel_auto", "rank", str(shapes), "-c", ",".join(serve(hub)), "--shots", "4",
         "--cache-dir", str(tmp_path / "cache"), "--json"],
        capture_output=True, text=True, check=False,
        env=hub.environment(VLMSEL_LIBRARY=str(tmp_path / "none"), OMP_NUM_THREADS="1"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert {each["candidate"] for each in json.loads(ran.stdout)["ranked"]} == {
        f"hf-hub:mini/{GOOD}",
        f"hf-hub:mini/{POOR}",
    }
    assert "no such repository" in ran.stderr
    assert list(hub.cache.rglob("open_clip_model.safetensors"))  # the environment names hub and cache
