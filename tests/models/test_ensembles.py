"""The record of an ensemble: what is written is read, and nothing outside its folder is named."""

import json
from pathlib import Path

import pytest

from helpers.exported_world import LEVELS
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models.ensembles import read_ensemble, write_ensemble


def test_what_is_written_is_read_and_more_members_of_an_earlier_export_go(tmp_path: Path) -> None:
    for place in (1, 2, 3):
        (tmp_path / f"member-{place}").mkdir()
    write_ensemble(tmp_path, weights=[0.5, 0.25, 0.1], answers=LEVELS)
    found = read_ensemble(tmp_path)
    assert found is not None
    assert found.members == tuple(tmp_path / f"member-{place}" for place in (1, 2, 3))
    assert found.weights == (0.5, 0.25, 0.1)
    assert found.answers == LEVELS
    write_ensemble(tmp_path, weights=[1.0, 0.0])
    again = read_ensemble(tmp_path)
    assert again is not None
    assert again.members == (tmp_path / "member-1", tmp_path / "member-2")
    assert not (tmp_path / "member-3").exists()


def test_another_folder_is_no_ensemble(tmp_path: Path) -> None:
    assert read_ensemble(tmp_path) is None


def record(**changes: object) -> str:
    whole = {"format": "vlmsel_auto ensemble", "version": 2, "members": ["member-1"], "weights": [1.0]}
    return json.dumps({**whole, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        record(version=1),
        record(members=[], weights=[]),
        record(members=["../elsewhere"]),
        record(members=[".."]),
        record(members=["."]),
        record(members=[""]),
        record(members=["/elsewhere"]),
        record(members=[3]),
        record(weights=[1.0, 2.0]),
        record(weights=[-1.0]),
        record(weights=["NaN"]),
        record(weights=None),
    ],
)
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(CandidateError, match="ensemble cannot be read"):
        read_ensemble(tmp_path)


def test_a_member_that_is_linked_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ensemble"
    (folder / "kept").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "ensemble.json").write_text(record())
    (folder / "member-1").symlink_to("kept")
    found = read_ensemble(folder)
    assert found is not None
    assert found.members == (folder / "member-1",)
    for place in ("../elsewhere", ".", ".."):
        (folder / "member-1").unlink()
        (folder / "member-1").symlink_to(place)
        with pytest.raises(CandidateError, match="a member must be a folder inside the ensemble"):
            read_ensemble(folder)
