"""A search's study in a reader's terms."""

from pathlib import Path

import pytest

from helpers.dashboard_world import begun
from helpers.opened_study import opened
from helpers.tuning_world import spec
from vlmsel_auto.errors import InputError
from vlmsel_auto.study.study_view import open_view


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return begun(tmp_path)


def test_trials_are_shown_in_a_readers_terms(workdir: Path) -> None:
    tower, head, paused, running = open_view(workdir).get_all_trials(0)
    assert tower.params == {"candidate": "b", "method": "fine-tuning"}
    assert tower.user_attrs == {
        "predicted rank": 2, "P(best)": 0.25, "forecast": 0.7123, "validation": 0.95, "cost": 12.3, "why": "told",
        "fold": 3, **spec().settings, "epochs": spec().epochs,
    }  # fmt: skip
    assert tower.intermediate_values == {1: 0.6, 4: 0.95}
    assert head.params == {"candidate": "a", "method": "linear probe"}
    assert "fold" not in head.user_attrs  # it is scored on all images
    assert paused.state.name == "PRUNED"
    assert paused.intermediate_values == {1: 0.6}
    assert running.state.name == "RUNNING"
    assert running.user_attrs["forecast"] == 0.7123


def test_the_best_trial_is_the_one_that_is_expected_to_be(workdir: Path) -> None:
    view = open_view(workdir)
    assert view.get_best_trial(0).number == 1
    assert view.get_best_trial(0).value == 0.88
    assert view.get_trial(0).value == 0.85  # though its validation is the highest


def test_a_search_that_goes_on_is_followed(workdir: Path) -> None:
    view = open_view(workdir)
    assert len(view.get_all_trials(0)) == 4
    with opened(workdir) as study:
        study.expect({0: 0.9, 1: 0.88})
    assert view.get_best_trial(0).number == 0


def test_nothing_can_be_written(workdir: Path) -> None:
    view = open_view(workdir)
    with pytest.raises(PermissionError, match="can only be read here"):
        view.set_trial_user_attr(0, "why", "changed")
    with pytest.raises(PermissionError, match="can only be read here"):
        view.delete_study(0)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a search that has begun its trials"):
        open_view(tmp_path / "elsewhere")
