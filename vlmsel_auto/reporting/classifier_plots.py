"""Plots of one classifier: who is taken for whom, recall by class, and whether its probabilities come true."""

from __future__ import annotations

from typing import Final

from matplotlib.patches import Rectangle

from vlmsel_auto.reporting import formatting
from vlmsel_auto.reporting.canvas import BLUE, FAINT, INK, LABEL, RED, Drawing, canvas, percent, styled
from vlmsel_auto.reporting.mistakes import Mistakes

MOST_CLASSES: Final = 30  # of a readable confusion matrix
MOST_ROWS: Final = 40  # classes of a recall plot
_MOST_COUNTED: Final = 16  # classes of a matrix whose cells show their counts
_NAME: Final = 18  # letters


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
