"""What is exported of a study that chose nothing."""

from dataclasses import replace

import pytest

from helpers.report_world import make_ranking, make_trial
from vlmsel_auto.pipeline.export import export_best
from vlmsel_auto.records import StoppedBy
from vlmsel_auto.study.study import StudyOutcome


@pytest.mark.parametrize("best", [None, replace(make_trial(0, "a", validation=0.9), validation=None)])
def test_without_a_measured_trial_nothing_is_exported(tmp_path, best):
    outcome = StudyOutcome(
        results=(),
        best=best,
        members=(),
        plan=None,
        ranking=make_ranking(),
        seconds=1.0,
        stopped_by=StoppedBy.BUDGET,
        failures={},
    )
    events = []
    assert export_best(outcome, task=None, candidates=(), workdir=tmp_path, sink=events.append) is None
    assert events == []
    assert list(tmp_path.iterdir()) == []
