"""The record of a search, what is derived from it, and its views."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.exported_world import LEVELS
from helpers.report_world import NAMES, make_report, make_trial
from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.agreement import agreement
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import (
    Agreement,
    BadFile,
    Budget,
    EnsembleModel,
    FinalScore,
    Interval,
    Ranking,
    StoppedBy,
)
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.panel import panel
from vlmsel_auto.reporting.report import (
    Baseline,
    SearchReport,
    actual_accuracies,
    best_trials,
    find,
    load,
    package_versions,
    save_json,
    to_json,
)
from vlmsel_auto.reporting.sentences import gain_text, mixed_text, pruning_text
from vlmsel_auto.tuning.methods import label_of


class Counting(HTMLParser):
    """Collects tags and attributes, and checks that what opens closes."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.tags = []
        self.open = []
        self.links = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in {"src", "href", "xlink:href", "srcset", "action"}]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in {"src", "href", "xlink:href", "srcset", "action"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    parser = Counting()
    parser.feed(page)
    assert parser.open == []
    return parser


def text_of(renderable, width=120):
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - closed with the process
    console.print(renderable)
    console.file.close()
    return console.export_text()


@pytest.fixture(scope="module")
def page():
    return html_page.html(make_report())


def test_best_trial_of_a_candidate_is_its_highest_complete_validation():
    report = make_report()
    best = best_trials(report.trials)
    assert {name: trial.number for name, trial in best.items()} == {NAMES[0]: 3, NAMES[1]: 1, NAMES[2]: 2, NAMES[4]: 5}
    assert actual_accuracies(best, on="test")[NAMES[0]] == 0.90


def test_of_equal_trials_the_earliest_counts():
    trials = (make_trial(4, "a", validation=0.5), make_trial(2, "a", validation=0.5))
    assert best_trials(trials)["a"].number == 2


def test_the_row_of_the_chosen_candidate_is_the_chosen_trial():
    first = make_trial(0, NAMES[1], validation=0.95, test=0.97)
    higher = make_trial(2, NAMES[1], validation=0.96, test=0.80)
    chosen = make_trial(5, NAMES[1], validation=0.95, test=0.91, method="finetune")
    best = replace(make_report().best, method="finetune", trial=5)
    report = make_report(trials=(first, higher, chosen, make_trial(6, NAMES[0], validation=0.9)), best=best)
    assert report.outcomes[0].trial == chosen
    label = label_of("finetune")
    marked = re.search(r'<tr class="top"><td class="n">1</td>.*?</tr>', html_page.html(report))[0]
    assert label in marked
    row = next(line for line in text_of(panel(report)).splitlines() if f"2 of 6  {NAMES[1]}" in line)
    assert label in row


def test_outcomes_rank_by_accuracy_and_remember_the_prediction():
    lines = make_report().outcomes
    assert [(line.candidate, line.actual_rank, line.predicted_rank, line.predicted_among_tuned) for line in lines] == [
        (NAMES[1], 1, 2, 2),
        (NAMES[0], 2, 1, 1),
        (NAMES[4], 3, 5, 4),
        (NAMES[2], 4, 3, 3),
    ]
    on_test = make_report(actual_on="test").outcomes
    assert [line.candidate for line in on_test] == [NAMES[1], NAMES[0], NAMES[2], NAMES[4]]


def test_equal_accuracies_share_a_rank_and_unranked_candidates_come_last_among_equals():
    trials = (make_trial(0, "stranger", validation=0.9), make_trial(1, NAMES[3], validation=0.9))
    lines = make_report(trials=trials).outcomes
    assert [(line.candidate, line.actual_rank, line.predicted_rank) for line in lines] == [
        (NAMES[3], 1, 4),
        ("stranger", 1, None),
    ]


def test_candidates_without_a_finished_trial_are_told_in_words():
    def told(*trials):
        return pruning_text(make_report(trials=trials))

    every = [make_trial(n, name, validation=0.5) for n, name in enumerate(NAMES)]
    assert pruning_text(make_report()) == (
        "2 candidates have no finished trial: what they would have reached is unknown."
    )
    assert told(*every[1:]) == "1 candidate has no finished trial: what it would have reached is unknown."
    assert told(*every) == "Every candidate has a finished trial."


def test_a_mixture_of_methods_is_told_in_words():
    told = mixed_text(make_report())
    assert told.startswith("Each candidate counts by its best trial: 1 of 4 by fine-tuning")
    assert told.replace("'", "&#39;") in html_page.html(make_report())
    probes = tuple(trial for trial in make_report().trials if trial.spec.method == "probe")
    assert mixed_text(make_report(trials=probes)) == ""
    assert mixed_text(make_report(trials=())) == ""


def test_the_chosen_model_is_the_marked_one_not_the_best_on_test():
    report = make_report(best=replace(make_report().best, candidate=NAMES[0]))
    assert report.outcomes[0].candidate == NAMES[1]
    marked = re.findall(
        r'<tr class="top"><td class="n">\d+</td><td class="n">[^<]*</td><td class="id">([^<]*)</td>',
        html_page.html(report),
    )
    assert marked == [NAMES[0]]


def test_saved_time_is_median_of_tuned_times_untried():
    report = make_report()  # tuned spend 10+13, 11, 12+16, 15 seconds; "Last" was never tried
    assert report.saved_seconds == pytest.approx((15 + 23) / 2)
    assert replace(report, trials=()).saved_seconds is None


def test_json_round_trip(tmp_path):
    report = make_report()
    path = save_json(report, tmp_path / "report")
    assert load(path) == load(tmp_path / "report") == load(tmp_path) == report
    assert find(tmp_path) == path
    assert json.loads(path.read_text("utf-8"))["schema"] == 1


def test_files_that_users_have_keep_their_words():
    data = json.loads(to_json(make_report(trials=(make_trial(0, NAMES[0], validation=0.5, origin="floor"),))))
    assert data["trials"][0]["origin"] == "floor"
    assert data["ranking"]["not_looked"] == {}


def test_json_has_no_nan():
    broken = replace(make_trial(0, "a"), validation=math.nan, curve=(math.nan, 0.5))
    text = to_json(make_report(trials=(broken,))).decode()
    assert "NaN" not in text
    back = decode(SearchReport, json.loads(text)).trials[0]
    assert back.validation is None
    assert math.isnan(back.curve[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "schema"),
        ('{"schema": 99}', "schema 1, but got 99"),
        ('{"schema": 1}', "SearchReport.created"),
    ],
)
def test_damaged_reports_are_refused(tmp_path, content, message):
    (tmp_path / "report.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        load(tmp_path)


def test_wrong_field_is_named(tmp_path):
    data = json.loads(to_json(make_report()))
    data["trials"][2]["state"] = "exploded"
    (tmp_path / "report.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(InputError, match=re.escape("SearchReport.trials[2].state")):
        load(tmp_path)


def test_a_folder_name_that_is_no_utf8_does_not_cost_the_report(tmp_path):
    html_page.write(make_report(command="vlmsel-auto search \udcff", workdir="\udcff"), tmp_path)
    assert load(tmp_path).workdir == "?"
    assert "vlmsel-auto search" in (tmp_path / "report.html").read_text("utf-8")


def test_no_report_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no report\.json here"):
        load(tmp_path)


def test_arrays_have_no_json_form():
    import numpy as np

    with pytest.raises(TypeError, match="ndarray"):
        encode({"a": np.zeros(2)})


def test_versions_name_what_decides_the_numbers():
    versions = package_versions()
    assert {"python", "torch", "open_clip_torch", "optuna", "lightning", "vlmsel-auto"} <= set(versions)
    assert versions["torch"][0].isdigit()


def test_page_is_well_formed_self_contained_and_escaped(page):
    parser = parsed(page)
    assert parser.tags.count("svg") == 3
    assert "script" not in parser.tags
    assert "img" not in parser.tags
    assert all(link.startswith("#") for link in parser.links)
    assert "url(http" not in page
    assert "@import" not in page
    assert "<b>odd" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "why &lt;failed&gt;" in page


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'xlink:href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted
    assert wanted <= set(ids)


@pytest.mark.parametrize(
    "expected",
    [
        "vlmsel-auto predict &#39;/out/my model&#39; IMAGE...",
        "too few to say",
        "0.87 (0.60 to 0.99)",
        "2.0 points",
        "average rank",
        "2 candidates have no finished trial",
        "1 file left out, 1 repaired or converted and used",
        "a/&lt;img src=x&gt;.png",
        "no weights",
        "Based on 24 source tasks.",
        "vlmsel-auto search digits --max-trials 7",
        "5 complete, 1 pruned, 1 failed",
        "the budget was spent",
        "formulas of this project's own",
    ],
)
def test_page_says(expected, page):
    assert expected in page


def test_a_tau_of_equal_figures_is_a_dash_with_its_reason():
    equal = agreement(np.arange(5.0), np.full(5, 0.8))
    report = make_report(agreement=equal, baselines=(Baseline(name="alike", agreement=equal, note="its own"),))
    rows = re.findall(r"<tr[^>]*><td class=\"id\">(?:this search|alike).*?</tr>", html_page.html(report))
    assert [row.count('<td class="n">-</td>') for row in rows] == [3, 3]
    assert "all 5 came out equal" in rows[0]
    assert "all 5 came out equal, so there is no order to predict" in text_of(panel(report))


def test_page_of_a_search_without_success():
    failed = (make_trial(0, NAMES[0], state="failed"),)
    nothing = Agreement(n=0, tau_b=None, weighted_tau=None, ndcg5=None, top1_loss=None, top5_loss=None)
    report = make_report(
        trials=failed, best=None, agreement=nothing, baselines=(), bad_files=(), stopped_by=StoppedBy.ALL_FAILED
    )
    page = html_page.html(report)
    parsed(page)
    assert "No trial succeeded" in page
    assert "Every file of the folder could be used." in page
    assert "No trial succeeded" in text_of(panel(report))


def test_without_a_finished_trial_nothing_is_said_to_have_failed():
    cut = make_report(trials=(make_trial(0, NAMES[0], state="pruned"),), best=None, stopped_by=StoppedBy.BUDGET)
    for shown in (html_page.html(cut), text_of(panel(cut))):
        assert "No trial was finished: the same command with more time goes on from here." in shown
        assert "trial failed" not in shown


def test_page_of_an_interrupted_search_with_nothing_at_all():
    report = make_report(
        trials=(),
        best=None,
        ranking=Ranking(task="t", ranked=()),
        candidates=(),
        stopped_by=StoppedBy.INTERRUPTED,
        stage_seconds={},
    )
    page = html_page.html(report)
    assert parsed(page).tags.count("svg") == 0
    assert "goes on" in page


def test_page_is_the_same_every_time(page):
    assert html_page.html(make_report()) == page


def test_many_bad_files_are_cut_in_the_page_but_not_in_the_record(tmp_path):
    files = tuple(BadFile(path=f"f{number}.png", reason="empty") for number in range(700))
    report = make_report(bad_files=files)
    page = html_page.html(report)
    assert "f499.png" in page
    assert "f500.png" not in page
    assert "and 200 more in report.json" in page
    assert len(load(save_json(report, tmp_path)).bad_files) == 700


def test_write_makes_both_files(tmp_path):
    path = html_page.write(make_report(), tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert path.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("width", [40, 60, 72, 80, 120])
def test_panel_says_what_matters_and_fits(width, tmp_path):
    text = text_of(panel(make_report(), report_dir=tmp_path, width=width), width)
    assert [figure for figure in ("95.0 %", "93.0 %", "85.0 %", "80.0 %") if figure not in text] == []
    assert width < 60 or "2 of 6" in text
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.replace("│", " ").split())
    assert "ConvNeXt-Mi-64.all-m" in flat
    assert "95.0 %" in flat
    assert "1 file," in flat
    assert " for this run; 7 trials took " in flat


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_about_the_best_model_go_on_below_themselves(width):
    score = FinalScore(metric=0.94, images=64, interval=Interval(low=0.85, high=0.975), calibration_error=0.031)
    report = make_report()
    best = replace(report.best, on_test=replace(score, calibration_floor=0.029), params=86_000_000)
    lines = text_of(panel(replace(report, best=best), width=width), width).splitlines()
    above = lines[2 : next(at for at, line in enumerate(lines) if " actual " in line)]
    assert {line[1:9] for line in above if line.strip("│ ")} == {"  Best  ", "  Use   ", " " * 8}


def test_an_ensemble_is_told_beside_the_best_model(tmp_path):
    mean = EnsembleModel(
        members=NAMES[:2],
        trials=(1, 0),
        weights=(0.6, 0.5),
        validation=0.875,
        validation_images=64,
        test=0.9375,
        model_dir=Path("/out/e"),
        on_test=FinalScore(metric=0.9375, images=64, interval=Interval(low=0.85, high=0.975), calibration_error=0.031),
        params=3_400_000,
    )
    report = replace(make_report(), ensemble=mean)
    exact = replace(mean, on_test=replace(mean.on_test, calibration_floor=0.0285))
    told = text_of(panel(replace(report, ensemble=exact), report_dir=tmp_path))
    assert "calibration error 3.1 % (exact probabilities: 2.9 %) on 64 test images" in told
    beside = "calibration error of the pool (exact probabilities: 2.9 %)</dt><dd>3.1 %</dd>"
    assert beside in html_page.html(replace(report, ensemble=exact))
    assert load(save_json(report, tmp_path)) == report
    said = text_of(panel(report, report_dir=tmp_path))
    assert "Pool  of 2 models: validation 87.5 % of 64 images, test 93.8 %; /out/e" in said
    assert "95 % interval 85.0 % to 97.5 %, calibration error 3.1 % on 64 test images; 3.4 million parameters" in said
    assert "calibration error of the pool</dt><dd>3.1 %" in html_page.html(report)
    assert "pool of 2, test</dt><dd>93.8 %" in html_page.html(report)
    assert "pool of" not in html_page.html(make_report())


@pytest.mark.parametrize(
    ("metric", "named"), [("macro_f1", "macro F1"), ("balanced_accuracy", "balanced accuracy"), ("accuracy", "")]
)
def test_the_metric_is_named(metric, named):
    report = make_report(task=replace(make_report().task, metric=metric))
    assert f"<dt>test {named or 'accuracy'}</dt>" in html_page.html(report)
    said = text_of(panel(report))
    assert ("test 91.0 % (" + named + ")" in said) if named else ("test 91.0 %" in said and "(accuracy)" not in said)


def test_terminal_is_safe_from_control_characters():
    evil = replace(make_report().task, name="x\x1b[2Jy")
    assert "\x1b" not in text_of(panel(make_report(task=evil)))


def test_the_budget_ends_after_what_earlier_runs_took():
    trials = (make_trial(0, NAMES[0], validation=0.9), make_trial(1, NAMES[1], validation=0.8))  # 10 and 11 seconds
    stages = {"start": 2.0, "images and ranking": 3.0, "trials": 11.5}
    report = make_report(trials=trials, budget=Budget(seconds=30.0), stage_seconds=stages)
    assert report.before_trials == 5.0
    assert report.budget_end == pytest.approx(30.0 + 21.0 - 11.5)
    assert make_report(trials=trials, budget=Budget(seconds=30.0)).budget_end == 30.0  # all in one run
    assert make_report(budget=Budget(trials=3)).budget_end is None


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (0.0004, "further labels can hardly gain anything"),
        (0.0005, "further labels can gain about 0.1 points"),
        (0.0213, "further labels can gain about 2.1 points"),
    ],
)
def test_what_labels_can_gain_is_never_told_as_nothing_that_counts(loss, said):
    assert gain_text(loss) == said


def test_answers_that_are_assured_stand_in_a_table():
    report = make_report()
    assert "answers" not in html_page.html(report)
    page = html_page.html(replace(report, best=replace(report.best, answers=LEVELS)))
    section = page[page.index('<section id="answers">') :]
    rows = re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", section[: section.index("</section>")])
    cells = {wanted: re.findall(r'<td class="n">([^<]*)</td>', row) for wanted, row in rows}
    assert cells["80 %"] == ["0.600", "70 %", "66 of 70"]
    assert cells["90 %"] == ["0.900", "30 %", "30 of 30"]
    assert cells["95 %"] == ["-", "-", "-"]
    assert "At most the held-out images assure 92.0 % (best model)." in section
    assert 'id="coverage-' in section
