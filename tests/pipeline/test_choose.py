"""Who a search is about: auto with and without a hub, limits, and an earlier choice."""

from pathlib import Path

import pytest

from helpers.loopback_hub import loopback_hub, using
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.choose import Chosen, choose
from vlmsel_auto.pipeline.request import TaskRequest
from vlmsel_auto.pipeline.workdir import EarlierChoice

ONE, OTHER = "RN-Mi-64.glyph-s", "ViT-Mi-8-64.all-l"


def chosen(names, *, limits=NO_LIMITS, offline=False, earlier=None) -> tuple[Chosen, list[str]]:
    told: list[str] = []
    request = TaskRequest(data="images", candidates=names, limits=limits, offline=offline, device="cpu")
    sink = lambda event: told.append(event.text) if isinstance(event, Notice) else None  # noqa: E731
    found = choose(request, earlier=earlier, sink=sink)
    return found, told


def test_auto_with_a_hub_takes_a_preset_that_suits_the_machine(tmp_path: Path):
    with loopback_hub(tmp_path) as hub:
        found, told = chosen("auto")
        assert hub.count("GET") == 0  # nothing is downloaded
    assert all(one.source == "open_clip" for one in found.candidates)
    assert found.machine is not None
    assert len(told) == 1  # it has none of them, so there is nothing to plan
    assert "preset" in told[0]


def test_auto_without_a_hub_is_the_mini_zoo(tmp_path: Path):
    with using("http://127.0.0.1:9", tmp_path):  # nobody listens there
        found, told = chosen("auto")
    assert found.candidates == mini_zoo()
    assert "the mini zoo" in told[0]


def test_auto_asks_no_hub_offline(tmp_path: Path):
    with loopback_hub(tmp_path) as hub:
        found, told = chosen(["auto"], offline=True)
        assert hub.asked == []
    assert found.candidates == mini_zoo()
    assert "mini zoo" in told[0]


def test_auto_keeps_what_it_chose_before(tmp_path: Path):
    with using("http://127.0.0.1:9", tmp_path):
        found, told = chosen("auto", earlier=EarlierChoice(candidates=(ONE,), left_out={OTHER: "too large"}))
    assert found.failures == {OTHER: "too large"}
    assert [one.id for one in found.candidates] == [ONE]
    assert told == []


def test_limits_and_the_plan_go_by_the_sizes_that_the_hub_tells(tmp_path: Path):
    with loopback_hub(tmp_path) as hub:
        names = [hub.add_mini_zoo(ONE), hub.add_mini_zoo(OTHER)]
        repositories = [name.removeprefix("hf-hub:") for name in names]
        bytes_of = [
            sum(hub.size(file) for file in hub.files if file.startswith(f"{each}/") and "config" not in file)
            for each in repositories
        ]
        free, told = chosen(names)
        assert list(free.downloads.values()) == bytes_of
        assert told[-1].startswith("up to ")
        assert "to download for 2 models; a model is downloaded when it is screened" in told[-1]
        small = min(bytes_of)
        assert small < max(bytes_of)
        limited, _ = chosen(names, limits=Limits(max_download_bytes=small))
        assert [free.downloads[one.id] for one in limited.candidates] == [small]
        (out,) = limited.failures.values()
        assert "to download exceed --max-download" in out
        assert hub.count("GET") == 2  # the configurations, by which the names resolve
        asked = len(hub.asked)
        offline, _ = chosen(names, offline=True)
        assert offline.downloads == {}
        assert len(hub.asked) == asked


def test_names_of_this_disk_need_no_measured_machine():
    found, told = chosen([ONE, OTHER])
    assert [one.id for one in found.candidates] == [ONE, OTHER]
    assert found.machine is None
    assert told == []


def test_a_folder_that_cannot_be_used_is_told_and_the_others_stay(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    found, told = chosen([ONE, f"local-dir:{tmp_path / 'empty'}"])
    assert [one.id for one in found.candidates] == [ONE]
    assert list(found.failures) == [f"local-dir:{tmp_path / 'empty'}"]
    assert "cannot be used" in told[0]


def test_limits_keep_out_and_say_whom():
    sizes = {one.id: one.params or 0 for one in mini_zoo()}
    small, large = sorted((ONE, OTHER), key=lambda name: sizes[name])
    found, told = chosen([small, large], limits=Limits(max_params=sizes[large] - 1))
    assert [one.id for one in found.candidates] == [small]
    assert "exceed --max-params" in found.failures[large]
    assert "1 candidate kept out by limits" in told[0]


def test_limits_are_not_applied_anew_to_who_was_in():
    tight = Limits(max_params=1)  # as free memory would be, which has shrunk since
    found, told = chosen([ONE, OTHER], limits=tight, earlier=EarlierChoice(candidates=(ONE,), left_out={OTHER: "late"}))
    assert [one.id for one in found.candidates] == [ONE]
    assert found.failures == {OTHER: "late"}
    assert told == []


def test_only_a_latency_beyond_doubt_keeps_out_before_anything_is_timed():
    with pytest.raises(CandidateError, match=r"leave no candidate.*far above --max-latency"):
        chosen([ONE], limits=Limits(max_latency=1e-9))
    assert chosen([ONE], limits=Limits(max_latency=10.0))[0].failures == {}
