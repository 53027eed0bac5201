"""The journal: mended after a kill or damage; what is frozen stays; a lost one is made whole again."""

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState as OptunaState

from helpers.opened_study import opened, planned, result
from helpers.tuning_world import digits
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Notice
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.tuning.methods import PROBE


def test_a_journal_is_mended_after_a_kill(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned())
        study.take()
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "half')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(journal)  # of a process that died while it wrote
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [OptunaState.RUNNING]
        study.queue(planned())
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [OptunaState.RUNNING, OptunaState.WAITING]


@pytest.mark.parametrize("harm", [b'{"half', b"[]", b'{"op_code": 4}'])
def test_a_journal_that_optuna_cannot_read_is_put_aside_and_said(tmp_path: Path, harm: bytes) -> None:
    with opened(tmp_path) as study:
        for number in range(3):
            study.queue(planned())
            study.take()
            study.close(result(number))
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines()
    lines[len(lines) // 2] = harm
    journal.write_bytes(b"\n".join(lines) + b"\n")
    said: list[object] = []
    with opened(tmp_path, done=(0, 1, 2), sink=said.append) as study:
        assert [each.state for each in study.entries()] == [OptunaState.RUNNING] * 3  # results on file are adopted
    assert [each.level for each in said if isinstance(each, Notice)] == ["warning"]
    assert "was damaged" in said[0].text
    assert (tmp_path / f"{JOURNAL}.damaged").exists()
    with opened(tmp_path, done=(0, 1, 2), sink=said.append):
        assert len(said) == 1


def test_a_lost_journal_has_a_place_for_every_result(tmp_path: Path) -> None:
    with opened(tmp_path, done=(0, 2)) as study:
        assert [each.state for each in study.entries()] == [OptunaState.RUNNING] * 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"names": ("a", "b")}, "candidates"),
        ({"method_names": (PROBE.name,)}, "methods"),
        ({"task": replace(digits(), digest="other")}, "images, labels or split"),
    ],
    ids=["candidates", "methods", "task"],
)
def test_what_is_frozen_stays(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(WorkdirError, match=f"belongs to a search with other {what}"), opened(tmp_path, **changes):
        pass
