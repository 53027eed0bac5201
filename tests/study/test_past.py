import json
from pathlib import Path

import pytest

from helpers.tuning_world import digits, spec
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.space import PastTrial
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
    with path.open("a") as stream:
        stream.write("{half a line\n" + json.dumps({"task": "c"}) + "\n")
    assert read_past(path) == (second, again)
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="could not be written"):
        remember_past([first], tmp_path / "file" / "trials.jsonl")


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
