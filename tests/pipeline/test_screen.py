"""The loop of screenings on the mini zoo: order, price, failures and what is kept."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from helpers.sessions import session_of, shapes_task
from vlmsel_auto.cache import Store
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.events import Notice, StageProgress
from vlmsel_auto.library import published
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.records import Build, Cell, SourceCandidate, SourceTask
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.models.machine import Machine
from vlmsel_auto.pipeline import screen as screen_stage
from vlmsel_auto.pipeline.screen import screen

NAMES = ("ConvNeXt-Mi-64.synth-m", "EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s", "ViT-Mi-8-64.all-l")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return shapes_task(tmp_path_factory.mktemp("task"), resolve(NAMES))


def look(task, folder, *, candidates=NAMES, kept=None, catches_interrupt=False, **changes):
    session = session_of(task, candidates, folder, **{"price": 0.001, **changes})
    return screen(session, kept=kept or {}, catches_interrupt=catches_interrupt)


def test_where_screenings_are_cheap_nobody_is_passed_over(task, tmp_path):
    screening = look(task, tmp_path, price=1e9)
    assert sorted(screening.found) == sorted(NAMES)
    assert screening.passed_over == {}
    assert screening.forecast.screened.all()
    assert not screening.forecast.published.any()


def test_a_price_leaves_out_what_promises_little_and_says_so(task, tmp_path, monkeypatch):
    none = look(task, tmp_path, deadline=time.monotonic() - 1).forecast
    assert not none.screened.any()
    monkeypatch.setattr(screen_stage, "_FREE_SECONDS", 0.0)
    screening = look(task, tmp_path, price=1e3)
    assert len(screening.found) == 1  # someone is screened, whatever it costs
    assert len(screening.passed_over) == 3
    assert all("it promised" in each.reason and each.seconds > 0 for each in screening.passed_over.values())
    assert screening.forecast.screened.sum() == 1
    assert (np.abs(screening.forecast.mean - none.mean) > 1e-3).all()  # one screening moves the forecast of all
    assert (
        screening.forecast.sd[~screening.forecast.screened] > screening.forecast.sd[screening.forecast.screened]
    ).all()


def test_a_screening_that_would_end_late_is_not_begun(task, tmp_path):
    slow = Machine(
        device="cpu", cores=1, memory_bytes=1 << 30, disk_bytes=1 << 30, flops_per_second=1e7, bytes_per_second=1e7
    )
    deadline = time.monotonic() + 30
    screening = look(task, tmp_path, price=0.0, deadline=deadline, machine=slow)
    assert screening.found  # one is begun all the same, and shows that this machine is faster than was thought
    assert sorted(screening.found) == sorted(NAMES)
    passed = look(task, tmp_path / "other", deadline=time.monotonic() - 1).passed_over
    assert sorted(passed) == sorted(NAMES)
    assert all("no time was left" in each.reason for each in passed.values())


def test_one_that_cannot_be_loaded_is_told_and_the_others_go_on(task, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(resolve(NAMES[:1])[0].path, damaged)
    weights = damaged / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    events = []
    candidates = [*NAMES[1:], f"local-dir:{damaged}"]
    screening = look(task, tmp_path / "store", candidates=candidates, sink=events.append)
    assert sorted(screening.found) == sorted(NAMES[1:])
    assert list(screening.failures) == [f"local-dir:{damaged}"]
    assert any(isinstance(each, Notice) and "cannot be used" in each.text for each in events)
    assert [each.done for each in events if isinstance(each, StageProgress)] == [1, 2, 3, 4]


def test_what_an_earlier_run_kept_costs_no_look(task, tmp_path):
    first = look(task, tmp_path)
    events = []
    kept = {one.id: find_measurement(one, task, store=Store(tmp_path)) for one in resolve(NAMES)}
    again = look(task, tmp_path, kept=kept, sink=events.append)
    assert not [each for each in events if isinstance(each, StageProgress)]
    assert again.forecast.mean == pytest.approx(first.forecast.mean)


def test_figures_of_the_library_that_are_published_too_count_once(task, tmp_path):
    names = ("RN50/openai", "ViT-B-32/openai", "ViT-L-14/openai", "convnext_base/laion400m_s13b_b51k")
    candidates = [replace(resolve(NAMES[0])[0], id=name) for name in names]
    digits = published.zero_shot(names)[:, published.datasets().index("MNIST")]
    told = SourceTask(name="MNIST", domain="", classes=(), digest="MNIST", n_test=0)
    models = [SourceCandidate(id=name, arch=name, tag="") for name in names]
    own = assemble(
        Cell(candidate=one, task=told, build=Build(source="", code_version=""), finished=0.0, zero_shot=figure)
        for one, figure in zip(models, digits.tolist(), strict=True)
    )

    def forecast(library):
        over = time.monotonic() - 1
        return look(task, tmp_path, candidates=candidates, library=library, price=0.0, deadline=over).forecast

    known, nothing = forecast(own), forecast(own.select_tasks([]))
    assert known.mean.tolist() == nothing.mean.tolist()
    assert known.sd.tolist() == nothing.sd.tolist()


def test_who_is_slower_than_allowed_is_taken_out_as_soon_as_it_shows(task, tmp_path):
    everyone = look(task, tmp_path / "first").found
    times = sorted(one.seconds for one in everyone.values())
    events = []
    limits = Limits(max_latency=(times[1] + times[2]) / 2)
    screening = look(task, tmp_path / "second", kept=everyone, price=0.0, sink=events.append, limits=limits)
    slow = {name for name, one in everyone.items() if one.seconds >= times[2]}
    assert set(screening.failures) == slow
    assert set(screening.found) == set(NAMES) - slow
    assert all("as measured, exceed --max-latency" in why for why in screening.failures.values())
    assert sum(isinstance(each, Notice) for each in events) == 2


def test_an_interrupt_keeps_what_was_seen_where_that_is_wanted(task, tmp_path):
    def interrupt(event):
        if isinstance(event, StageProgress) and event.done == 2:
            raise KeyboardInterrupt

    screening = look(task, tmp_path / "a", sink=interrupt, catches_interrupt=True)
    assert screening.interrupted
    assert len(screening.found) == 2
    assert {each.reason for each in screening.passed_over.values()} == {"the screenings were interrupted"}
    with pytest.raises(KeyboardInterrupt):
        look(task, tmp_path / "b", sink=interrupt)


@pytest.mark.slow  # tests/pipeline/test_workers.py has a search of which workers look
def test_workers_screening_at_several_at_once_and_see_the_same(task, tmp_path):
    alone = look(task, tmp_path / "alone", price=1e9)
    heard, last = [], resolve(NAMES)[3]
    broken = shutil.copytree(last.path, tmp_path / "broken")
    (broken / "open_clip_model.safetensors").write_bytes(b"cut off")
    with LocalEngine(2) as engine:
        some = [*NAMES[:3], replace(last, path=broken)]
        screening = look(task, tmp_path / "workers", candidates=some, price=1e9, sink=heard.append, engine=engine)
    assert sorted(screening.found) == sorted(NAMES[:3])
    assert list(screening.failures) == [NAMES[3]]
    for name in NAMES[:3]:
        np.testing.assert_allclose(screening.found[name].features, alone.found[name].features, atol=1e-6)
    assert [each.done for each in heard if isinstance(each, StageProgress)] == [1, 2, 3, 4]
    assert find_measurement(resolve(NAMES[:1])[0], task, store=Store(tmp_path / "workers")) is not None
