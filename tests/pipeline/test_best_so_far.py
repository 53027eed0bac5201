"""Whoever kills a search has a model."""

import pytest

import vlmsel_auto
from helpers.drawings import draw_task
from vlmsel_auto.events import Notice, StageFinished, StageStarted, TrialFinished
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.models.exporting import read_classifier
from vlmsel_auto.pipeline import export
from vlmsel_auto.records import Budget

NAMES = ("ConvNeXt-Mi-64.synth-m", "RN-Mi-64.glyph-s")


class KilledError(BaseException):
    """As abrupt as a kill: nothing of the search runs after it."""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return draw_task(tmp_path_factory.mktemp("tasks") / "shapes", train=8, test=8)


def search_killed_after(trials, *, shapes, workdir):
    finished = []

    def sink(event):
        if isinstance(event, TrialFinished):
            finished.append(event)
        if len(finished) == trials:
            raise KilledError

    with pytest.raises(KilledError):
        vlmsel_auto.search(
            shapes, candidates=NAMES, method=["zero_shot", "probe"], budget=Budget(trials=3), workdir=workdir,
            library=assemble([]), learn=False, sink=sink,
        )  # fmt: skip
    return finished


@pytest.mark.parametrize(("share", "left"), [(1e9, "the leader"), (0.0, "the first")])
def test_a_killed_search_leaves_the_best_so_far_as_long_as_that_takes_little_time(
    shapes, tmp_path, monkeypatch, share, left
):
    monkeypatch.setattr(export, "_LEADER_SHARE", share)
    finished = search_killed_after(3, shapes=shapes, workdir=tmp_path / "w")
    leaders = {"the first": finished[0].leader, "the leader": finished[-1].leader}
    assert leaders["the first"] != leaders["the leader"]
    assert read_classifier(tmp_path / "w" / "model").about["trial"] == leaders[left].number


def test_an_export_that_fails_ends_no_search(shapes, tmp_path):
    events = []

    def sink(event):
        events.append(event)
        if isinstance(event, StageStarted) and event.stage == "trials":  # what is not an export is never replaced
            (tmp_path / "w" / "model").mkdir()
            (tmp_path / "w" / "model" / "thesis.txt").write_text("precious")

    result = vlmsel_auto.search(
        shapes, candidates=NAMES, method="probe", budget=Budget(trials=2), workdir=tmp_path / "w",
        library=assemble([]), learn=False, sink=sink,
    )  # fmt: skip
    told = [each.text for each in events if isinstance(each, Notice) and "was not exported" in each.text]
    assert [text.split(" was")[0] for text in told] == ["the best model so far", "the best model"]
    assert result.best.validation is not None


def test_a_model_that_is_exported_already_is_not_written_again(shapes, tmp_path):
    before = []

    def sink(event):
        if isinstance(event, StageFinished) and event.stage == "trials":
            before.append((tmp_path / "w" / "model").stat().st_ino)

    result = vlmsel_auto.search(
        shapes, candidates=NAMES[:1], method="probe", budget=Budget(trials=1), workdir=tmp_path / "w",
        library=assemble([]), learn=False, sink=sink,
    )  # fmt: skip
    assert [result.best.model_dir.stat().st_ino] == before
    assert read_classifier(result.best.model_dir).about["trial"] == result.best.trial
