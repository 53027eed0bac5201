import json
from pathlib import Path

import pytest

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models.ensembles import members_of, write_ensemble


def test_members_come_back_and_those_of_an_earlier_export_go(tmp_path: Path) -> None:
    for place in (1, 2, 3):
        (tmp_path / f"member-{place}").mkdir()
    write_ensemble(tmp_path, members=3)
    assert members_of(tmp_path) == tuple(tmp_path / f"member-{place}" for place in (1, 2, 3))
    write_ensemble(tmp_path, members=2)
    assert members_of(tmp_path) == (tmp_path / "member-1", tmp_path / "member-2")
    assert not (tmp_path / "member-3").exists()


def test_another_folder_is_no_ensemble(tmp_path: Path) -> None:
    assert members_of(tmp_path) is None


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        json.dumps({"format": "vlmsel_auto ensemble", "version": 9, "members": ["member-1"]}),
        json.dumps({"format": "vlmsel_auto ensemble", "version": 1, "members": []}),
        json.dumps({"format": "vlmsel_auto ensemble", "version": 1, "members": ["../elsewhere"]}),
    ],
    ids=["half", "other", "version", "empty", "outside"],
)
def test_damage_is_one_error(tmp_path: Path, record: str) -> None:
    (tmp_path / "ensemble.json").write_text(record)
    with pytest.raises(CandidateError, match="ensemble cannot be read"):
        members_of(tmp_path)
