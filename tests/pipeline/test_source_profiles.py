"""Source profiles in the visit of a screening: when they are made, and that later rankings use them."""

import time
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import vlmsel_auto
from helpers.drawings import draw_task
from helpers.loopback_hub import loopback_hub
from helpers.source_packs import make_pack, serve_source
from vlmsel_auto.cache import Store
from vlmsel_auto.cli.app import app
from vlmsel_auto.events import Notice
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library, user_library, user_library_path
from vlmsel_auto.measuring.source_cells import PACK
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline.source_profiles import SourceProfiles, missing_tasks, open_source_profiles
from vlmsel_auto.records import Basis

MEMBERS = ("EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s", "ConvNeXt-Mi-64.all-m", "ViT-Mi-8-64.all-l")
SOURCES = ("MNIST", "EuroSAT", "GTSRB", "SVHN", "STL-10")


@pytest.fixture(scope="module")
def model():
    found = zoo.load(resolve(MEMBERS[0])[0], device="cpu")
    return replace(found, candidate=replace(found.candidate, id="own"))  # which no library knows


def profiles(tmp_path, *, tasks=3, **more):
    pack = make_pack(tmp_path, tasks=tasks)
    events = []
    store = Store(tmp_path / "store")
    made = SourceProfiles(tasks=pack, known=default_library(), store=store, sink=events.append, **more)
    return made, events


def test_without_a_pack_there_is_nothing_to_make():
    assert open_source_profiles(default_library(), sink=print) is None


def test_without_a_deadline_profiles_take_no_longer_than_the_looks(model, tmp_path):
    made, events = profiles(tmp_path)
    made.visit(model, image_seconds=1.0, screening_seconds=100.0, deadline=None)  # a task would take 3 x 9 x 8 s
    assert made.made == {}
    made.visit(model, image_seconds=1.0, screening_seconds=100.0, deadline=None)
    assert made.made == {}
    made.visit(model, image_seconds=1.0, screening_seconds=300.0, deadline=None)
    assert made.made == {"own": 3}  # the first took far less than was expected
    assert 0 < made.spent < 60
    assert made.notes() == ["made 3 source profiles of 1 candidate while they were loaded: later rankings use them"]
    assert load(user_library_path()).task_names == ("EuroSAT", "GTSRB", "MNIST")
    assert events == []


def test_with_a_deadline_they_take_a_tenth_of_the_time(model, tmp_path):
    now = time.monotonic()
    made, _ = profiles(tmp_path, began=now)
    made.visit(model, image_seconds=1.0, screening_seconds=1e6, deadline=now + 2000)
    assert made.made == {}
    made.visit(model, image_seconds=1.0, screening_seconds=0.0, deadline=now + 3000)
    assert made.made == {"own": 3}
    late, _ = profiles(tmp_path / "late", began=now - 1e6)
    late.visit(model, image_seconds=1.0, screening_seconds=1e6, deadline=time.monotonic() + 100)
    assert late.made == {}  # it would end after the deadline


def test_what_time_was_not_enough_for_comes_with_the_next_visit(model, tmp_path):
    made, _ = profiles(tmp_path)
    first, *others = made.tasks
    alone = replace(made, tasks=[first])
    alone.visit(model, image_seconds=0.0, screening_seconds=1e6, deadline=None)
    known = user_library()
    assert missing_tasks(made.tasks, model.candidate, known=known) == others
    again = replace(made, known=known, made={})
    again.visit(model, image_seconds=0.0, screening_seconds=1e6, deadline=None)
    assert again.made == {"own": 2}
    assert missing_tasks(made.tasks, model.candidate, known=user_library()) == []


def test_a_candidate_that_the_shipped_library_profiles_needs_none(tmp_path):
    made, _ = profiles(tmp_path)
    assert missing_tasks(made.tasks, resolve(MEMBERS[0])[0], known=default_library()) == []


def test_what_fails_is_told_and_raises_nothing(model, tmp_path):
    made, events = profiles(tmp_path)
    for path in made.tasks[0].root.glob("*.png"):
        path.unlink()
    made.visit(model, image_seconds=0.0, screening_seconds=1e6, deadline=None)
    user_library_path().write_bytes(b"damaged")
    replace(made, tasks=made.tasks[1:]).visit(model, image_seconds=0.0, screening_seconds=1e6, deadline=None)
    texts = [each.text for each in events if isinstance(each, Notice)]
    assert "own has no source profile on EuroSAT" in texts[0]
    assert "source profiles were not added to your library" in texts[1]
    assert made.notes() == []
    assert user_library_path().read_bytes() == b"damaged"


@pytest.mark.slow
def test_from_the_hub_to_a_ranking_that_uses_the_profiles(tmp_path, monkeypatch):
    monkeypatch.setattr(SourceProfiles, "_may_spend", lambda *_, **__: True)  # whatever the machine's pace
    target = draw_task(tmp_path / "shapes")
    with loopback_hub(tmp_path / "hub") as hub:
        for number, name in enumerate(SOURCES):
            serve_source(hub, name, count=40, seed=number, size=32 + 8 * number)
        names = [hub.add_mini_zoo(member) for member in MEMBERS]
        plain = vlmsel_auto.rank(target, candidates=names, shots=4, cache_dir=tmp_path / "plain")
        assert not user_library_path().exists()
        packed = CliRunner().invoke(app, ["library", "sources", *SOURCES, "--quiet"])
        assert packed.exit_code == 0, packed.output
        first = vlmsel_auto.rank(target, candidates=names, shots=4, cache_dir=tmp_path / "first")
        own = load(user_library_path())
        second = vlmsel_auto.rank(target, candidates=names, shots=4, cache_dir=tmp_path / "second")
    assert first.order == plain.order  # the profiles serve later rankings
    assert [note for note in first.notes if "profile" in note][-1].startswith("made 20 source profiles of 4 candidates")
    assert not any("source images" in note for note in plain.notes)
    assert sorted(own.candidate_ids) == sorted(names)
    assert sorted(own.task_names) == sorted(SOURCES)
    assert {build.source for build in own.builds} == {PACK}
    assert all(np.isfinite(activity).all() for activity in own.activity)
    assert np.isfinite(own.zero_shot).all()
    assert {line.basis for line in second.ranked} == {Basis.LIBRARY_AND_LABELS}
    assert all("dcd" in line.signals for line in second.ranked)
    assert not any("dcd" in line.signals for line in first.ranked)
    notes = "\n".join(second.notes)
    assert "4 of 4 candidates are in the library" in notes
    assert "source profiles of 4 candidates come from your source images" in notes
    assert "no conductance profiles" not in notes
    assert not any(note.startswith("made ") for note in second.notes)


def test_a_library_of_ones_own_choice_is_not_added_to(tmp_path):
    make_pack(tmp_path, tasks=1)
    copy = resolve(MEMBERS[1])[0].path
    target = draw_task(tmp_path / "shapes", train=6)
    vlmsel_auto.rank(target, candidates=[f"local-dir:{copy}"], shots=2, library=default_library())
    assert not user_library_path().exists()
