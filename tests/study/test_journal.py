"""The journal: mended after a kill or damage."""

from pathlib import Path

import pytest

from helpers.opened_study import opened, planned, result
from vlmsel_auto.events import Notice
from vlmsel_auto.study.journal import JOURNAL
from vlmsel_auto.study.optuna_study import EntryState


def test_a_journal_is_mended_after_a_kill(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned())
        study.take()
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "half')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(journal)  # of a process that died while it wrote
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [EntryState.RUNNING]
        study.queue(planned())
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [EntryState.RUNNING, EntryState.WAITING]


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
        assert [each.state for each in study.entries()] == [EntryState.RUNNING] * 3  # results on file are adopted
    assert [each.level for each in said if isinstance(each, Notice)] == ["warning"]
    assert "was damaged" in said[0].text
    assert (tmp_path / f"{JOURNAL}.damaged").exists()
    with opened(tmp_path, done=(0, 1, 2), sink=said.append):
        assert len(said) == 1
