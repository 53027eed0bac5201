"""Opening a study: what is frozen stays, a damaged or lost journal is made whole again."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.opened_study import opened
from helpers.tuning_world import digits
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.study.optuna_study import EntryState
from vlmsel_auto.tuning.methods import PROBE


def test_a_lost_journal_has_a_place_for_every_result(tmp_path: Path) -> None:
    with opened(tmp_path, done=(0, 2)) as study:
        assert [each.state for each in study.entries()] == [EntryState.RUNNING] * 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"names": ("a", "b")}, "candidates"),
        ({"methods": (PROBE,)}, "methods"),
        ({"task": replace(digits(), digest="other")}, "images, labels or split"),
    ],
    ids=["candidates", "methods", "task"],
)
def test_what_is_frozen_stays(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(WorkdirError, match=f"belongs to a search with other {what}"), opened(tmp_path, **changes):
        pass
