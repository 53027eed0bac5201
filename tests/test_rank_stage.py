"""Measuring candidates under a deadline: who is looked at first, and what becomes of those who are not."""

import time

import numpy as np
import pytest
from drawings import draw_task

from vlmsel_auto.cache import Store
from vlmsel_auto.events import StageProgress
from vlmsel_auto.library.library import default_library
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.rank_stage import rank_task
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
    ranking = rank_task(
        task,
        resolve(NAMES),
        library=default_library(),
        device="cpu",
        store=Store(tmp_path / "store"),
        sink=events.append,
        deadline=deadline,
    )
    return ranking, [each.text for each in events if isinstance(each, StageProgress) and each.stage == "profiles"]


def test_with_a_deadline_the_candidates_that_the_library_likes_are_measured_first(task, tmp_path):
    _, looked = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    library = default_library()
    rows = [library.candidate_ids.index(name) for name in NAMES]
    truth = np.where(np.isfinite(library.tuned), library.tuned, library.zero_shot)[rows]
    liked = [NAMES[m] for m in np.argsort(-((truth - truth.mean(0)) / truth.std(0)).mean(1))]
    assert looked == liked
    assert looked != list(NAMES)


def test_candidates_that_the_deadline_left_are_ranked_by_the_library_alone(task, tmp_path):
    ranking, _ = rank(task, tmp_path, deadline=time.monotonic() - 1)
    assert sorted(ranking.order) == sorted(NAMES)
    assert {line.basis for line in ranking.ranked} == {"library"}
    assert any("no time to look at 3 candidates" in note for note in ranking.notes)
