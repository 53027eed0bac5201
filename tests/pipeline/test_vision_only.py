"""Visual towers without texts in rankings and searches: real models, drawn shapes."""

import numpy as np
import onnxruntime
import pytest

import vlmsel_auto
from helpers.drawings import SHAPES, draw_task
from helpers.short_trials import short_trials  # noqa: F401 - every search of this file
from helpers.timm_towers import write_tower
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline.rank import NEEDS_LABELS
from vlmsel_auto.records import Basis, Budget, TrialState

SPEAKING = "RN-Mi-64.all-m"


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "mine"
    write_tower(folder)
    return f"timm:{folder}"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks") / "shapes"
    draw_task(root)
    return root


@pytest.fixture(scope="module")
def searched(tower, shapes, tmp_path_factory):
    return vlmsel_auto.search(
        shapes, candidates=[tower], shots=4, budget=Budget(trials=3), learn=True, workdir=tmp_path_factory.mktemp("out")
    )


def test_labels_rank_it_beside_others(tower, shapes):
    found = vlmsel_auto.rank(shapes, candidates=[tower, SPEAKING], shots=4)
    lines = {line.candidate: line for line in found.ranked}
    assert set(lines) == {tower, SPEAKING}
    assert lines[tower].basis is Basis.LABELS
    assert {"logme", "ridge_likelihood", "ridge_text_likelihood"} <= set(lines[tower].signals)
    assert not {"leep", "consensus", "margin_cosine"} & set(lines[tower].signals)


@pytest.mark.parametrize("asked", [{"unlabelled": True, "classes": SHAPES}, {"truth": "zero_shot"}])
def test_it_is_left_out_where_only_class_names_tell(tower, shapes, asked):
    told = []
    found = vlmsel_auto.rank(shapes, candidates=[tower, SPEAKING], library=default_library(), sink=told.append, **asked)
    assert [line.candidate for line in found.ranked] == [SPEAKING]
    assert found.failures == {tower: NEEDS_LABELS}
    assert [one.text for one in told if isinstance(one, Notice) and NEEDS_LABELS in one.text] == [
        f"left out: {tower}: {NEEDS_LABELS}"
    ]
    with pytest.raises(CandidateError, match="label images, or name other candidates too"):
        vlmsel_auto.rank(shapes, candidates=tower, **asked)


def test_it_gets_a_head_and_is_tuned_whole_and_predicts(searched, tower, shapes, tmp_path):
    done = [one for one in searched.trials if one.state is TrialState.COMPLETE]
    assert {one.spec.method for one in done} == {"probe", "finetune"}
    best = searched.best
    assert best.candidate == tower
    (one,) = resolve(best.model_dir)
    assert not one.has_text
    picture = next(iter(shapes.rglob("*.png")))
    found = vlmsel_auto.predict(best.model_dir, [picture])
    assert set(found.classes) == set(SHAPES)
    vlmsel_auto.export_onnx(best.model_dir, tmp_path / "m.onnx")  # checks itself against the model
    assert onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).get_outputs()
    assert np.isfinite(best.test)


def test_the_same_command_goes_on(searched, tower, shapes):
    again = vlmsel_auto.search(shapes, candidates=[tower], shots=4, budget=Budget(trials=3), workdir=searched.workdir)
    assert [one.spec for one in again.trials] == [one.spec for one in searched.trials]
    assert again.best.test == searched.best.test
