"""What a search keeps of itself: damage is said, and made again."""

from pathlib import Path

import pytest

from helpers.study_world import ranking
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.pipeline.workdir import EarlierChoice, claim, read_choice, read_ranking, save_choice, save_ranking

CHOICE = EarlierChoice(candidates=("a", "b"), left_out={"c": "too large"}, images=141)
SETTINGS = {"task": "a" * 64, "seed": 0}


def test_settings_are_kept_and_others_refused(tmp_path: Path) -> None:
    assert not claim(tmp_path, settings=SETTINGS)
    assert claim(tmp_path, settings=SETTINGS)
    with pytest.raises(WorkdirError, match="another seed"):
        claim(tmp_path, settings={**SETTINGS, "seed": 1})


def test_candidates_and_ranking_come_back(tmp_path: Path) -> None:
    assert read_choice(tmp_path) is None
    assert read_ranking(tmp_path) is None
    save_choice(tmp_path, CHOICE)
    save_ranking(tmp_path, ranking())
    assert read_choice(tmp_path) == CHOICE
    assert read_ranking(tmp_path) == ranking()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["search.json", "candidates.json", "ranking.json"])
def test_a_flipped_bit_is_said_and_made_again(tmp_path: Path, name: str, place: float) -> None:
    claim(tmp_path, settings=SETTINGS)
    save_choice(tmp_path, CHOICE)
    save_ranking(tmp_path, ranking())
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[int(place * len(damaged))] ^= 4
    (tmp_path / name).write_bytes(bytes(damaged))
    said: list[object] = []
    assert claim(tmp_path, settings=SETTINGS, sink=said.append)
    choice, kept = read_choice(tmp_path, sink=said.append), read_ranking(tmp_path, sink=said.append)
    assert [f"{tmp_path / name} was damaged" in each.text for each in said] == [True]
    assert (choice is None, kept is None) == (name == "candidates.json", name == "ranking.json")
    assert claim(tmp_path, settings=SETTINGS, sink=said.append)
    assert len(said) == 1
