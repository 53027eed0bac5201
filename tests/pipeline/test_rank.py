"""Measuring candidates under a deadline: who is screened first, and what becomes of those who are not."""

import shutil
import time

import numpy as np
import pytest

import vlmsel_auto
from helpers.drawings import SHAPES, draw_task
from helpers.labelling import write_heap
from helpers.sessions import session_of, shapes_task
from vlmsel_auto.cache import Store
from vlmsel_auto.events import StageProgress
from vlmsel_auto.library.places import default_library, default_library_path
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline import profiles
from vlmsel_auto.pipeline.rank import rank_task

NAMES = ("ConvNeXt-Mi-64.synth-m", "EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return shapes_task(tmp_path_factory.mktemp("task"), resolve(NAMES))


def rank(task, tmp_path, *, deadline):
    events = []
    ranked = rank_task(session_of(task, NAMES, tmp_path / "store", sink=events.append, deadline=deadline))
    steps = [each for each in events if isinstance(each, StageProgress)]
    return ranked.ranking, *(
        [each.text for each in steps if each.stage == stage] for stage in ("screenings", "profiles")
    )


def test_a_heap_is_ranked_for_the_day_when_it_is_tuned(tmp_path):
    heap = write_heap(tmp_path / "heap", count=90, size=16)
    found = {
        truth: vlmsel_auto.rank(heap, classes=SHAPES, candidates=NAMES, truth=truth, library=default_library(),
                                cache_dir=tmp_path / "cache")
        for truth in (None, "zero_shot", "tuned")
    }  # fmt: skip
    assert found[None] == found["zero_shot"]
    for truth, learned in (("zero_shot", "zero-shot accuracy"), ("tuned", "accuracy after tuning")):
        assert any(note.endswith(f"source tasks ({learned})") for note in found[truth].notes)
        assert ("alignment" in found[truth].ranked[0].signals) == (truth == "tuned")


def test_a_ranking_by_few_labels_screenings_at_files_that_have_none(tmp_path):
    root = tmp_path / "task"
    shutil.move(draw_task(tmp_path / "shapes", train=4, test=0) / "train", root / "labelled")
    write_heap(root / "unlabelled", count=90, size=16)
    cache, library = str(tmp_path / "cache"), str(default_library_path())  # texts do as well as paths
    ranking = vlmsel_auto.rank(root, candidates=NAMES, cache_dir=cache, library=library)
    assert any("files without a label: 90; the ranking looks at 90 of them" in note for note in ranking.notes)
    assert {"alignment", "logme"} <= set(ranking.ranked[0].signals)


def test_everyone_is_screened_where_that_is_cheap_and_the_library_says_whom_first(task, tmp_path):
    _, screening, profiled = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    library = default_library()
    rows = [library.candidate_ids.index(name) for name in NAMES]
    truth = np.where(np.isfinite(library.tuned), library.tuned, library.zero_shot)[rows]
    assert screening[0] == NAMES[int(np.nanmean(truth - truth.mean(axis=0), axis=1).argmax())]
    assert sorted(screening) == sorted(profiled) == sorted(NAMES)


def test_candidates_that_the_deadline_left_are_ranked_by_the_library_alone(task, tmp_path):
    ranking, screening, _ = rank(task, tmp_path, deadline=time.monotonic() - 1)
    assert screening == []
    assert sorted(ranking.order) == sorted(NAMES) == sorted(ranking.not_looked)
    assert {line.basis for line in ranking.ranked} == {"library"}
    assert all("no time was left" in each.reason for each in ranking.not_looked.values())
    assert any("0 of 3 candidates were screened" in note for note in ranking.notes)


def test_when_time_is_short_embeddings_are_all(task, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "_PROFILE_SHARE", 1e-9)
    ranking, screening, profiled = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    assert len(screening) == len(NAMES)
    assert profiled == []  # conductance takes longer than embeddings, and even those took too long
    monkeypatch.setattr(profiles, "_PROFILE_TIMES", -1.0)
    ranking, screening, profiled = rank(task, tmp_path, deadline=time.monotonic() + 3600)
    assert screening == []  # they are kept
    assert len(profiled) == 1  # which shows how long it takes
    assert {line.basis for line in ranking.ranked} == {"library and labels"}
    assert any("no conductance profiles" in note for note in ranking.notes)
    store = Store(tmp_path / "store")
    seen = [find_measurement(one, task, store=store) for one in resolve(NAMES)]
    assert sorted(len(one.blocks) > 0 for one in seen) == [False, False, True]
    again, _, profiled = rank(task, tmp_path, deadline=None)  # without a deadline what is missing is measured
    assert len(profiled) == len(NAMES) - 1
    assert not any("no conductance profiles" in note for note in again.notes)
