import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.planning_world import CANDIDATES, SCORES, candidate, ranking
from helpers.tuning_world import digits, spec
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.history import Left
from vlmsel_auto.planning.next_trial import next_step
from vlmsel_auto.planning.plan import make_plan
from vlmsel_auto.planning.space import PastTrial, Point, learn_defaults
from vlmsel_auto.records import TrialResult
from vlmsel_auto.study.past import past_of_search, read_past, remember_past

VIT, CNN = candidate(0, "vit"), candidate(1, "cnn")


def trial(rate: float, value: float, *, task: str = "t", family: str = "vit", name: str = "m0") -> PastTrial:
    point = Point(learning_rate=rate)
    return PastTrial(task=task, candidate=name, family=family, method="finetune", point=point, value=value)


def learned(past: list[PastTrial], **other: str) -> dict[str, Point]:
    found = learn_defaults(past, candidates=[VIT, CNN], methods=("finetune",), **other)
    return {"vit": found["m0", "finetune"], "cnn": found["m1", "finetune"]}


def test_without_a_past_the_built_in_defaults_stay() -> None:
    assert learned([]) == {"vit": Point(), "cnn": Point()}
    assert learned([trial(0.9, 0.8)])["vit"] == Point()  # one trial says nothing of others
    assert learned([trial(0.5, value) for value in (0.6, 0.8, 0.7)])["vit"] == Point()


def test_a_family_learns_most_from_its_own() -> None:
    past = [each for task in "abcdefgh" for each in (trial(0.9, 0.9, task=task), trial(0.5, 0.7, task=task))]
    found = learned(past)
    assert 0.5 < found["cnn"].learning_rate < found["vit"].learning_rate < 0.9
    assert found["vit"].weight_decay == pytest.approx(0.5)
    more = learned([*past, *(trial(0.1, 0.9, task=task, family="cnn", name="m1") for task in "abcd" for _ in (0, 1))])
    assert more["cnn"].learning_rate < found["cnn"].learning_rate


def test_the_target_itself_is_left_out() -> None:
    past = [trial(0.9, 0.9, task="x"), trial(0.5, 0.7, task="x")]
    assert learned(past, without="x") == learned([])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), st.randoms())
def test_order_does_not_matter_and_points_stay_in_the_cube(trials: list[tuple[float, float]], random: object) -> None:
    past = [trial(rate, value, task=str(number % 3)) for number, (rate, value) in enumerate(trials)]
    found = learned(past)
    assert all(0 <= point.learning_rate <= 1 for point in found.values())
    random.shuffle(past)
    assert learned(past)["vit"].learning_rate == pytest.approx(found["vit"].learning_rate)


def test_first_trials_begin_at_the_learned_defaults() -> None:
    start = Point(learning_rate=0.8)
    made = make_plan(ranking(SCORES), candidates=CANDIDATES, top_k=3, audits=0, defaults={("m0", "probe"): start})
    step = next_step(made, [], left=Left(trials=9))
    assert step is not None
    assert (step.candidate, step.method, step.point) == ("m0", "probe", start)
    assert made.first("m1", "probe") == Point()


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
            number=number, spec=spec(), state=state, origin="planned", validation=validation, test=None, curve=(),
            epochs_run=3, seconds=1.0,
        )  # fmt: skip

    trials = [result(0, "complete", 0.8), result(1, "pruned", 0.5), result(2, "failed", None)]
    found = past_of_search(task=digits(), candidates=mini_zoo(), trials=trials)
    assert [(each.value, each.method, each.family) for each in found] == [(0.8, "finetune", "efficientnet")]
    assert found[0].point.learning_rate == pytest.approx(0.5, abs=0.01)
