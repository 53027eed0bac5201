"""The panel that ends a search in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlmsel_auto.records import FinalScore, StoppedBy
from vlmsel_auto.reporting import formatting, sentences
from vlmsel_auto.reporting.report import UNCHECKED, UNKNOWN, SearchReport
from vlmsel_auto.reporting.table import Column, table
from vlmsel_auto.reporting.tradeoff import tradeoffs
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import metric_text, milliseconds, percent, share_interval

_PANEL_ROWS = 10
_PIPE_WIDTH = 120  # columns where there is no terminal
_FRAME = 6  # columns of the panel's border and padding
_WITH_METHOD, _WITH_PREDICTED = 66, 46  # columns from which the table has these


def _best_facts(report: SearchReport) -> list[tuple[str, Text]]:
    """The best model and the pool, each line with its label."""
    best = report.best
    if best is None:
        return [("Best", Text(sentences.without_best(report), style="bold red"))]
    metric = report.task.metric
    unit = "" if metric == "accuracy" else f" ({metric_text(metric)})"
    name = (formatting.clean(best.candidate), "bold green")
    reached = f"  {label_of(best.method)}, {_reached(best.validation, best.test)}{unit}"
    expected = best.expected
    facts = [("Best", Text.assemble(name, reached))]
    if expected is not None:
        facts.append(("", Text(sentences.expected_text(expected))))
        if expected.is_unknown:
            facts.insert(0, ("Warning", Text(UNKNOWN, style="bold red")))
    if best.on_test is not None:
        facts.append(("", Text(_on_test(best.on_test, params=best.params))))
    if best.model_dir is not None:
        facts.append(("Use", Text(formatting.clean(sentences.predict_command(report)))))
    mean = report.ensemble
    if mean is not None:
        count = formatting.plural(len(mean.members), "model")
        figures = _reached(mean.validation, mean.test, images=mean.validation_images)
        facts.append(("Pool", Text(f"of {count}: {figures}; {formatting.clean(str(mean.model_dir))}")))
        if mean.on_test is not None:
            facts.append(("", Text(_on_test(mean.on_test, params=mean.params))))
    return facts


def _reached(validation: float | None, test: float | None, *, images: int | None = None) -> str:
    """Figures on validation and test images, or that there are none."""
    if validation is None:
        return "no label checked it"
    of = "" if images is None else f" of {images} images"
    return f"validation {percent(validation)}{of}{'' if test is None else f', test {percent(test)}'}"


def _on_test(score: FinalScore, *, params: int | None) -> str:
    """How sure the figure is, how honest the probabilities are, and what a prediction costs."""
    between = "" if score.interval is None else f"95 % interval {share_interval(score.interval)}, "
    size = "" if params is None else f"; {params / 1e6:,.1f} million parameters"
    return f"{between}calibration error {sentences.calibration_text(score)} on {score.images} test images{size}"


def _prediction(report: SearchReport) -> str:
    figures = report.agreement
    if figures.tau_b is None and figures.ndcg5 is None:
        return figures.note or sentences.TOO_FEW
    mixed = sentences.mixed_text(report)
    return (
        f"tau-b {sentences.figure_text(figures, 'tau_b')}, NDCG@5 {sentences.figure_text(figures, 'ndcg5')}, "
        f"loss of top-1 {sentences.points_text(figures.top1_loss)}; n = {figures.n}{f'. {mixed}' if mixed else ''}"
    )


def _weighed(report: SearchReport) -> str:
    """The objective, and what it leaves of the best model's figure and of the largest one."""
    models = {each.name: each for each in tradeoffs(report)}
    chosen = None if report.best is None else models.get(report.best.candidate)
    if chosen is None:
        return str(report.objective)
    top = max(models.values(), key=lambda each: each.accuracy)
    text = f"{report.objective}: worth {percent(chosen.worth)} at {milliseconds(chosen.latency)} an image"
    if top is chosen:
        return text
    return (
        f"{text}; the most accurate, {formatting.clean(top.name)} with {percent(top.accuracy)} "
        f"({report.actual_on}) at {milliseconds(top.latency)}, is worth {percent(top.worth)}"
    )


def _outcome_table(report: SearchReport, *, width: int) -> Table:
    """The first tuned candidates in at most ``width`` columns: names are shortened, figures never cut."""
    total, chosen = len(report.ranking.ranked), None if report.best is None else report.best.candidate
    most = width - (47 if width >= _WITH_METHOD else 33 if width >= _WITH_PREDICTED else 20)  # what the others take
    lines = report.outcomes[:_PANEL_ROWS]
    names = [formatting.shorten(line.candidate, max(8, most)) for line in lines]
    places = ["-" if line.predicted_rank is None else f"{line.predicted_rank} of {total}" for line in lines]
    columns = [
        Column("actual", [str(line.actual_rank) for line in lines], right=True),
        Column("predicted", places, right=True, least=_WITH_PREDICTED),
        Column("candidate", names),
        Column("method", [label_of(line.trial.spec.method) for line in lines], least=_WITH_METHOD),
        Column(report.actual_on, [percent(line.accuracy) for line in lines], right=True),
    ]
    return table(columns, width=width, styles=["green" if line.candidate == chosen else "" for line in lines])


def _grid(facts: Sequence[tuple[str, Text]]) -> Table:
    """A label and a text a row; a text goes on below itself, not below its label."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in facts:
        grid.add_row(label, text)
    return grid


def panel(report: SearchReport, *, report_dir: Path | None = None, width: int = _PIPE_WIDTH) -> RenderableType:
    """The summary for a terminal of ``width`` columns."""
    tuned = len(report.outcomes)
    parts: list[RenderableType] = [_grid(_best_facts(report))]
    if tuned:
        parts += [Text(), _outcome_table(report, width=width - _FRAME)]
    if tuned > _PANEL_ROWS:
        parts.append(Text(f"... and {tuned - _PANEL_ROWS} more in the report", style="dim"))
    left_out = sum(not item.used for item in report.bad_files)
    trials = formatting.plural(len(report.trials), "trial")
    tuning = formatting.duration(sum(trial.seconds for trial in report.trials))
    now = formatting.duration(report.seconds)  # trials may be of earlier runs too
    took = f"{now} for this run; {trials} took {tuning} in all; {sentences.STOPPED[report.stopped_by]}"
    if report.stopped_by is StoppedBy.NO_LABELS:
        words = [("Words", formatting.quoted(chosen))] if (chosen := report.ranking.templates) else []
        facts = [("Labels", UNCHECKED), *words, ("Time", formatting.duration(report.seconds))]
    else:
        facts = [
            ("Prediction", _prediction(report)),
            ("Pruning", sentences.pruning_text(report)),
            ("Time", took),
            ("Saved", sentences.saved_text(report)),
        ]
    if report.objective:
        facts.append(("Objective", _weighed(report)))
    if left_out:
        facts.append(("Left out", f"{formatting.plural(left_out, 'file')}, listed in the report"))
    if report.label_issues is not None:
        facts.append(("Doubtful", report.label_issues.summary))
    if report_dir is not None:
        facts.append(("Report", formatting.clean(str(report_dir / "report.html"))))
    parts += [Text(), _grid([(label, Text(text)) for label, text in facts])]
    return Panel(
        Group(*parts), title=Text(f"Search on {formatting.clean(report.task.name)}"), title_align="left", padding=(1, 2)
    )


def show(report: SearchReport, *, report_dir: Path, to_stderr: bool) -> None:
    """Print the panel on standard output, or on standard error where that is kept for JSON."""
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(panel(report, report_dir=report_dir, width=console.width))
