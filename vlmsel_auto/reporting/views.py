"""A report for people: ``report.html`` in one self-contained file, and the panel that ends a search in the terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.records import FinalScore, Interval, StoppedBy
from vlmsel_auto.reporting import classifier_plots, formatting, plots
from vlmsel_auto.reporting.canvas import Drawing
from vlmsel_auto.reporting.report import UNCHECKED, SearchReport, save_json
from vlmsel_auto.reporting.table import Column, table
from vlmsel_auto.reporting.tradeoff import tradeoffs
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import milliseconds, thousands

_TOO_FEW = "too few to say"
_MOST_LISTED = 500  # bad files and the like in the page; all of them are in report.json
_PANEL_ROWS = 10
_PIPE_WIDTH = 120  # columns where there is no terminal
_FRAME = 6  # columns of the panel's border and padding
_WITH_METHOD, _WITH_PREDICTED = 66, 46  # columns from which the table has these
_STOPPED = {
    StoppedBy.EXHAUSTED: "no further trial promised enough for its time (--price)",
    StoppedBy.BUDGET: "the budget was spent",
    StoppedBy.INTERRUPTED: "it was interrupted; the same command with the same work directory goes on",
    StoppedBy.ALL_FAILED: "every trial failed",
    StoppedBy.NO_LABELS: "without labels nothing can be tuned or checked",
}


def _figure(value: float | None, bounds: Interval | None = None) -> str:
    """A figure of agreement with its interval, where it has one."""
    if value is None:
        return _TOO_FEW
    between = "" if bounds is None else formatting.interval(bounds.low, bounds.high)
    return f"{formatting.number(value)} ({between})" if between else formatting.number(value)


def _points(share: float | None) -> str:
    """A difference of accuracies in percentage points."""
    return _TOO_FEW if share is None else f"{100 * share:.1f} points"


def mixed_text(report: SearchReport) -> str:
    """That the actual order mixes methods, where it does; else empty."""
    methods = Counter(line.trial.spec.method for line in report.outcomes)
    if len(methods) <= 1:
        return ""
    total = sum(methods.values())
    (rarest, count), *others = reversed(methods.most_common())
    first = f"{count} of {total} by {label_of(rarest)}"
    rest = ", ".join(f"{count} by {label_of(method)}" for method, count in others)
    return (
        f"Each candidate counts by its best trial: {first}, {rest}, so part of the actual order is the method's doing."
    )


def pruning_text(report: SearchReport) -> str:
    """What postponing candidates cost, as far as audit trials can tell."""
    cost = report.pruning
    if cost.untouched == 0 and cost.audited == 0:
        return "Every candidate was tuned, so nothing can have been lost by postponing."
    if cost.audited == 0:
        return (
            f"No postponed candidate was audited, so what postponing cost is unknown; "
            f"{formatting.plural(cost.untouched, 'candidate')} stayed untuned."
        )
    audited = f"{formatting.plural(cost.audited, 'postponed candidate')} tuned as an audit"
    rest = f"{formatting.plural(cost.untouched, 'candidate')} stayed untuned."
    if cost.cost is None:
        return f"{audited}, but no planned trial used the same method: nothing to compare. {rest}"
    if cost.cost <= 0:
        return f"{audited}: none beat the best planned candidate of the same method ({report.actual_on}). {rest}"
    return (
        f"{audited}: {formatting.clean(cost.best_audit or '')} beat the best planned candidate of the same method "
        f"by {100 * cost.cost:.1f} points ({report.actual_on}); it could become the best model like any other. {rest}"
    )


def saved_text(report: SearchReport) -> str:
    """Time saved, with how it was estimated."""
    saved = report.saved_seconds
    if saved is None:
        return "unknown: no candidate was tuned"
    if saved <= 0:
        return "none: every candidate was tried"
    return f"about {formatting.duration(saved)} (the untried candidates at the median time of the tuned ones)"


def predict_command(report: SearchReport) -> str:
    """The command that classifies an image with the best model; empty when there is none."""
    if report.best is None or report.best.model_dir is None:
        return ""
    return f"vlmsel-auto predict {shlex.quote(str(report.best.model_dir))} IMAGE..."


def without_best(report: SearchReport) -> str:
    """Why there is no best model."""
    if any(trial.state == "failed" for trial in report.trials):
        return "No trial succeeded: the reasons are in the report."
    return "No trial was finished: the same command with more time goes on from here."


def drawings(report: SearchReport) -> dict[str, Callable[[], Drawing]]:
    """What draws each plot of a report, by name; a plot that would say nothing is left out."""
    outcomes, trials, ranked, found = report.outcomes, report.trials, report.ranking.ranked, report.mistakes
    tuned = {trial.spec.candidate for trial in trials if trial.state == "complete"}
    predicted = [line for line in outcomes if line.predicted_rank is not None]
    models = tradeoffs(report)
    drawn: dict[str, Callable[[], Drawing]] = {}
    if len(models) > 1:
        drawn["tradeoff"] = partial(plots.accuracy_against_latency, models)
    if predicted:
        drawn["ranks"] = partial(plots.rank_scatter, predicted)
    if any(one.trial.test is not None for one in predicted):
        drawn["splits"] = partial(plots.validation_against_test, predicted)
    if tuned:
        drawn["time"] = partial(plots.best_so_far, trials, before=report.before_trials, budget_end=report.budget_end)
    if ranked:
        drawn["ranking"] = partial(plots.predicted_ranking, ranked, tuned=tuned)
    if found is not None:
        drawn["recall"] = partial(classifier_plots.recall_by_class, found)
        drawn["reliability"] = partial(classifier_plots.reliability, found)
        if len(found.classes) <= classifier_plots.MOST_CLASSES:
            drawn["confusion"] = partial(classifier_plots.confusion_matrix, found)
    return drawn


def html(report: SearchReport) -> str:
    """The page: no script, no external resource, every value escaped."""
    environment = Environment(
        loader=PackageLoader("vlmsel_auto.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formatting.percent,
        number=formatting.number,
        duration=formatting.duration,
        milliseconds=milliseconds,
        thousands=thousands,
        plural=formatting.plural,
        method=label_of,
        metric=formatting.metric_text,
        figure=_figure,
        points=_points,
        clean=formatting.clean,
        sparkline=lambda values: formatting.sparkline(values, width=24),
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        mixed=mixed_text(report),
        pruning=pruning_text(report),
        saved=saved_text(report),
        stopped=_STOPPED[report.stopped_by],
        command=predict_command(report),
        without_best=without_best(report),
        # our own drawings: matplotlib escapes the texts in them
        plots={name: Markup(draw().svg()) for name, draw in drawings(report).items()},  # noqa: S704
        tuning=sum(trial.seconds for trial in report.trials),
        sizes={item.id: item for item in report.candidates},
        tradeoffs=tradeoffs(report),
        unchecked=UNCHECKED,
        counts=Counter(trial.state for trial in report.trials),
        most=_MOST_LISTED,
    )
    return page + "\n"


def write_html(report: SearchReport, directory: Path) -> Path:
    """Write ``report.html`` into ``directory`` in one step and return its path."""
    path = directory / "report.html"
    write_atomically(path, html(report).encode(errors="replace"))
    return path


def write(report: SearchReport, directory: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into ``directory``; return the path of the page."""
    save_json(report, directory)
    return write_html(report, directory)


def _best_lines(report: SearchReport) -> list[Text]:
    best = report.best
    if best is None:
        return [Text(without_best(report), style="bold red")]
    metric = report.task.metric
    unit = "" if metric == "accuracy" else f" ({formatting.metric_text(metric)})"
    lines = [
        Text.assemble(
            "Best  ",
            (formatting.clean(best.candidate), "bold green"),
            f"  {label_of(best.method)}, {_reached(best.validation, best.test)}{unit}",
        )
    ]
    if best.on_test is not None:
        lines.append(Text(f"      {_on_test(best.on_test, params=best.params)}"))
    if best.model_dir is not None:
        lines.append(Text(f"Use   {formatting.clean(predict_command(report))}"))
    mean = report.ensemble
    if mean is not None:
        count = formatting.plural(len(mean.members), "model")
        figures = _reached(mean.validation, mean.test, images=mean.validation_images)
        lines.append(Text(f"Pool  of {count}: {figures}; {formatting.clean(str(mean.model_dir))}"))
        if mean.on_test is not None:
            lines.append(Text(f"      {_on_test(mean.on_test, params=mean.params)}"))
    return lines


def _reached(validation: float | None, test: float | None, *, images: int | None = None) -> str:
    """Figures on validation and test images, or that there are none."""
    if validation is None:
        return "no label checked it"
    of = "" if images is None else f" of {images} images"
    return (
        f"validation {formatting.percent(validation)}{of}{'' if test is None else f', test {formatting.percent(test)}'}"
    )


def _on_test(score: FinalScore, *, params: int | None) -> str:
    """How sure the figure is, how honest the probabilities are, and what a prediction costs."""
    interval = score.interval
    between = (
        ""
        if interval is None
        else f"95 % interval {formatting.percent(interval.low)} to {formatting.percent(interval.high)}, "
    )
    size = "" if params is None else f"; {params / 1e6:,.1f} million parameters"
    return (
        f"{between}calibration error {formatting.percent(score.calibration_error)} on {score.images} test images{size}"
    )


def _prediction(report: SearchReport) -> str:
    figures = report.agreement
    if figures.tau_b is None and figures.ndcg5 is None:
        return figures.note or _TOO_FEW
    mixed = mixed_text(report)
    return (
        f"tau-b {_figure(figures.tau_b, figures.tau_b_interval)}, "
        f"NDCG@5 {_figure(figures.ndcg5, figures.ndcg5_interval)}, "
        f"loss of top-1 {_points(figures.top1_loss)}; n = {figures.n}{f'. {mixed}' if mixed else ''}"
    )


def _outcome_table(report: SearchReport, *, width: int) -> Table:
    """The first tuned candidates in at most ``width`` columns: names are shortened, figures never cut."""
    total, chosen = len(report.ranking.ranked), None if report.best is None else report.best.candidate
    most = width - (47 if width >= _WITH_METHOD else 33 if width >= _WITH_PREDICTED else 20)  # what the others take
    lines = report.outcomes[:_PANEL_ROWS]
    names = []
    for line in lines:
        audit = " (audit)" if line.trial.origin == "audit" else ""
        names.append(formatting.shorten(line.candidate, max(8, most - len(audit))) + audit)
    places = ["-" if line.predicted_rank is None else f"{line.predicted_rank} of {total}" for line in lines]
    columns = [
        Column("actual", [str(line.actual_rank) for line in lines], right=True),
        Column("predicted", places, right=True, least=_WITH_PREDICTED),
        Column("candidate", names),
        Column("method", [label_of(line.trial.spec.method) for line in lines], least=_WITH_METHOD),
        Column(report.actual_on, [formatting.percent(line.accuracy) for line in lines], right=True),
    ]
    return table(columns, width=width, styles=["green" if line.candidate == chosen else "" for line in lines])


def panel(report: SearchReport, *, report_dir: Path | None = None, width: int = _PIPE_WIDTH) -> RenderableType:
    """The summary for a terminal of ``width`` columns."""
    tuned = len(report.outcomes)
    parts: list[RenderableType] = [*_best_lines(report)]
    if tuned:
        parts += [Text(), _outcome_table(report, width=width - _FRAME)]
    if tuned > _PANEL_ROWS:
        parts.append(Text(f"... and {tuned - _PANEL_ROWS} more in the report", style="dim"))
    left_out = sum(not item.used for item in report.bad_files)
    trials = formatting.plural(len(report.trials), "trial")
    tuning = formatting.duration(sum(trial.seconds for trial in report.trials))
    if report.stopped_by is StoppedBy.NO_LABELS:
        facts = [("Labels", UNCHECKED), ("Time", formatting.duration(report.seconds))]
    else:
        facts = [
            ("Prediction", _prediction(report)),
            ("Pruning", pruning_text(report)),
            ("Time", f"{formatting.duration(report.seconds)}; {trials} took {tuning}; {_STOPPED[report.stopped_by]}"),
            ("Saved", saved_text(report)),
        ]
    if left_out:
        facts.append(("Left out", f"{formatting.plural(left_out, 'file')}, listed in the report"))
    if report_dir is not None:
        facts.append(("Report", formatting.clean(str(report_dir / "report.html"))))
    grid = Table.grid(padding=(0, 2))
    for label, text in facts:
        grid.add_row(Text(label, style="dim"), Text(text, overflow="fold"))
    parts += [Text(), grid]
    return Panel(
        Group(*parts), title=Text(f"Search on {formatting.clean(report.task.name)}"), title_align="left", padding=(1, 2)
    )


def show(report: SearchReport, *, report_dir: Path, to_stderr: bool) -> None:
    """Print the panel on standard output, or on standard error where that is kept for JSON."""
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(panel(report, report_dir=report_dir, width=console.width))
