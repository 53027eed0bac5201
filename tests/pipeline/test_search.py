"""The whole loop on real files and real models: ranking, search, export, report, resume, learning."""

import json
import re
import resource
import shlex
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import vlmsel_auto
from helpers.drawings import draw_task
from helpers.short_trials import short_trials  # noqa: F401 - a fixture
from vlmsel_auto.cli.app import app
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Notice, RankingReady, StageProgress, TrialFinished
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.file import save
from vlmsel_auto.library.places import user_library
from vlmsel_auto.models.limits import Limits, read_limits
from vlmsel_auto.pipeline.search import SearchRequest
from vlmsel_auto.pipeline.workdir import check_usable
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import Budget, StoppedBy
from vlmsel_auto.reporting.report import load as load_report

QUICK = ("ConvNeXt-Mi-64.synth-m", "RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m")
NOT_LEARNED = "not added to the library: no candidate was screened"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return draw_task(tmp_path_factory.mktemp("tasks") / "shapes")


ALONE = {"candidates": QUICK, "library": assemble([]), "learn": False}  # neither knows other tasks nor adds to them
FIVE = {"top_k": 2, "budget": Budget(trials=5)}


@pytest.fixture
def search(shapes, tmp_path):
    """A search on the shapes in a work directory of the test."""

    def run(data=shapes, **changes):
        return vlmsel_auto.search(data, **{**ALONE, "workdir": tmp_path / "w", **changes})

    return run


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory):
    """One search, shared by the tests that only look at it."""
    events = []
    workdir = tmp_path_factory.mktemp("work") / "w"
    return vlmsel_auto.search(shapes, **ALONE, **FIVE, workdir=workdir, sink=events.append), events


def written_at(folder):
    """When each file was written; locks are no data, and old releases of filelock write them anew."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_ranking_names_every_candidate_once_with_probabilities_and_is_read_by_the_next(shapes, tmp_path):
    first = vlmsel_auto.rank(shapes, candidates=QUICK, library=assemble([]), cache_dir=tmp_path)
    assert sorted(first.order) == sorted(QUICK)
    assert sum(line.p_best for line in first.ranked) == pytest.approx(1.0, abs=1e-6)
    assert [line.score for line in first.ranked] == sorted((line.score for line in first.ranked), reverse=True)
    assert {line.basis for line in first.ranked} == {"labels"}
    written = written_at(tmp_path)
    second = vlmsel_auto.rank(shapes, candidates=QUICK, library=assemble([]), cache_dir=tmp_path)
    assert second == first
    assert written_at(tmp_path) == written


def test_search_gives_the_best_trial_by_validation(finished):
    result, events = finished
    complete = [trial for trial in result.trials if trial.state == "complete"]
    assert result.best.validation == max(trial.validation for trial in complete)
    assert result.trials[0].origin.label == "zero-shot"  # free: it is not one of the five
    assert len(result.trials) == 1 + 5
    assert sum(isinstance(event, TrialFinished) for event in events) == 1 + 5
    assert any(isinstance(event, RankingReady) and not event.updated for event in events)


def test_exported_model_loads_in_plain_open_clip_and_repeats_the_test_accuracy(finished, shapes):
    best = finished[0].best
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{best.model_dir}")
    model.eval()  # open_clip gives models in training mode, which batch norm would see
    head = load_file(best.model_dir / "head.safetensors")
    classes = json.loads((best.model_dir / "classes.json").read_text())["classes"]
    files = sorted((shapes / "test").glob("*/*.png"))
    with torch.no_grad():
        images = torch.stack([transform(Image.open(path)) for path in files])
        embedded = model.encode_image(images, normalize=True)
        logits = head["scale"] * embedded @ head["weight"].T + head["bias"]
    plain = np.mean([classes[k] == path.parent.name for k, path in zip(logits.argmax(1), files, strict=True)])
    assert plain == pytest.approx(best.test)
    ours = vlmsel_auto.predict(best.model_dir, files)
    right = np.mean([said == path.parent.name for said, path in zip(ours.labels, ours.paths, strict=True)])
    assert right == pytest.approx(best.test)


def test_report_holds_what_the_result_says(finished):
    result, _ = finished
    report = load_report(result.report_dir)
    assert report.best.candidate == result.best.candidate
    assert report.agreement == result.agreement
    assert len(report.trials) == len(result.trials)
    assert {row.name for row in report.baselines} >= {"random order"}
    assert list(report.stage_seconds) == ["start", "images and ranking", "trials", "export"]
    assert sum(report.stage_seconds.values()) == pytest.approx(report.seconds)
    page = (result.report_dir / "report.html").read_text()
    assert result.best.candidate in page
    mistakes = report.mistakes
    assert sum(each.right for each in mistakes.classes) / mistakes.images == pytest.approx(result.best.test)
    issues = report.label_issues
    shown = len(mistakes.surest) + len(mistakes.unsure) + len(issues.suspects) + 2 * len(issues.near_duplicates)
    assert page.count('src="data:image/jpeg;base64,') == shown
    assert issues.judged > 0
    assert issues.compared == 48
    figure = result.plot("confusion")
    assert figure.axes[0].get_ylabel() == "true class"


def test_the_same_search_again_repeats_nothing(finished, search):
    result, _ = finished
    scraps = [result.workdir / name for name in (".part-a", "trials/0000/.part-b", "targets/.part-c")]
    for scrap in scraps:  # what a kill leaves of a file
        scrap.write_bytes(b"half")
    events = []
    again = search(**FIVE, workdir=result.workdir, sink=events.append)
    assert again.trials == result.trials
    assert any(isinstance(event, Notice) and event.text.startswith("going on with the search in") for event in events)
    assert all(event.resumed for event in events if isinstance(event, TrialFinished))
    assert again.ranking == result.ranking
    assert not any(scrap.exists() for scrap in scraps)


def test_an_objective_chooses_among_the_same_trials_and_says_what_it_took(finished, search, tmp_path):
    plain, _ = finished
    shutil.copytree(plain.workdir, tmp_path / "w")
    small = search(**FIVE, objective="params=60")
    assert small.trials == plain.trials
    assert small.ranking.order == plain.ranking.order
    assert small.objective == Objective(params=60)
    sizes = {each.name: each.params for each in small.tradeoffs if each.name in QUICK}
    assert small.best.candidate == min(sizes, key=sizes.__getitem__)
    assert small.ensemble is None  # a second model halves what the first is worth
    for each in small.tradeoffs:
        assert each.worth == pytest.approx(each.accuracy - 0.6 * np.log2(each.params / 1e8))
        assert each.memory > each.params
    assert [each.worth for each in plain.tradeoffs] == [each.accuracy for each in plain.tradeoffs]
    page = (small.report_dir / "report.html").read_text("utf-8")
    assert '<th>objective</th><td class="w">params=60</td>' in page
    assert "Worth is " in page
    assert "--objective params=60" in load_report(small.report_dir).command


def test_another_search_may_not_take_the_work_directory(finished, search):
    with pytest.raises(WorkdirError, match=r"other settings \(limits, seed, .*\)"):
        search(**FIVE, workdir=finished[0].workdir, seed=1, limits=Limits(max_params=10**9))


def test_the_command_that_a_report_names_has_what_was_asked_for():
    def words(**asked: object) -> str:
        return SearchRequest(data="photos", workdir=Path("w"), budget=Budget(seconds=60), **asked).command("photos")

    assert words() == "vlmsel-auto search photos --time-budget 60 --seed 0 --workdir w"
    assert "--price 0.5 " in words(price=0.5)
    assert "--objective latency=1,params=0.5 " in words(objective=Objective(latency=1, params=0.5))
    assert "--candidates mini-zoo --offline " in words(candidates="mini-zoo", offline=True)
    assert "--test-images 500 " in words(test_images=500)
    assert "--groups parent " in words(groups="parent")
    assert "--groups" not in words(groups=(1, 2))
    asked = {
        "max_params": "150000000", "max_download": "2000000000", "max_memory": "4000000000", "max_latency": "40ms",
        "image_size": "224-", "licence": "MIT,Apache-2.0",
    }  # fmt: skip
    told = shlex.split(words(limits=read_limits(**asked)))
    assert [told[told.index(f"--{name.replace('_', '-')}") + 1] for name in asked] == list(asked.values())


def test_a_search_killed_before_it_had_settings_owns_its_work_directory(tmp_path):
    (tmp_path / "pixels").mkdir()
    (tmp_path / ".part-x7").write_bytes(b"half of the settings")
    check_usable(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(WorkdirError, match=r"thesis\.txt"):
        check_usable(tmp_path)


def test_a_budget_too_short_for_a_trial_is_no_failure_of_trials(search):
    cut = search(candidates=QUICK[1:2], budget=0.1, method="finetune")
    assert cut.best is None
    assert cut.stopped_by == "budget"


def test_a_budget_that_is_over_before_any_screening_ends_with_a_model_and_is_said(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / "mine.safetensors"))
    said = []
    late = vlmsel_auto.search(
        shapes, candidates=QUICK[1:2], budget=0.1, since=time.monotonic() - 60, workdir=tmp_path / "w",
        sink=lambda event: said.append(event) if isinstance(event, Notice) else None,
    )  # fmt: skip
    assert late.stopped_by == "budget"
    assert [each.spec.method for each in late.trials] == ["zero_shot"]
    assert late.best.model_dir.is_dir()
    assert late.ranking.not_looked
    (warning,) = (each.text for each in said if each.level == "warning")
    assert re.match("no candidate was screened: the start took .* of .*; give more time", warning)
    assert any(NOT_LEARNED in each for each in load_report(late.report_dir).notes)


def test_a_search_that_is_logged_goes_on_after_a_kill_and_may_keep_its_images_to_itself(search, tmp_path, monkeypatch):
    logged = {"candidates": QUICK[2:], "method": "probe", "budget": Budget(trials=1), "logger": "csv"}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlmsel_auto.pipeline.run.begin_in", killed)
        with pytest.raises(KeyboardInterrupt):
            search(**logged, thumbnails=False)
    result = search(**logged, thumbnails=False)  # trackers had left nothing there
    logs = tmp_path / "w" / "logs" / "csv" / "version_0"
    assert len(list(logs.glob("trial-*/metrics.csv"))) == len(result.trials)
    assert "best/validation" in (logs / "metrics.csv").read_text()
    assert "--no-images" in load_report(result.report_dir).command
    assert "--log csv" in load_report(result.report_dir).command
    assert "<img" not in (result.report_dir / "report.html").read_text()


def test_a_data_set_in_memory_is_searched_like_a_folder_and_the_search_resumes(shapes, search, tmp_path):
    data = {part: [(file, file.parent.name) for file in sorted((shapes / part).glob("*/*"))]
            for part in ("train", "test")}  # fmt: skip

    short = {"candidates": QUICK[1:2], "method": ["zero_shot", "probe"], "budget": Budget(trials=1)}
    first = search(data, **short)
    assert first.best.test is not None
    assert first.trials == search(data, **short).trials
    with pytest.raises(WorkdirError, match=r"other settings \(task: images, labels, groups, split or task.toml\)"):
        search(data["train"], **short)
    with pytest.raises(WorkdirError, match="other settings"):
        search(data, groups=np.arange(sum(map(len, data.values()))) // 2, **short)
    ranked = vlmsel_auto.rank(data, candidates=QUICK[1:], library=assemble([]), cache_dir=tmp_path / "w")
    assert sorted(ranked.order) == sorted(QUICK[1:])


def test_a_finished_search_is_a_source_task_of_the_next(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / "mine.safetensors"))
    said = []
    first = vlmsel_auto.search(
        shapes, candidates=QUICK, method=["zero_shot", "probe"], budget=Budget(trials=3), workdir=tmp_path / "w",
        sink=lambda event: said.append(event) if isinstance(event, Notice) else None,
    )  # fmt: skip
    assert not first.ranking.not_looked
    assert not [each for each in said if each.level == "warning"]
    assert not any(NOT_LEARNED in each for each in load_report(first.report_dir).notes)
    known = user_library()
    assert "shapes" in known.task_names
    column = known.column("shapes")
    tuned = {trial.spec.candidate for trial in first.trials if trial.state == "complete"}
    for name in QUICK:
        assert np.isfinite(known.zero_shot[known.row(name), column])
        figures = (known.probed[known.row(name), column], known.tuned[known.row(name), column])
        assert np.isfinite(figures).any() == (name in tuned)
    related = draw_task(tmp_path / "related", train=6, test=2, shapes=("circle", "triangle"), seed=5)
    for task, counts in ((related, True), (shapes, False)):  # it is no source of itself
        with_it, without = (
            vlmsel_auto.rank(task, candidates=QUICK, library=library, cache_dir=tmp_path / "w")
            for library in (known, known.leave_out(name="shapes"))
        )
        assert ([line.score for line in with_it.ranked] != [line.score for line in without.ranked]) == counts


@contextmanager
def small_files_only():
    """Images and measurements fit, the weights of a tower do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_disk_that_takes_no_more_is_one_line_and_the_search_goes_on_later(shapes, tmp_path):
    save(assemble([]), tmp_path / "none.safetensors")
    command = [
        "search", str(shapes), "--candidates", QUICK[1], "--method", "finetune", "--max-trials", "1",
        "--workdir", str(tmp_path / "w"), "--library", str(tmp_path / "none.safetensors"), "--no-learn", "--json",
    ]  # fmt: skip
    with small_files_only():
        full = CliRunner().invoke(app, command)
    assert full.exit_code == 2, full.stderr
    assert full.stdout == ""
    last = full.stderr.splitlines()[-1]
    assert last.startswith("error: cannot write below ")
    assert "the same command goes on" in last
    assert "Traceback" not in full.stderr
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert [trial["state"] for trial in json.loads(done.stdout)["trials"]] == ["complete"]


def interrupted_after(screenings):
    def sink(event):
        if isinstance(event, StageProgress) and (event.stage, event.done) == ("screenings", screenings):
            raise KeyboardInterrupt

    return sink


def test_interrupted_while_looking_the_best_so_far_is_a_model_and_the_search_goes_on(search):
    short = {"method": ["zero_shot", "probe"], "budget": Budget(trials=3)}
    first = search(**short, sink=interrupted_after(1))
    assert first.stopped_by is StoppedBy.INTERRUPTED
    assert [each.spec.method for each in first.trials] == ["zero_shot", "probe"]
    assert first.best.model_dir.is_dir()
    assert len(first.ranking.not_looked) == 2
    again = search(**short)
    assert again.trials[:2] == first.trials
    assert len(again.trials) == 4
    assert again.best.validation >= first.best.validation
