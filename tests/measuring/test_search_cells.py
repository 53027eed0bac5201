"""A finished search becomes a source task, and the next search on a related folder uses it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import vlmsel_auto
from helpers.drawings import draw_task
from helpers.labelling import write_heap
from helpers.short_trials import short_trials  # noqa: F401 - a fixture
from vlmsel_auto.cache import Store
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library, remember, user_library
from vlmsel_auto.measuring.measure import embed_target, measure_target
from vlmsel_auto.measuring.search_cells import RUN, RUN_SOURCES, cells_of_search
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline.search_report import learn_from
from vlmsel_auto.records import Budget, TrialOrigin, TrialResult, TrialSpec, TrialState
from vlmsel_auto.reporting.report import load as load_report
from vlmsel_auto.tasks.task import TaskOptions, load_task

NAMES = ("RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A task and what two candidates show on it."""
    root = tmp_path_factory.mktemp("learning")
    chosen = resolve(NAMES)
    task = load_task(
        draw_task(root / "shapes"),
        TaskOptions(shots=4),
        views=tuple({one.view for one in chosen}),
        workdir=root / "work",
    )
    store = Store(root / "store")
    return task, chosen, [measure_target(zoo.load(one), task, store=store) for one in chosen]


def trial(number, method, validation, test):
    return TrialResult(
        number=number,
        spec=TrialSpec(
            candidate=NAMES[0], method=method, settings={"learning_rate": 1e-3, "weight_decay": 0.0}, epochs=2, seed=0
        ),
        state=TrialState.COMPLETE,
        origin=TrialOrigin.PLANNED,
        validation=validation,
        test=test,
        curve=(validation,),
        epochs_run=2,
        seconds=1.0,
    )


def trials():
    return [trial(0, "probe", 0.7, 0.65), trial(1, "finetune", 0.8, 0.9), trial(2, "finetune", 0.9, 0.75)]


def test_cells_hold_the_test_figures_of_the_trials_that_validation_chose(measured):
    task, chosen, signals = measured
    first, second = cells_of_search(task=task, candidates=chosen, measured=signals, trials=trials(), seed=0)
    assert (first.probed, first.tuned) == (0.65, {RUN: 0.75})
    assert np.isnan(second.probed)
    assert second.tuned == {}
    assert first.activity.tolist() == signals[0].activity.tolist()
    assert {shots for _, shots, _ in first.evidence} == {1, 2, 4}
    embedded = signals[0].all_features @ signals[0].text_features.T
    screened = np.concatenate([task.support, task.others])
    assert len(task.others)
    right = embedded.argmax(1) == task.labels[screened]
    assert first.zero_shot == pytest.approx(right.mean())
    assert first.task.zero_shot_images == len(screened)  # not those of the test split
    assert first.predicted.tolist() == embedded.argmax(1).tolist()
    assert first.predicted_on == second.predicted_on == first.neighbours_on


def test_images_of_no_split_are_in_a_cell_without_a_truth(measured, tmp_path):
    task, chosen, signals = measured
    heap = write_heap(tmp_path / "heap", count=90, size=16)
    partly = replace(task, beside=load_task(heap, TaskOptions(classes=task.classes), workdir=tmp_path / "work"))
    seen = [embed_target(zoo.load(one), partly, store=Store(tmp_path / "store")) for one in chosen]
    first, second = cells_of_search(task=partly, candidates=chosen, measured=seen, trials=trials(), seed=0)
    (alone, _) = cells_of_search(task=task, candidates=chosen, measured=signals, trials=trials(), seed=0)
    assert first.zero_shot == pytest.approx(alone.zero_shot)
    assert first.evidence == pytest.approx(alone.evidence)
    assert len(first.predicted) == len(task.train) + 90
    assert first.neighbours.shape == second.neighbours.shape == (len(task.train) + 90, 10)
    assert first.neighbours_on != alone.neighbours_on
    other = write_heap(tmp_path / "other", count=90, size=17)
    elsewhere = replace(task, beside=load_task(other, TaskOptions(classes=task.classes), workdir=tmp_path / "work"))
    seen = [embed_target(zoo.load(one), elsewhere, store=Store(tmp_path / "store")) for one in chosen]
    cells = cells_of_search(task=elsewhere, candidates=chosen, measured=seen, trials=trials(), seed=0)
    assert cells[0].predicted_on == cells[1].predicted_on != first.predicted_on  # other images are not compared


def test_a_remembered_search_is_a_source_task_once(measured, tmp_path, monkeypatch):
    task, chosen, signals = measured
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / "mine.safetensors"))
    for _ in range(2):
        cells = cells_of_search(task=task, candidates=chosen, measured=signals, trials=trials(), seed=0)
        path, name = remember(cells, run_sources=RUN_SOURCES)
    library = load(path)
    assert (library.task_names, library.candidate_ids) == ((name,), NAMES)
    assert library.tasks[0].digest == task.digest
    assert np.nanmax(library.tuned) == 0.75


def test_a_search_that_only_embedded_is_remembered_without_profiles(measured, tmp_path, monkeypatch):
    task, chosen, signals = measured
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / "mine.safetensors"))
    embedded = [embed_target(zoo.load(one), task, store=Store(tmp_path / "store")) for one in chosen]
    measured = [signals[0], embedded[1]]
    remember(cells_of_search(task=task, candidates=chosen, measured=measured, trials=trials(), seed=0))
    library = user_library()  # with the shipped one
    row = [library.candidate_ids.index(name) for name in NAMES]
    column = next(place for place, one in enumerate(library.tasks) if one.digest == task.digest)
    assert library.tuned[row[0], column].max() == 0.75
    assert np.isfinite(library.activity[row[0]][column]).all()
    assert np.isnan(library.activity[row[1]][column]).all()
    assert np.isfinite(library.activity[row[1]][0]).all()  # the shipped profiles are still there
    assert np.isfinite(library.zero_shot[row, column]).all()


def test_a_task_that_the_shipped_library_has_is_not_remembered_worse(measured, tmp_path, monkeypatch):
    task, chosen, signals = measured
    path = tmp_path / "mine.safetensors"
    monkeypatch.setenv("VLMSEL_LIBRARY", str(path))
    shipped = default_library().tasks[0]
    told = learn_from(replace(task, digest=shipped.digest), chosen, signals, trials(), seed=0, sink=print)
    assert told.endswith(f"the shipped library has this task as {shipped.name!r}, better measured")
    assert not path.exists()
    assert "added to the library" in learn_from(task, chosen, signals, trials(), seed=0, sink=print)
    assert load(path).task_names == ("shapes",)


@pytest.mark.slow
def test_a_second_search_on_a_related_folder_uses_the_first(tmp_path, minizoo, monkeypatch):
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / "library" / "mine.safetensors"))
    own = []
    for number, name in enumerate(
        ("RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.synth-m", "RN-Mi-64.all-m")
    ):
        shutil.copytree(minizoo / name, tmp_path / f"own{number}")
        own.append(f"local-dir:{tmp_path / f'own{number}'}")
    second = draw_task(tmp_path / "related", seed=7)
    before = vlmsel_auto.rank(second, candidates=own, cache_dir=tmp_path / "cache")
    assert {line.basis for line in before.ranked} == {"labels"}
    result = vlmsel_auto.search(
        draw_task(tmp_path / "shapes"),
        candidates=own,
        method="probe",
        budget=Budget(trials=4),
        workdir=tmp_path / "w",
    )
    assert "shapes" in user_library().task_names
    assert any("added to the library" in note for note in load_report(result.report_dir).notes)
    after = vlmsel_auto.rank(second, candidates=own, cache_dir=tmp_path / "cache")
    assert {line.basis for line in after.ranked} == {"library and labels"}
    said = "1 source task of your own earlier searches: shapes"
    assert said in after.notes
    assert said not in before.notes
