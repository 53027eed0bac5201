"""What a notebook shows: tables, data frames, plots, and a search's screen in a kernel that really runs."""

import os
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from helpers.drawings import draw_task
from helpers.report_world import NAMES, make_ranking, make_report
from helpers.tracker_world import story
from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.events import Notice
from vlmsel_auto.pipeline.result import RankResult, SearchResult
from vlmsel_auto.records import StoppedBy
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.notebook import ranking_frame, trials_frame
from vlmsel_auto.reporting.progress import NotebookSink


class Cells(HTMLParser):
    """Texts of the cells of a table, by row."""

    def __init__(self):
        super().__init__()
        self.rows, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.cell = "" if tag in ("td", "th") else None

    def handle_data(self, data):
        if self.cell is not None:
            self.rows[-1].append(data)


def cells(html):
    parser = Cells()
    parser.feed(html)
    return parser.rows


@pytest.fixture
def result(tmp_path):
    report = make_report()
    html_page.write(report, tmp_path)
    return SearchResult(
        best=report.best, ensemble=None, trials=report.trials, ranking=RankResult.of(report.ranking),
        agreement=report.agreement, seconds=1.0, workdir=tmp_path, report_dir=tmp_path, stopped_by=StoppedBy.BUDGET,
    )  # fmt: skip


def test_a_ranking_is_a_table_and_still_a_ranking():
    ranking = make_ranking()
    shown = RankResult.of(ranking)
    assert shown.order == ranking.order
    assert shown.notes == ranking.notes
    html = shown._repr_html_()
    rows = cells(html)
    assert rows[0][:2] == ["candidate", "score"]  # the place has no title
    assert [row[1] for row in rows[1:]] == list(NAMES)
    assert "&lt;b&gt;odd&lt;/b&gt;" in html
    assert "not ranked: broken: no weights" in html


def test_a_long_ranking_is_cut():
    html = RankResult.of(make_ranking([f"m{number}" for number in range(50)]))._repr_html_()
    assert len(cells(html)) == 1 + 30
    assert "... and 20 more" in html


def test_a_result_is_a_table_of_trials(result):
    html = result._repr_html_()
    rows = cells(html)
    assert len(rows) == 1 + 7
    assert rows[2][:5] == ["1", NAMES[1], "linear probe", "complete", "95.0 %"]
    assert f"best: {NAMES[1]}, linear probe, validation 95.0 %, test 91.0 %" in html


def test_frames_hold_the_records(result):
    pytest.importorskip("pandas")
    trials = result.trials_frame()
    assert trials.index.tolist() == list(range(7))
    assert trials.loc[3, ["candidate", "method", "validation"]].tolist() == [NAMES[0], "finetune", 0.93]
    assert trials.loc[0, "setting_learning_rate"] == 1e-3
    ranking = result.ranking.frame()
    assert ranking["candidate"].tolist() == list(NAMES)
    assert ranking.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert ranking.loc[1, ["score", "rank_low", "signal_knn"]].tolist() == [1.5, 1.0, 0.5]


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for frame in (lambda: ranking_frame(make_ranking()), lambda: trials_frame([])):
        with pytest.raises(MissingDependency, match=r"pip install 'vlmsel-auto\[notebook\]'$"):
            frame()


def test_without_ipython_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(MissingDependency, match=r"screen needs: .*'vlmsel-auto\[notebook\]'$"):
        NotebookSink()


def test_plots_are_those_of_the_report(result):
    figure = result.plot("ranks")
    assert figure.axes[0].get_xlabel() == "predicted rank among the tuned"
    assert figure._repr_svg_().startswith("<svg ")
    for name in ("ranking", "time"):
        assert len(result.plot(name).axes) == 1
    with pytest.raises(InputError, match="plots ranking, ranks, time, but got 'confusion'"):
        result.plot("confusion")
    assert "matplotlib.pyplot" not in str(type(figure))


def test_importing_the_result_loads_neither_matplotlib_nor_pandas():
    script = "import sys, vlmsel_auto.pipeline.result; print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_screen_is_one_output_that_changes(tmp_path, monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Output:
        def update(self, html):
            shown.append(html._repr_mimebundle_([], [])["text/html"])

    monkeypatch.setattr(display, "display", lambda html, *, display_id: Output())
    clock = iter(range(1000))
    sink = NotebookSink(now=lambda: float(next(clock)))
    for event in (Notice(text="careful <b>", level="warning"), *story(tmp_path)):
        sink(event)
    assert len(shown) > 5
    assert shown[-1].startswith("<pre")
    assert "warning: careful &lt;b&gt;" in shown[-1]
    assert NAMES[1] in shown[-1]


@pytest.mark.slow  # a kernel starts, and searches
def test_a_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    draw_task(tmp_path / "photos")
    cells_ = [
        "import vlmsel_auto\nfrom vlmsel_auto import Budget, NotebookSink",
        "how = {'candidates': ['EffNet-Mi-64.all-m'], 'budget': Budget(trials=1), 'method': 'probe', 'learn': False}",
        "result = vlmsel_auto.search('photos', sink=NotebookSink(), **how)",
        "result",
        "result.ranking",
        "result.plot('confusion')",
        "result.trials_frame()",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells_])
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env={**os.environ, "PYTHONWARNINGS": "", "JUPYTER_PLATFORM_DIRS": "1"})
    outputs = [[each.get("data", {}) for each in cell.outputs] for cell in book.cells]
    (screen,) = [each for each in outputs[2] if "text/html" in each]  # libraries warn beside it
    assert "report: finished" in screen["text/html"]
    assert "EffNet-Mi-64.all-m" in outputs[3][0]["text/html"]
    assert "P(best)" in outputs[4][0]["text/html"]
    assert outputs[5][0]["image/svg+xml"].startswith("<svg ")
    assert "probe" in outputs[6][0]["text/html"]
