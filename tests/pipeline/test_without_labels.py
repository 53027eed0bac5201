"""Rankings and searches of images without labels: real models, drawn shapes, nothing known of any image."""

import json
import subprocess
import sys

import numpy as np
import pytest

import vlmsel_auto
from helpers.drawings import SHAPES
from helpers.labelling import write_heap
from helpers.rankings import ranking_of
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Notice, RankingReady
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.places import default_library
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.exporting import read_classifier
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.pipeline.without_labels import by_worth, shares_of_leaders, zero_shot_classifier
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.reporting import panel
from vlmsel_auto.reporting.report import UNCHECKED, UNKNOWN
from vlmsel_auto.reporting.report import load as load_report
from vlmsel_auto.reporting.sentences import expected_text
from vlmsel_auto.tasks.task import TaskOptions, load_task

NAMES = ("RN-Mi-64.all-m", "ViT-Mi-8-64.all-s", "ConvNeXt-Mi-64.synth-m", "EffNet-Mi-64.all-m")
KNOWN = {"candidates": NAMES, "classes": SHAPES, "library": default_library()}
TWO = {**KNOWN, "candidates": NAMES[:2]}


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    root = write_heap(tmp_path_factory.mktemp("tasks") / "heap", count=45)
    (root / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def found(heap, tmp_path_factory):
    """One search, shared by the tests that only look at it."""
    events = []
    workdir = tmp_path_factory.mktemp("work") / "w"
    return vlmsel_auto.search(heap, **KNOWN, seed=3, workdir=workdir, sink=events.append), events


@pytest.fixture(scope="module")
def measured(found):
    """A cache that has all candidates on the heap: only what is made of that is another in each test."""
    return found[0].workdir


def test_a_search_without_labels_ends_with_the_model_that_ranks_first(found):
    result, _ = found
    assert result.best.candidate == result.ranking.order[0]
    assert (result.best.validation, result.best.test, result.best.trial) == (None, None, None)
    assert result.trials == ()
    assert result.stopped_by == "no labels"
    assert read_classifier(result.best.model_dir).classes == SHAPES


def test_the_report_says_that_no_label_checked_it(found):
    result, events = found
    report = load_report(result.report_dir)
    assert list(report.stage_seconds) == ["start", "images and ranking", "export"]
    assert sum(report.stage_seconds.values()) == pytest.approx(report.seconds)
    assert UNCHECKED in report.notes
    assert not any("added to the library" in note for note in report.notes)  # nothing was checked
    assert sum(isinstance(event, RankingReady) for event in events) == 1
    assert any(isinstance(event, Notice) and event.text == UNCHECKED for event in events)
    assert (report.task.unlabelled, report.task.train) == (45, 0)
    assert [bad.path for bad in report.bad_files] == ["broken.png"]
    page = (result.report_dir / "report.html").read_text()
    assert UNCHECKED in page
    assert "45 images without labels" in page
    assert "validation accuracy" not in page
    for tuning in ('href="#trials"', 'id="prediction"', "candidates tuned", "before any trial", "nothing to compare"):
        assert tuning not in page
    assert f"<dt>candidates ranked</dt><dd>{len(NAMES)} of {len(NAMES)}</dd>" in page
    assert 'aria-label="Time by stage"' in page
    assert UNCHECKED in (result.best.model_dir / "README.md").read_text()
    lines = [text.plain for _, text in panel._best_facts(report)]
    assert lines[0] == UNKNOWN  # three classes, three candidates: nobody can tell
    assert "no label checked it" in lines[1]
    expected = report.best.expected
    assert 0 <= expected.interval.low <= expected.value <= expected.interval.high <= 1
    assert lines[2] == expected_text(expected)
    assert all(expected_text(expected) in text for text in (page, (result.best.model_dir / "README.md").read_text()))
    assert "--classes circle,square,triangle" in report.command
    assert report.seed == 3


def test_the_models_name_drawn_shapes(found, heap):
    result, _ = found
    files = sorted(heap.glob("0*.png"))
    truth = [SHAPES[number % 3] for number in range(45)]
    for folder in (result.best.model_dir, result.ensemble.model_dir):
        said = vlmsel_auto.predict(folder, files).labels
        assert np.mean([one == other for one, other in zip(said, truth, strict=True)]) > 0.6


def test_the_ensemble_pools_the_leaders_by_their_chances(found):
    result, _ = found
    mean = result.ensemble
    assert mean.members == result.ranking.order
    assert (mean.validation, mean.validation_images, mean.trials) == (None, 0, ())
    chances = {line.candidate: line.p_best + 0.02 for line in result.ranking.ranked}
    expected = np.array([chances[name] for name in mean.members])
    np.testing.assert_allclose(mean.weights, expected / expected.sum())


def test_the_same_search_again_gives_the_same(found, heap):
    result, _ = found
    again = vlmsel_auto.search(heap, **KNOWN, seed=3, workdir=result.workdir)
    assert (again.best, again.ensemble, again.ranking) == (result.best, result.ensemble, result.ranking)


def test_no_image_counts_as_one_of_the_first_class(heap, measured):
    """Signals of labels have no part in the ranking, and no screening has an accuracy."""
    ranking = vlmsel_auto.rank(heap, **KNOWN, cache_dir=measured, images=20)
    assert all(line.evidence is None and line.basis == "library" for line in ranking.ranked)
    assert not {"knn", "logme", "leep", "true_class_zscore", "ridge_likelihood"} & set(ranking.ranked[0].signals)
    assert {"consensus", "top2_margin_cosine"} <= set(ranking.ranked[0].signals)
    assert "no labels: 20 of 46 files were screened, drawn by chance (--images)" in ranking.notes
    assert any("(zero-shot accuracy)" in note for note in ranking.notes)


def test_a_ranking_of_what_is_kept_imports_nothing_that_makes_it(heap, measured, tmp_path):
    """Seconds each, of which a heap that did not change needs none."""
    options = {"candidates": NAMES[:2], "classes": SHAPES, "cache_dir": measured}
    first = vlmsel_auto.rank(heap, library=default_library(), **options)
    script = (
        "import sys; from pathlib import PosixPath, WindowsPath; import vlmsel_auto; "
        "from vlmsel_auto.library.places import default_library; "
        f"heap, options = {str(heap)!r}, {options!r} | {{'library': default_library()}}; "
        "again = vlmsel_auto.rank(heap, **options); "
        f"vlmsel_auto.label(heap, workdir={str(tmp_path / 'w')!r}, **options); "
        "print(again.order, sorted({'open_clip', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == f"{first.order} []\n"


def test_a_search_uses_what_a_ranking_measured_and_goes_on_with_its_sample(heap, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_CACHE", str(measured))  # by all images
    first = vlmsel_auto.search(heap, **TWO, images=40, workdir=tmp_path / "w")
    assert not (tmp_path / "w" / "targets").exists()
    again = vlmsel_auto.search(heap, **TWO, workdir=tmp_path / "w")
    assert again.ranking == first.ranking


def test_candidates_that_no_library_knows_are_ranked_by_their_images(heap, measured):
    ranking = vlmsel_auto.rank(heap, **{**KNOWN, "library": assemble([])}, cache_dir=measured)
    assert {line.basis for line in ranking.ranked} == {"unlabelled images"}
    assert len({line.score for line in ranking.ranked}) == len(NAMES)


def measurement(name, cosines):
    """A candidate with these cosines (n, K): images in the space of the classes."""
    return Measurement(candidate=name, features=cosines, text_features=np.eye(cosines.shape[1]))


def anyone(names):
    return len(names) > 0


def test_copies_do_not_fill_the_pool():
    rng = np.random.default_rng(0)
    first, second, third = rng.normal(size=(3, 50, 4))
    seen = [
        measurement("a", first),
        measurement("a again", 3 * first),
        measurement("b", second),
        measurement("c", third),
    ]
    ranking = ranking_of({"a": 0.5, "a again": 0.3, "b": 0.1, "unseen": 0.06, "c": 0.04}, chances=True)
    shares = shares_of_leaders(ranking, seen, size=3, fits=anyone)
    assert [share.candidate for share in shares] == ["a", "b", "c"]
    assert sum(share.weight for share in shares) == pytest.approx(1.0)
    assert [share.candidate for share in shares_of_leaders(ranking, seen, size=2, fits=anyone)] == ["a", "b"]


def test_an_objective_reorders_by_what_it_leaves():
    ranking = ranking_of({"a": 0.5, "b": 0.3, "c": 0.2}, chances=True)  # scores, too
    assert by_worth(ranking, {}) is ranking
    assert by_worth(ranking, {"a": 0.0, "b": 0.0, "c": 0.0}).order == ("a", "b", "c")
    assert by_worth(ranking, {"a": 0.03, "b": 0.01}).order == ("c", "b", "a")  # .06 of accuracy are a unit of the score


def test_a_pool_keeps_to_the_limits():
    rng = np.random.default_rng(0)
    seen = [measurement(name, rng.normal(size=(50, 4))) for name in "abc"]
    ranking = ranking_of({"a": 0.5, "b": 0.3, "c": 0.2}, chances=True)
    shares = shares_of_leaders(ranking, seen, size=3, fits=lambda names: "b" not in names)
    assert [share.candidate for share in shares] == ["a", "c"]


def test_an_ensemble_of_one_is_none(heap, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_CACHE", str(measured))
    alone = vlmsel_auto.search(heap, **TWO, ensemble=1, workdir=tmp_path / "one")
    assert alone.ensemble is None
    params = max(one.params for one in resolve(NAMES[:2]))
    small = vlmsel_auto.search(heap, **TWO, limits=Limits(max_params=params), workdir=tmp_path / "small")
    assert small.ensemble is None
    assert small.best.model_dir.is_dir()


def test_without_time_for_any_screening_there_is_a_model_all_the_same(heap, tmp_path):
    hurried = vlmsel_auto.search(heap, **TWO, workdir=tmp_path / "w", budget=1e-3)
    assert set(hurried.ranking.not_looked) == set(NAMES[:2])
    assert hurried.best.candidate == hurried.ranking.order[0]
    assert read_classifier(hurried.best.model_dir).classes == SHAPES
    assert hurried.ensemble is None


def test_a_candidate_that_was_not_embedded_has_no_head(heap, tmp_path):
    task = load_task(heap, TaskOptions(classes=SHAPES), workdir=tmp_path / "work")
    with pytest.raises(ValueError, match="needs embeddings"):
        zero_shot_classifier(Measurement(candidate="b"), task=task)


def test_measurements_are_found_again(found, heap):
    result, _ = found
    task = load_task(heap, TaskOptions(classes=SHAPES, seed=3), workdir=result.workdir)
    (one,) = resolve(NAMES[:1])
    kept = find_measurement(one, task, store=Store(result.workdir / "targets"))
    assert kept.features.shape[0] == 45
    assert json.loads((result.workdir / "search.json").read_text())["task"] == task.digest
