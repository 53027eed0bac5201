"""The stage that chooses templates without labels: real models, drawn shapes."""

import io
import time
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from rich.console import Console

import vlmsel_auto
from helpers.drawings import SHAPES
from helpers.labelling import write_heap
from helpers.sessions import session_of
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Notice, StageFinished, StageStarted
from vlmsel_auto.measuring.measure import embed_target, find_measurement
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.exporting import read_classifier
from vlmsel_auto.pipeline import templates
from vlmsel_auto.pipeline.screen import ScreeningResult
from vlmsel_auto.pipeline.templates import choose_templates
from vlmsel_auto.ranking.templates import LEAST_VOTERS
from vlmsel_auto.reporting import panel
from vlmsel_auto.reporting.formatting import quoted
from vlmsel_auto.reporting.report import load as load_report
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.templates import BANK, DEFAULT_TEMPLATES
from vlmsel_auto.tasks.unlabelled_pool import spoken_in

NAMES = (
    "RN-Mi-64.all-m", "EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "ConvNeXt-Mi-64.synth-m", "ViT-Mi-16-64.all-m",
    "ViT-Mi-8-64.synth-s", "RN-Mi-64.glyph-s",
)  # fmt: skip
WORDS = "a drawing of a {}."


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    return write_heap(tmp_path_factory.mktemp("tasks") / "heap", count=36)


@pytest.fixture(scope="module")
def found(heap, tmp_path_factory):
    """One search, with its events."""
    events = []
    folder = tmp_path_factory.mktemp("work") / "w"
    result = vlmsel_auto.search(heap, candidates=NAMES, classes=SHAPES, workdir=folder, sink=events.append)
    return result, events


def test_words_for_drawings_are_found_for_drawings(found):
    result, events = found
    assert WORDS in result.ranking.templates
    assert result.ranking.templates != DEFAULT_TEMPLATES
    assert any("kappa" in note and WORDS in note for note in result.ranking.notes)
    started = next(event for event in events if isinstance(event, StageStarted) and event.stage == "templates")
    finished = next(event for event in events if isinstance(event, StageFinished) and event.stage == "templates")
    assert started.total == len(NAMES)
    assert WORDS in finished.text


def test_the_panel_that_ends_the_search_says_the_words(found):
    result, _ = found
    console = Console(width=200, file=io.StringIO())
    console.print(panel.panel(load_report(result.report_dir), width=200))
    (line,) = [line for line in console.file.getvalue().splitlines() if "Words" in line]
    assert quoted(result.ranking.templates) in line
    page = (result.report_dir / "report.html").read_text()
    assert all(f"<q>{escape(one)}</q>" in page for one in result.ranking.templates)


def test_templates_with_quotation_marks_are_quoted_by_others():
    assert quoted(("a {}.", 'the "{}".')) == """"a {}.", 'the "{}".'"""


def test_the_exported_models_speak_in_these_words(found):
    result, _ = found
    (candidate,) = resolve(result.best.candidate)
    head = read_classifier(result.best.model_dir)
    assert head.templates == result.ranking.templates
    texts = zoo.load(candidate).text_features(SHAPES, result.ranking.templates).numpy()
    np.testing.assert_allclose(head.head, texts, atol=1e-5)


def test_a_search_that_goes_on_speaks_in_the_same_words(found, heap):
    result, _ = found
    events = []
    again = vlmsel_auto.search(heap, candidates=NAMES, classes=SHAPES, workdir=result.workdir, sink=events.append)
    assert again.ranking.templates == result.ranking.templates
    assert again.ranking.order == result.ranking.order
    assert read_classifier(again.best.model_dir).templates == result.ranking.templates
    assert not any(isinstance(event, StageStarted) and event.stage == "templates" for event in events)


def test_conductance_is_that_of_the_new_words(found, heap):
    result, _ = found
    store, candidates = Store(result.workdir / "targets"), resolve(NAMES)
    task = load_task(heap, TaskOptions(classes=SHAPES), workdir=result.workdir)
    assert all(not find_measurement(one, task, store=store).blocks for one in candidates)
    spoken = spoken_in(task, result.ranking.templates)
    assert all(find_measurement(one, spoken, store=store).blocks for one in candidates)


@pytest.fixture(scope="module")
def world(heap, tmp_path_factory):
    """Candidates, a task, and what looks at it found."""
    root, candidates = tmp_path_factory.mktemp("world"), resolve(NAMES)
    task, store = load_task(heap, TaskOptions(classes=SHAPES), workdir=root), Store(root / "store")
    return candidates, task, screenings(candidates, task, store), store


def screenings(candidates, task, store):
    seen = {one.id: embed_target(zoo.load(one), task, store=store) for one in candidates}
    return ScreeningResult(found=seen, failures={}, passed_over={}, forecast=None, seconds=1.0)


def chosen(world, *, folder=None, screening=None, **changes):
    candidates, task, seen, store = world
    session = session_of(changes.pop("task", task), candidates, folder or store.root, **changes)
    return choose_templates(session, screening or seen)


def test_measurements_under_the_new_words_are_kept_and_differ_by_texts_alone(world, found):
    candidates, task, screening, store = world
    result, _ = found
    spoken = chosen(world)
    assert spoken.task.templates == spoken.chosen == result.ranking.templates
    assert spoken.task.digest != task.digest
    for one in candidates:
        before, after = screening.found[one.id], find_measurement(one, spoken.task, store=store)
        np.testing.assert_array_equal(after.features, before.features)
        texts = zoo.load(one).text_features(task.prompts, spoken.chosen).numpy()
        np.testing.assert_allclose(after.text_features, texts, atol=1e-6)


def test_words_of_the_user_few_candidates_and_an_interrupt_leave_the_words_alone(world):
    _, task, screening, _ = world
    few = dict(list(screening.found.items())[: LEAST_VOTERS - 1])
    for changes in (
        {"task": replace(task, names_templates=True)},
        {"screening": replace(screening, found=few)},
        {"screening": replace(screening, interrupted=True)},
    ):
        found = chosen(world, **changes)
        assert (found.chosen, found.note, found.task.templates) == ((), "", DEFAULT_TEMPLATES)


def test_without_time_the_plain_template_stays_and_the_report_says_so(world, tmp_path):
    found = chosen(world, folder=tmp_path, deadline=time.monotonic())
    assert found.chosen == ()
    assert "no time to try others" in found.note


def test_with_little_time_fewer_templates_are_tried(world, tmp_path, monkeypatch):
    """The clock runs a second a template, and the allowance is for a fifth of them all."""
    clock = [0.0]

    def slow(candidate, prompts, words, *, load, store):
        clock[0] += len(words)
        return real(candidate, prompts, words, load=load, store=store)

    real = templates.reference_embeddings
    monkeypatch.setattr(templates, "reference_embeddings", slow)
    monkeypatch.setattr(templates.time, "monotonic", lambda: clock[0])
    budget = len(NAMES) * len(BANK) / 2
    found = chosen(world, folder=tmp_path, deadline=budget, screening=replace(world[2], seconds=budget))
    assert clock[0] <= budget
    tried = int(found.note.split(": of ")[1].split()[0]) if ": of " in found.note else None
    assert tried is not None
    assert 8 <= tried < len(BANK)


def test_a_candidate_whose_text_tower_fails_is_named_and_its_screening_counts_no_more(world, tmp_path, monkeypatch):
    lost = NAMES[-1]

    def lost_one(candidate, prompts, words, *, load, store):
        if candidate.id == lost:
            raise MemoryError("no room")
        return real(candidate, prompts, words, load=load, store=store)

    real = templates.reference_embeddings
    monkeypatch.setattr(templates, "reference_embeddings", lost_one)
    heard = []
    found = chosen(world, folder=tmp_path, sink=heard.append)
    assert found.chosen
    assert lost not in found.screening.found
    assert any(isinstance(event, Notice) and lost in event.text and "out of memory" in event.text for event in heard)
