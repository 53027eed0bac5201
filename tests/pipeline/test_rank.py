"""Measuring candidates under a deadline: who is looked at first, and what becomes of those who are not."""

import shutil
import time

import numpy as np
import pytest

import vlmsel_auto
from helpers.drawings import draw_task
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Notice, StageProgress
from vlmsel_auto.library.places import default_library
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline import rank as rank_stage
from vlmsel_auto.pipeline.rank import rank_task
from vlmsel_auto.tasks.task import load_task

NAMES = ("ConvNeXt-Mi-64.synth-m", "EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    root = tmp_path_factory.mktemp("task")
    return load_task(
        draw_task(root / "shapes"), views=tuple({one.view for one in resolve(NAMES)}), shots=4, workdir=root / "work"
    )


def rank(task, tmp_path, *, deadline):
    events = []
    ranking, _ = rank_task(
        task,
        resolve(NAMES),
        library=default_library(),
        device="cpu",
        store=Store(tmp_path / "store"),
        sink=events.append,
        deadline=deadline,
    )
    return ranking, [each.text for each in events if isinstance(each, StageProgress) and each.stage == "profiles"]


def test_a_model_folder_without_weights_is_told_and_the_others_are_ranked(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(resolve(NAMES[2])[0].path, broken)
    (broken / "open_clip_model.safetensors").unlink()
    events = []
    ranking = vlmsel_auto.rank(
        draw_task(tmp_path / "shapes"),
        candidates=[NAMES[2], f"local-dir:{broken}"],
        shots=4,
        cache_dir=tmp_path / "cache",
        library=default_library(),
        sink=events.append,
    )
    assert ranking.order == (NAMES[2],)
    assert "no weights" in ranking.failures[f"local-dir:{broken}"]
    assert any(isinstance(each, Notice) and "no weights" in each.text for each in events)


def test_with_a_deadline_the_candidates_that_the_library_likes_are_measured_first(task, tmp_path):
    _, looked = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    library = default_library()
    rows = [library.candidate_ids.index(name) for name in NAMES]
    truth = np.where(np.isfinite(library.tuned), library.tuned, library.zero_shot)[rows]
    liked = [NAMES[m] for m in np.argsort(-((truth - truth.mean(0)) / truth.std(0)).mean(1))]
    assert looked == 2 * liked  # embeddings, then conductance
    assert looked != list(NAMES)


def test_candidates_that_the_deadline_left_are_ranked_by_the_library_alone(task, tmp_path):
    ranking, _ = rank(task, tmp_path, deadline=time.monotonic() - 1)
    assert sorted(ranking.order) == sorted(NAMES)
    assert {line.basis for line in ranking.ranked} == {"library"}
    assert any("no time to look at 3 candidates" in note for note in ranking.notes)


def test_when_time_is_short_embeddings_are_all(task, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_stage, "_PROFILE_SHARE", 1e-9)
    ranking, looked = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    assert len(looked) == len(NAMES)  # conductance takes longer than embeddings, and even those took too long
    monkeypatch.setattr(rank_stage, "_PROFILE_TIMES", -1.0)
    ranking, looked = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    assert len(looked) == len(NAMES) + 1  # one shows how long it takes
    assert {line.basis for line in ranking.ranked} == {"library and labels"}
    assert any("no conductance profiles" in note for note in ranking.notes)
    store = Store(tmp_path / "store")
    seen = [find_measurement(one, task, store=store) for one in resolve(NAMES)]
    assert sorted(len(one.blocks) > 0 for one in seen) == [False, False, True]
    again, measured = rank(task, tmp_path, deadline=None)  # without a deadline what is missing is measured
    assert measured == list(NAMES)
    assert not any("no conductance profiles" in note for note in again.notes)
