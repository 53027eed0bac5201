"""Plots of a search and of its best model: pure functions, no file, no global state."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from vlmsel_auto.records import AnswerLevel, FloatArray, RankedCandidate, TrialOrigin, TrialResult
from vlmsel_auto.reporting import formatting
from vlmsel_auto.reporting.canvas import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    LABEL,
    RED,
    Drawing,
    canvas,
    keep_clear,
    percent,
    styled,
)
from vlmsel_auto.reporting.mistakes import Mistakes
from vlmsel_auto.reporting.report import TunedCandidate
from vlmsel_auto.reporting.tradeoff import Tradeoff

_COLOURS = {
    TrialOrigin.ZERO_SHOT: GREY,
    TrialOrigin.PLANNED: BLUE,
    TrialOrigin.SAMPLED: GREEN,
}
_MARKERS = {TrialOrigin.ZERO_SHOT: "D", TrialOrigin.PLANNED: "o", TrialOrigin.SAMPLED: "s"}
MOST_CLASSES: Final = 30  # of a readable confusion matrix
MOST_ROWS: Final = 40  # candidates or classes of a plot with a row each
_MOST_COUNTED: Final = 16  # classes of a matrix whose cells show their counts
_NAME: Final = 18  # letters of a class
_MOST_LABELS = 24
_MOST_UNUSED = 3.0  # times what trials took: the end of a longer budget would squeeze them into a corner


@styled
def rank_scatter(outcomes: Sequence[TunedCandidate]) -> Drawing:
    """Predicted against actual rank, the best in the upper left corner; on the dashed line the prediction was right."""
    known = [(one, float(one.predicted_among_tuned)) for one in outcomes if one.predicted_among_tuned is not None]
    figure, axes = canvas(
        name="ranks",
        title="Predicted against actual rank of the tuned candidates",
        height=min(7.2, max(3.6, 1.9 + 0.24 * len(known))),
    )
    last = max((max(predicted, one.actual_rank) for one, predicted in known), default=1.0)
    axes.plot([0.5, last + 0.5], [0.5, last + 0.5], linestyle=(0, (4, 3)), color=FAINT, linewidth=1.2, zorder=1)
    _scatter(axes, [(predicted, one.actual_rank, one.trial.origin) for one, predicted in known])
    axes.set_xlim(0.5, last + 0.5 + 0.45 * last)  # room for labels at the right
    axes.set_ylim(last + 0.6, 0.4)
    axes.set_xlabel("predicted rank among the tuned")
    axes.set_ylabel("actual rank")
    axes.set_xticks(_ticks(last))
    axes.set_yticks(_ticks(last))
    axes.grid(visible=True)
    _label(figure, axes, [(predicted, one.actual_rank, one.candidate) for one, predicted in known])
    return figure


@styled
def best_so_far(trials: Sequence[TrialResult], *, before: float = 0.0, budget_end: float | None = None) -> Drawing:
    """Validation of every complete trial by the time it ended, one after the other, and the best so far as a line.

    The first trial begins ``before`` seconds after the search; the time budget ends at ``budget_end`` seconds.
    """
    ends = [before + end for end in accumulate(trial.seconds for trial in trials)]
    known = [
        (end, trial.validation, trial.origin)
        for trial, end in zip(trials, ends, strict=True)
        if trial.state == "complete" and trial.validation is not None
    ]
    last = known[-1][0] if known else 0.0
    shown_end = budget_end if budget_end is not None and budget_end <= _MOST_UNUSED * last else None
    minutes = max(last, shown_end or 0.0) > 180.0  # noqa: PLR2004 - three minutes
    unit = 60.0 if minutes else 1.0
    figure, axes = canvas(name="time", title="Validation of the trials over time, and the best so far", height=3.4)
    if known:
        times = np.array([end / unit for end, _, _ in known])
        values = np.array([validation for _, validation, _ in known])
        best = np.maximum.accumulate(values)
        axes.step(times, best, where="post", color=INK, linewidth=1.4, zorder=1, label="best so far")
        _scatter(axes, [(end / unit, validation, origin) for end, validation, origin in known])
        if shown_end is not None:
            axes.axvline(shown_end / unit, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
            axes.annotate("end of the budget", (shown_end / unit, 0.02), xycoords=("data", "axes fraction"),
                          xytext=(-4.0, 0.0), textcoords="offset points", rotation=90, ha="right", va="bottom",
                          fontsize=LABEL)  # fmt: skip
        axes.set_xlim(0.0, 1.05 * max(float(times[-1]), (shown_end or 0.0) / unit) or 1.0)
        axes.set_ylim(*_span(values))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("minutes since the search began" if minutes else "seconds since the search began")
    axes.set_ylabel("validation")
    percent(axes.yaxis)
    axes.grid(visible=True)
    return figure


@styled
def accuracy_against_latency(models: Sequence[Tradeoff]) -> Drawing:
    """Accuracy against milliseconds an image, on a logarithmic axis; the line joins the models on the front."""
    figure, axes = canvas(name="tradeoff", title="Accuracy against milliseconds an image", height=4.2)
    kinds = ((False, GREY, "o", "another is as good and faster"), (True, BLUE, "D", "on the front"))
    for on_front, colour, marker, text in kinds:
        some = [each for each in models if each.on_front is on_front]
        axes.scatter([1e3 * each.latency for each in some], [each.accuracy for each in some], s=44, color=colour,
                     marker=marker, zorder=3, label=text)  # fmt: skip
    front = [each for each in models if each.on_front]
    axes.step([1e3 * each.latency for each in front], [each.accuracy for each in front], where="post", color=INK,
              linewidth=1.2, zorder=1)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the default writes powers as formulas
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(*_span(np.array([each.accuracy for each in models])))
    points = [(1e3 * each.latency, each.accuracy, each.name) for each in models]
    _label(figure, axes, points, beside_line=[each.on_front for each in models])
    axes.set_xlabel("milliseconds an image")
    axes.set_ylabel("accuracy")
    percent(axes.yaxis)
    axes.grid(visible=True)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@styled
def predicted_ranking(ranked: Sequence[RankedCandidate], *, tuned: Container[str]) -> Drawing:
    """Predicted score of each candidate, best on top, with a bar of two standard deviations to either side.

    ``tuned`` are the candidates that the search tuned.
    """
    shown = ranked[:MOST_ROWS]
    figure, axes = canvas(
        name="ranking",
        title="Predicted score of every candidate with its uncertainty",
        height=1.0 + 0.26 * max(len(shown), 3),
    )
    for done, colour, marker, text in ((True, BLUE, "o", "tuned"), (False, INK, "D", "not tuned")):
        picked = [row for row, line in enumerate(shown) if (line.candidate in tuned) is done]
        if picked:
            axes.errorbar(
                [shown[row].score for row in picked],
                picked,
                xerr=[2.0 * shown[row].sd for row in picked],
                fmt=marker,
                color=colour,
                markersize=5,
                elinewidth=1.2,
                markerfacecolor=colour if done else "none",
                label=text,
            )
    axes.set_yticks(range(len(shown)), [formatting.shorten(line.candidate, 34) for line in shown])
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlabel("predicted score, standard units within the task")
    axes.grid(visible=True, axis="x")
    if shown:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@styled
def confusion_matrix(found: Mistakes) -> Drawing:
    """Images of each class (rows) by the class they were taken for; a row's colours are shares of its class."""
    names = [one.name for one in found.classes]
    place = {name: number for number, name in enumerate(names)}
    cells = [(place[one.name], place[one.name], one.right) for one in found.classes if one.right]
    cells += [(place[one.true], place[one.predicted], one.images) for one in found.confusions]
    count = len(names)
    figure, axes = canvas(
        name="confusion",
        title="True classes against the classes that images were taken for",
        height=2.2 + max(1.2, 0.26 * count),
    )
    for row, column, images in cells:
        share = images / found.classes[row].images
        colour = BLUE if row == column else RED
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.15 + 0.6 * share, lw=0))
        if count <= _MOST_COUNTED:
            axes.text(column, row, str(images), ha="center", va="center", fontsize=LABEL)
    shown = [formatting.shorten(name, _NAME) for name in names]
    axes.set_xticks(range(count), shown, rotation=90 if count > 4 else 0)  # noqa: PLR2004 - they fit side by side
    axes.set_yticks(range(count), shown)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    return figure


@styled
def recall_by_class(found: Mistakes) -> Drawing:
    """Share of each class that was recognised, with its 95 % interval; the worst on top, and only those where many."""
    known = [one for one in found.classes if one.interval is not None]
    known.sort(key=lambda one: (one.right / one.images, one.name))
    known = known[:MOST_ROWS]
    figure, axes = canvas(
        name="recall",
        title="Share of each class that was recognised, with its interval",
        height=1.0 + 0.26 * max(3, len(known)),
    )
    for row, one in enumerate(known):
        assert one.interval is not None  # noqa: S101 - chosen above
        axes.plot([one.interval.low, one.interval.high], [row, row], color=INK, linewidth=1.2, zorder=2)
        axes.plot([one.right / one.images], [row], marker="o", color=BLUE, markersize=6, zorder=3, clip_on=False)
    names = [f"{formatting.shorten(one.name, _NAME)} ({one.right} of {one.images})" for one in known]
    axes.set_yticks(range(len(known)), names)
    axes.set_ylim(max(len(known), 1) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("recall")
    percent(axes.xaxis)
    axes.grid(visible=True, axis="x")
    return figure


@styled
def reliability(found: Mistakes) -> Drawing:
    """How often the classifier is right against how sure it is; on the dashed line its probabilities come true."""
    figure, axes = canvas(
        name="reliability", title="How often the classifier is right against how sure it is", height=3.8
    )
    axes.plot([0, 1], [0, 1], linestyle=(0, (4, 3)), color=FAINT, linewidth=1.2, zorder=1)
    bins = found.reliability
    sizes = [30 + 300 * one.images / found.images for one in bins]
    sure = [one.probability for one in bins]
    axes.scatter(sure, [one.right for one in bins], s=sizes, color=BLUE, alpha=0.7, zorder=3, clip_on=False, lw=0)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("share that is right")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.grid(visible=True)
    return figure


@styled
def coverage(answering: Mapping[str, Sequence[AnswerLevel]]) -> Drawing:
    """Accuracy on the images that get a class against their share, of each model; thin: what is assured of it."""
    figure, axes = canvas(name="coverage", title="Accuracy against the share of images that get a class", height=3.8)
    for (name, levels), colour in zip(answering.items(), (BLUE, GREEN), strict=False):
        shares = [level.coverage for level in levels]
        axes.plot(shares, [level.right / level.images for level in levels], color=colour, lw=1.8, label=name, zorder=3)
        axes.plot(shares, [level.at_least for level in levels], color=colour, lw=0.8, zorder=2)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(max(0.0, min(levels[-1].at_least for levels in answering.values()) - 0.1), 1.005)
    axes.set_xlabel("share of the images that get a class")
    axes.set_ylabel("accuracy on these")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.grid(visible=True)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[float, float, TrialOrigin]]) -> None:
    origins = {origin for _, _, origin in points}
    for origin in TrialOrigin:
        if origin in origins:
            xs, ys = zip(*((x, y) for x, y, each in points if each == origin), strict=True)
            axes.scatter(xs, ys, s=38, c=_COLOURS[origin], marker=_MARKERS[origin], label=origin.label, zorder=3,
                         linewidths=0, clip_on=False)  # fmt: skip  # clip_on: a point at 100 % is on the edge
    if len(origins) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)


def _ticks(last: float) -> list[int]:
    step = max(1, round(last / 10))
    return sorted({1, *range(max(1, step), int(last) + 1, step)})


def _span(values: FloatArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = max(0.08 * (high - low), 0.01)
    return max(0.0, low - margin), min(1.0, high + margin) + 0.002


def _label(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], *, beside_line: Sequence[bool] = ()
) -> None:
    """Write labels where they meet neither a point nor a label; those that fit nowhere are left out.

    Those ``beside_line`` try the upper left and the lower right first, where a line that climbs to the right is not.
    """
    figure.draw_without_rendering()  # constrained layout fixes the axes, so that data become pixels
    pixels = axes.transData.transform([(x, y) for x, y, _ in points]) if points else np.empty((0, 2))
    height, letter, gap = 1.15 * LABEL, 0.58 * LABEL, 6.0
    frame = axes.get_window_extent()
    taken = [(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in pixels]
    for index, (x, y) in enumerate(pixels[:_MOST_LABELS]):
        text = formatting.shorten(points[index][2], 26)
        wide = letter * len(text)
        places = [(gap, -height / 2), (gap, height / 3), (gap, -1.4 * height), (-gap - wide, -height / 2)]
        if beside_line and beside_line[index]:
            places = [(-gap / 2 - wide, height / 3), places[2], *places]
        for dx, dy in places:
            box = (x + dx, y + dy, x + dx + wide, y + dy + height)
            if box[0] < frame.x0 or box[2] > frame.x1 + 2 * gap or any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            note = axes.annotate(text, (points[index][0], points[index][1]), xytext=(dx, dy + height / 4),
                                 textcoords="offset points", fontsize=LABEL)  # fmt: skip
            keep_clear(note, number=index)
            note.set_in_layout(False)  # labels must not push the axes that they were placed on
            break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
