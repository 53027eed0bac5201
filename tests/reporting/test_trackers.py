"""What is logged of a search, whatever the tracker; a tracker that breaks never ends it."""

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from helpers.tracker_world import story, trials
from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Notice, TrialFinished, TrialStarted
from vlmsel_auto.reporting.trackers import TrackerSink, names_of, tracked


@dataclass
class Kept:
    """A run in memory, which may break."""

    breaks_at: str = ""
    values: dict = field(default_factory=dict)
    points: list = field(default_factory=list)
    below: dict = field(default_factory=dict)
    attached: list = field(default_factory=list)
    good: bool | None = None

    def trial(self, name):
        if name == self.breaks_at:
            raise ConnectionError("server gone")
        self.below[name] = Kept()
        return self.below[name]

    def describe(self, values):
        self.values.update(values)

    def measure(self, values, *, step):
        self.points.append((step, values))

    def attach(self, folder):
        self.attached.append(folder)

    def end(self, *, good, values, metrics):
        assert self.good is None, "a run ends once"
        self.good = good
        self.values.update(values)
        self.points.append((None, metrics))


def test_every_trial_is_a_run_that_ends_once(tmp_path):
    run, heard = Kept(), []
    sink = TrackerSink([run], {"task": "birds"}, sink=heard.append)
    events = list(story(tmp_path))
    for event in events:
        sink(event)
    sink.close(good=True)
    assert heard == events
    assert {name: each.good for name, each in run.below.items()} == {
        "trial-0000": True, "trial-0001": True, "trial-0002": False,
    }  # fmt: skip
    assert run.below["trial-0002"].values["reason"] == "why <failed>"
    assert run.below["trial-0001"].points[:2] == [(1, {"validation": 0.5}), (2, {"validation": 0.75})]
    assert run.attached == [tmp_path]
    assert run.good is True
    assert run.points[-1][1]["best/validation"] == 0.75


def test_trials_of_an_earlier_call_are_logged_with_their_curves():
    run = Kept()
    sink = TrackerSink([run], {}, sink=lambda event: None)
    sink(TrialFinished(result=trials()[1], resumed=True))
    assert run.below["trial-0001"].values["why"] == "of an earlier call"
    assert [step for step, _ in run.below["trial-0001"].points] == [1, 2, None]


def test_a_trial_that_was_interrupted_ends_as_failed():
    run = Kept()
    sink = TrackerSink([run], {}, sink=lambda event: None)
    sink(TrialStarted(number=1, spec=trials()[1].spec))
    sink.close(good=False)
    assert (run.below["trial-0001"].good, run.below["trial-0001"].values["state"]) == (False, "interrupted")
    assert run.good is False


def test_a_tracker_that_breaks_is_told_once_and_the_others_go_on(tmp_path):
    broken, whole, heard = Kept(breaks_at="trial-0001"), Kept(), []
    sink = TrackerSink([broken, whole], {}, sink=heard.append)
    for event in story(tmp_path):
        sink(event)
    sink.close(good=True)
    notices = [event for event in heard if isinstance(event, Notice)]
    assert len(notices) == 1
    assert "ConnectionError: server gone" in notices[0].text
    assert len(whole.below) == 3
    assert whole.good is True
    assert broken.good is None


def test_no_logger_leaves_the_sink_as_it_is(tmp_path):
    heard = []
    with tracked((), folder=tmp_path, about={}, sink=heard.append) as sink:
        sink(Notice(text="one"))
    assert heard == [Notice(text="one")]


def test_an_unknown_name_is_refused_before_anything_is_loaded():
    with pytest.raises(InputError, match="one of tensorboard, csv, mlflow, wandb, but got 'excel'"):
        names_of(["csv", "excel"])
    assert names_of("csv") == ["csv"]
    assert names_of(object()) == []


def test_module_loads_neither_lightning_nor_torch():
    script = "import sys, vlmsel_auto.reporting.trackers; print({'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
