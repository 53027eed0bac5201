import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.library_world import MEMBERS, SETTINGS, build, draw, make_world
from tools.tuned_table import with_tuned
from vlmsel_auto import events
from vlmsel_auto.cache import Store
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.errors import LibraryError, TaskError
from vlmsel_auto.library.file import load
from vlmsel_auto.measuring import build as library_build
from vlmsel_auto.measuring.build import Workplace
from vlmsel_auto.measuring.cells import measure_cell, unlabelled_images
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.ranking.evidence import logme, zeroshot


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def cell_files(root: Path) -> dict[Path, int]:
    return {one: one.stat().st_mtime_ns for one in (root / "cache" / "cells").rglob("*.safetensors")}


def test_every_cell_is_there_and_sound(world):
    root, _, made, _ = world
    assert made.failures == ()
    assert made.candidate_ids == MEMBERS
    assert made.task_names == ("one", "two")
    assert [one.sha256 for one in made.candidates] == [fingerprint(one) for one in candidates.resolve(MEMBERS)]
    for name in ("zero_shot", "total", "seconds", "finished"):
        assert np.isfinite(getattr(made, name)).all(), name
    assert made.shots == (1, 2)
    assert np.isfinite(made.evidence_draws[..., made.evidence_names.index("zeroshot_likelihood")]).all()
    for m in range(2):
        assert np.isfinite(made.activity[m]).all()
        assert made.activity[m].shape == (2, len(made.candidates[m].blocks))
    settings = dict(made.builds[0].settings)
    assert settings["images"] == "4"
    assert settings["scalar"] == "margin"
    assert made.builds[0].source == "vlmsel-auto library build"
    read = load(root / "lib.safetensors")
    np.testing.assert_array_equal(read.zero_shot, made.zero_shot)


def test_progress_is_told_with_an_estimate(world):
    told = [one for one in world[3] if getattr(one, "stage", "") == "library"]
    assert isinstance(told[0], events.StageStarted)
    assert told[0].total == 4
    assert [one.done for one in told if isinstance(one, events.StageProgress)] == [1, 2, 3, 4]
    assert all("min left" in one.text for one in told if isinstance(one, events.StageProgress))
    assert isinstance(told[-1], events.StageFinished)


def test_figures_are_those_of_a_direct_computation(world):
    root, tasks, made, _ = world
    candidate = candidates.resolve(MEMBERS[0])[0]
    task = library_build.load_tasks(
        tasks[1:], candidates=(candidate,), settings=SETTINGS, leave_out=(), cache=root / "cache", sink=events.discard
    )[0]
    model = zoo.load(candidate)
    texts = model.text_features(task.prompts, task.templates)
    cosine = zeroshot.cosines(
        model.embed(model.normalise(task.pixels.read(candidate.view, task.test))).detach().numpy(), texts.numpy()
    )
    right = cosine.argmax(axis=1) == task.labels[task.test]
    assert made.zero_shot[0, 1] == right.mean()
    images = unlabelled_images(task, SETTINGS)
    found = conductance(
        model.visual,
        model.normalise(task.pixels.read(candidate.view, images[:4])),
        scalar=make_scalar("margin", text_features=texts, logit_scale=model.logit_scale),
        points=5,
    )
    np.testing.assert_allclose(made.activity[0][1], found.activity.mean(axis=0), rtol=1e-4)
    assert made.total[0, 1] == pytest.approx(found.total.mean(), rel=1e-4)
    # completeness: the total needs no path, so the signal over these and two more images is near the profile's
    total = model.logit_scale * made.signals[0, 1, made.signal_names.index("total_cosine")]
    assert total == pytest.approx(made.total[0, 1], rel=0.5)
    features = model.embed(model.normalise(task.pixels.read(candidate.view, task.support))).detach().numpy()
    assert made.evidence_draws[0, 1, 0, 1, made.evidence_names.index("logme")] == logme.logme(
        features, task.labels[task.support]
    )


def test_same_images_for_every_candidate_and_none_from_test(world):
    root, tasks, _, _ = world
    task = library_build.load_tasks(
        tasks[:1],
        candidates=candidates.resolve(MEMBERS),
        settings=SETTINGS,
        leave_out=(),
        cache=root / "cache",
        sink=events.discard,
    )[0]
    images = unlabelled_images(task, SETTINGS)
    assert len(set(images.tolist())) == len(images) == 4
    assert set(images.tolist()) <= set(task.train.tolist())
    np.testing.assert_array_equal(images, unlabelled_images(task, SETTINGS))


def test_a_second_build_computes_nothing_and_one_more_task_only_its_own_cells(world, tmp_path):
    root, tasks, made, _ = world
    before = cell_files(root)
    again = build(root, tasks=tasks, out="again.safetensors")
    assert cell_files(root) == before
    np.testing.assert_array_equal(again.finished, made.finished)
    third = draw(tmp_path / "three", shapes=("bar", "circle"), seed=3)
    grown = build(root, tasks=(*tasks, third), out="grown.safetensors", leave_out=["two"])
    assert grown.task_names == ("one", "three")
    after = cell_files(root)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2


def test_adding_to_a_library_keeps_what_it_has(world):
    root, tasks, made, _ = world
    base = with_tuned(made.select_tasks(["one"]), run="run", source="s", values={(MEMBERS[0], "one"): 0.5})
    grown = build(root, tasks=tasks[1:], members=MEMBERS[:1], base=base, out="added.safetensors")
    assert grown.task_names == ("one", "two")
    assert grown.tuned[0, 0] == 0.5
    assert np.isfinite(grown.zero_shot).tolist() == [[True, True], [True, False]]


def test_a_damaged_cell_is_made_again(world):
    root, tasks, made, _ = world
    sizes = {victim: victim.stat().st_size for victim in cell_files(root)}  # other tests' too
    for victim, size in sizes.items():
        os.truncate(victim, size // 2)
    again = build(root, tasks=tasks, out="again.safetensors")
    np.testing.assert_array_equal(again.zero_shot, made.zero_shot)
    assert sum(victim.stat().st_size > size // 2 for victim, size in sizes.items()) == len(tasks) * len(MEMBERS)


def test_one_failing_cell_leaves_the_others(world, tmp_path):
    root, tasks, _, _ = world
    good = candidates.resolve(MEMBERS[0])[0]
    bad = dataclasses.replace(good, id="broken", source="local-dir", path=tmp_path / "weights")
    bad.path.mkdir()
    for name in ("open_clip_config.json", "bpe.txt.gz"):
        (bad.path / name).write_bytes((good.path / name).read_bytes())
    (bad.path / "open_clip_model.safetensors").write_bytes(b"not weights")
    seen = []
    made = library_build.build(
        tasks=tasks[:1],
        candidates=(bad, good),
        out=tmp_path / "lib.safetensors",
        settings=SETTINGS,
        place=Workplace(cache=root / "cache"),
        sink=seen.append,
    )
    assert made.candidate_ids == (MEMBERS[0],)
    assert [(one.candidate, one.task) for one in made.failures] == [("broken", "one")]
    assert "weights" in made.failures[0].reason
    assert any(isinstance(one, events.Notice) and "broken on one failed" in one.text for one in seen)
    assert load(tmp_path / "lib.safetensors").failures == made.failures


@pytest.mark.slow
def test_two_processes_give_what_one_gives(world):
    root, tasks, made, _ = world
    fresh = root / "parallel"
    parallel = library_build.build(
        tasks=tasks,
        candidates=candidates.resolve(MEMBERS),
        out=fresh / "lib.safetensors",
        settings=SETTINGS,
        place=Workplace(cache=fresh / "cache", jobs=2),
    )
    np.testing.assert_array_equal(parallel.zero_shot, made.zero_shot)
    np.testing.assert_allclose(parallel.activity[1], made.activity[1], rtol=1e-5)
    np.testing.assert_array_equal(parallel.evidence_draws, made.evidence_draws)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from helpers.library_world import build
root = Path({root!r})
build(root, tasks=sorted((root / "tasks").iterdir()))
"""


@pytest.mark.slow
def test_killed_build_resumes_and_loses_at_most_the_cell_it_was_making(tmp_path):
    tasks = tuple(
        draw(tmp_path / "tasks" / name, shapes=("circle", "square"), seed=seed) for seed, name in enumerate("abc")
    )
    script = tmp_path / "build.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parents[1]), root=str(tmp_path)))
    running = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(cell_files(tmp_path)) < 2:
        assert running.poll() is None, running.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.kill()
    running.wait()
    running.stderr.close()
    assert not (tmp_path / "lib.safetensors").exists()  # written whole, at the end
    kept = cell_files(tmp_path)
    assert 2 <= len(kept) < 6
    made = build(tmp_path, tasks=tasks)
    assert np.isfinite(made.zero_shot).all()
    assert made.zero_shot.shape == (2, 3)
    after = cell_files(tmp_path)
    assert {path: after[path] for path in kept} == kept
    assert len(after) == 6


def test_a_new_statistic_needs_no_pass_through_the_model(world):
    root, tasks, made, _ = world
    candidate = candidates.resolve(MEMBERS[0])[0]
    task = library_build.load_tasks(
        tasks[:1],
        candidates=(candidate,),
        settings=SETTINGS,
        leave_out=(),
        cache=root / "cache",
        sink=events.discard,
    )[0]
    model = dataclasses.replace(zoo.load(candidate), mean=(9.0, 9.0, 9.0))  # whatever runs through it now is wrong
    store = Store(root / "cache" / "store")
    again = measure_cell(model=model, task=task, settings=SETTINGS, code_version="", store=store)
    assert again.zero_shot == made.zero_shot[0, 0]
    name = (0, 2, "logme")
    assert again.evidence[name] == made.evidence_draws[0, 0, 0, 1, made.evidence_names.index("logme")]


def test_wrong_calls_are_refused_before_anything_is_computed(world, tmp_path):
    root, tasks, _, _ = world
    with pytest.raises(LibraryError, match="jobs must be at least 1, but got 0"):
        build(root, tasks=tasks, jobs=0)
    with pytest.raises(LibraryError, match="at least one task and one candidate, but got 0 and 2"):
        build(root, tasks=tasks, leave_out=["one", "two"])
    twin = draw(tmp_path / "one", shapes=("bar", "square"), seed=5)
    with pytest.raises(LibraryError, match="two tasks are called 'one'"):
        build(root, tasks=(tasks[0], twin))
    with pytest.raises(TaskError, match=r"task folder .*missing"):
        build(root, tasks=(tmp_path / "missing",))
