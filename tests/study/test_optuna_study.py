"""The study by itself: what is queued comes back, what is frozen stays, a damaged journal is mended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.tuning_world import digits, spec
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.optuna_study import JOURNAL, EntryState, OptunaStudy, Prediction, open_study
from vlmsel_auto.tuning.methods import FINETUNE, METHODS, PROBE, ZERO_SHOT

NAMES = ("a", "b", "c")


@contextmanager
def opened(workdir: Path, **changes: object) -> Iterator[OptunaStudy]:
    arguments = {"task": digits(), "names": NAMES, "methods": METHODS, "workdir": workdir, "storage": None, "seed": 0}
    with open_study(**{**arguments, "done": (), **changes}) as study:
        yield study


def planned(**changes: object) -> NextTrial:
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    made = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.AUDIT, why="audit: told")
    return replace(made, **changes)


def result(number: int, **changes: object) -> TrialResult:
    made = TrialResult(number=number, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.PLANNED,
                       validation=0.8, test=0.7, curve=(0.8,), epochs_run=1, seconds=1.0)  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize(
    "wanted",
    [
        planned(),
        planned(continues=4),
        planned(method=PROBE.name, point={}),
        planned(fold=3),
        planned(method=ZERO_SHOT.name, point={}, origin=TrialOrigin.FLOOR),
    ],
    ids=["fine-tuning", "continued", "probe", "fold", "floor"],
)
def test_what_is_queued_comes_back(tmp_path: Path, wanted: NextTrial) -> None:
    with opened(tmp_path) as study:
        assert not study.waiting()
        study.queue(wanted, attempt=2)
        assert study.waiting()
        assert study.entries()[0].planned == wanted
        taken = study.take()
        assert (taken.number, taken.attempt, taken.planned) == (0, 2, wanted)
        assert not study.waiting()


def test_what_was_believed_and_what_came_out_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned(), prediction=Prediction(rank=2, p_best=0.25, forecast=0.7, sd=0.1))
        study.take()
        study.close(result(0, cost=3.0))
        study.expect({0: 0.75})
    with opened(tmp_path) as study:
        attrs = study.study.trials[0].user_attrs
        assert attrs["prediction"] == {"rank": 2, "p_best": 0.25, "forecast": 0.7, "sd": 0.1}
        assert attrs["outcome"] == {"validation": 0.8, "cost": 3.0, **spec().settings, "epochs": spec().epochs}
        assert study.study.user_attrs["expected"] == {"0": 0.75}


def test_what_a_point_leaves_open_is_sampled(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned(point=None))
        assert study.entries()[0].planned == planned(point=None)
        taken = study.take()
        assert set(taken.point) == set(FINETUNE.settings)
        assert all(0 <= value <= 1 for value in taken.point.values())


def test_trials_are_closed_by_their_state(tmp_path: Path) -> None:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED]
    with opened(tmp_path) as study:
        for number, state in enumerate(states):
            study.queue(planned())
            assert study.take().number == number
            study.report(number, rung=1, value=0.5)
            study.close(result(number, state=state, validation=None if state is TrialState.FAILED else 0.8))
        study.queue(planned())
        study.take()
        study.fail(3)
    with opened(tmp_path) as study:
        assert [each.state.name for each in study.study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
        assert {each.state for each in study.entries()} == {EntryState.FINISHED}
        assert study.study.best_value == 0.8


def test_a_journal_is_mended_after_a_kill(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned())
        study.take()
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "half')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(journal)  # of a process that died while it wrote
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [EntryState.ABANDONED]
        study.queue(planned())
    with opened(tmp_path) as study:
        assert [each.state for each in study.entries()] == [EntryState.ABANDONED, EntryState.WAITING]


def test_a_lost_journal_has_a_place_for_every_result(tmp_path: Path) -> None:
    with opened(tmp_path, done=(result(0), result(2))) as study:
        assert [each.state for each in study.entries()] == [EntryState.ABANDONED] * 3


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
