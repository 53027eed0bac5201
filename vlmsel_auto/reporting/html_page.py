"""A report for people: ``report.html`` in one self-contained file, and the plots in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.models.selective import WANTED, find_level
from vlmsel_auto.reporting import formatting, plots, sentences
from vlmsel_auto.reporting.canvas import Drawing
from vlmsel_auto.reporting.report import UNCHECKED, UNKNOWN, SearchReport, save_json
from vlmsel_auto.reporting.tradeoff import tradeoffs
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import byte_count, metric_text, milliseconds, percent, share_interval, thousands

_MOST_LISTED = 500  # bad files and the like in the page; all of them are in report.json


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
    if tuned:
        drawn["time"] = partial(plots.best_so_far, trials, before=report.before_trials, budget_end=report.budget_end)
    if ranked:
        drawn["ranking"] = partial(plots.predicted_ranking, ranked, tuned=tuned)
    if found is not None:
        drawn["recall"] = partial(plots.recall_by_class, found)
        drawn["reliability"] = partial(plots.reliability, found)
        if len(found.classes) <= plots.MOST_CLASSES:
            drawn["confusion"] = partial(plots.confusion_matrix, found)
    if report.answering:
        drawn["coverage"] = partial(plots.coverage, report.answering)
    return drawn


@cache
def _template() -> Template:
    """The page's template, which is read and compiled once."""
    environment = Environment(
        loader=PackageLoader("vlmsel_auto.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        share_interval=share_interval,
        number=formatting.number,
        duration=formatting.duration,
        milliseconds=milliseconds,
        thousands=thousands,
        bytes=byte_count,
        plural=formatting.plural,
        method=label_of,
        metric=metric_text,
        figure=sentences.figure_text,
        points=sentences.points_text,
        floor=sentences.floor_text,
        clean=formatting.clean,
        level=find_level,
        sparkline=lambda values: formatting.sparkline(values, width=24),
    )
    return environment.get_template("report.html.j2")


def html(report: SearchReport) -> str:
    """The page: no script, no external resource, every value escaped."""
    page = _template().render(
        report=report,
        say=sentences,
        # our own drawings: matplotlib escapes the texts in them
        plots={name: Markup(draw().svg()) for name, draw in drawings(report).items()},  # noqa: S704
        tuning=sum(trial.seconds for trial in report.trials),
        sizes={item.id: item for item in report.candidates},
        tradeoffs=tradeoffs(report),
        unchecked=UNCHECKED,
        unknown=UNKNOWN,
        counts=Counter(trial.state for trial in report.trials),
        most=_MOST_LISTED,
        most_recalls=plots.MOST_ROWS,
        wanted=WANTED,
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
