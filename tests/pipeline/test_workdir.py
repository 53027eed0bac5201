"""What a search keeps of itself: damage is said, and made again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from helpers.study_world import ranking
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.pipeline.workdir import EarlierChoice, begin_in, read_choice, read_ranking, save_ranking

CHOICE = EarlierChoice(candidates=("a", "b"), left_out={"c": "too large"}, images=141)
SETTINGS = {"task": "a" * 64, "seed": 0}


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., None]:
    return partial(begin_in, tmp_path, settings=SETTINGS, choice=CHOICE)


def test_the_same_search_goes_on_and_another_is_refused(tmp_path: Path, begin: Callable[..., None]) -> None:
    said: list[object] = []
    begin(sink=said.append)
    assert said == []
    (scrap := tmp_path / "trials" / ".part-1").parent.mkdir()
    scrap.touch()
    begin(sink=said.append)
    assert [each.text for each in said] == [f"going on with the search in {tmp_path}"]
    assert not scrap.exists()
    with pytest.raises(WorkdirError, match=r"other settings \(seed\): .* or another workdir, but got seed 1"):
        begin(settings={**SETTINGS, "seed": 1}, choice=EarlierChoice(candidates=("d",), left_out={}))
    with pytest.raises(
        WorkdirError,
        match=r"\(task: images, labels, groups, split or task.toml\): give .* with the same folder to resume",
    ):
        begin(settings={**SETTINGS, "task": "0cb7"})
    assert read_choice(tmp_path) == CHOICE


def test_candidates_and_ranking_come_back(tmp_path: Path, begin: Callable[..., None]) -> None:
    assert read_choice(tmp_path) is None
    assert read_ranking(tmp_path) is None
    begin()
    save_ranking(tmp_path, ranking())
    assert read_choice(tmp_path) == CHOICE
    assert read_ranking(tmp_path) == ranking()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["search.json", "candidates.json", "ranking.json"])
def test_a_flipped_bit_is_said_and_made_again(
    tmp_path: Path, begin: Callable[..., None], name: str, place: float
) -> None:
    begin()
    save_ranking(tmp_path, ranking())
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[int(place * len(damaged))] ^= 4
    (tmp_path / name).write_bytes(bytes(damaged))
    said: list[object] = []
    choice, kept = read_choice(tmp_path, sink=said.append), read_ranking(tmp_path, sink=said.append)
    begin(sink=said.append)
    going_on = f"going on with the search in {tmp_path}"
    damage = [each.text for each in said if each.text != going_on]
    assert [f"{tmp_path / name} was damaged" in each for each in damage] == [True]
    assert (choice is None, kept is None) == (name == "candidates.json", name == "ranking.json")
    assert read_choice(tmp_path) == CHOICE
    said.clear()
    begin(sink=said.append)
    assert [each.text for each in said] == [going_on]
