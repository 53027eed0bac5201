import json
from pathlib import Path

import pytest

from helpers.tuning_world import digits, spec
from vlmsel_auto.cache import sealed
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Event, Notice
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.space import PastTrial
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.past import past_of_search, read_past, remember_past


def trial(rate: float, value: float, *, task: str = "t", family: str = "vit", name: str = "m0") -> PastTrial:
    point = {"learning_rate": rate}
    return PastTrial(task=task, candidate=name, family=family, method="finetune", point=point, value=value)


def test_the_file_of_past_trials(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    assert read_past(path) == ()
    first, second = trial(0.9, 0.8, task="a"), trial(0.1, 0.7, task="b")
    remember_past([first], path)
    remember_past([second], path)
    assert read_past(path) == (first, second)
    again = trial(0.2, 0.9, task="a")
    remember_past([again], path)
    assert read_past(path) == (second, again)
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="could not be written"):
        remember_past([first], tmp_path / "file" / "trials.jsonl")


def test_a_file_that_cannot_be_read_is_said_and_never_replaced(tmp_path: Path) -> None:
    heard: list[Event] = []
    assert read_past(tmp_path, sink=heard.append) == ()
    (told,) = heard
    assert isinstance(told, Notice)
    assert "past trials cannot be read and are not used" in told.text
    with pytest.raises(LibraryError, match="could not be written"):
        remember_past([trial(0.1, 0.7)], tmp_path)


def _flip(line: str, old: str) -> str:
    """A bit of the last sign of ``old`` flips, which leaves sound JSON."""
    place = line.index(old) + len(old) - 1
    return line[:place] + chr(ord(line[place]) ^ 1) + line[place + 1 :]


@pytest.mark.parametrize("old", ['"value": 0.8', '"family": "vit', '"candidate": "m0', '{"candidate', '"sha25', "}"])
def test_a_damaged_line_is_said_and_left_out_and_the_others_are_used(tmp_path: Path, old: str) -> None:
    path = tmp_path / "trials.jsonl"
    first, second = trial(0.9, 0.8, task="a"), trial(0.1, 0.7, task="b")
    remember_past([first, second], path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([_flip(lines[0], old), lines[1]]) + "\n")
    said: list[Event] = []
    assert read_past(path, sink=said.append) == (second,)
    (told,) = said
    assert isinstance(told, Notice)
    assert "1 of 2 lines of past trials are damaged" in told.text
    assert str(path) in told.text
    third = trial(0.3, 0.6, task="c")
    remember_past([third], path)
    assert read_past(path, sink=said.append) == (second, third)
    assert len(said) == 1


def test_lines_without_a_digest_and_those_of_another_version(tmp_path: Path) -> None:
    path, old = tmp_path / "trials.jsonl", trial(0.9, 0.8)
    lines = [encode(old), sealed({"task": "c"}), sealed({"task": "c", "of": "another version"})]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    said: list[Event] = []
    assert read_past(path, sink=said.append) == (old,)
    assert not said
    path.write_text(json.dumps({**lines[0], "value": "no number"}) + "\n{half a line\n")
    assert read_past(path, sink=said.append) == ()
    assert len(said) == 1


def test_a_search_leaves_its_complete_trials() -> None:
    def result(number: int, state: str, validation: float | None) -> TrialResult:
        return TrialResult(
            number=number, spec=spec(), state=TrialState(state), origin=TrialOrigin.PLANNED,
            validation=validation, test=None, curve=(),
            epochs_run=3, seconds=1.0,
        )  # fmt: skip

    trials = [result(0, "complete", 0.8), result(1, "pruned", 0.5), result(2, "failed", None)]
    found = past_of_search(task=digits(), candidates=mini_zoo(), trials=trials)
    assert [(each.value, each.method, each.family) for each in found] == [(0.8, "finetune", "efficientnet")]
    assert found[0].point["learning_rate"] == pytest.approx(0.5, abs=0.01)
