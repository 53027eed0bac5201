"""What every plot of the report stands on: style, canvas, and the way from a figure to SVG.

Colours are the colour-blind safe set of Okabe and Ito, and shape says the same as colour. Ink and rules become CSS
variables in the SVG, so that an inlined plot follows the page's light or dark scheme; elsewhere their fallbacks show.
"""

from __future__ import annotations

import io
import re
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

INK, FAINT = "#1b1f24", "#b9c0c8"  # no plot uses them for anything else
BLUE, GREEN, RED, GREY = "#0072b2", "#009e73", "#d55e00", "#7f7f7f"
_VARIABLES = {INK: f"var(--ink, {INK})", FAINT: f"var(--rule, {FAINT})"}
FONT, LABEL = 10.0, 8.5  # points
_STYLE: dict[Any, object] = {  # matplotlib's stubs want a literal of all its keys
    "text.parse_math": False,  # a dollar in a model's or a class's name is a dollar
    "svg.fonttype": "none",  # text stays text: small, searchable, read by screen readers
    "font.family": "sans-serif",
    "font.size": FONT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "path.simplify": True,
}
styled = mpl.rc_context(_STYLE)  # decorates whatever draws
_HALO: Final = "paint-order:stroke;stroke:var(--page, #ffffff);stroke-width:3px"  # the ground, behind the letters
_FINE: Final = 0.05  # span of a share below which ticks need a decimal


class Drawing(Figure):
    """A transparent matplotlib figure with a name; notebooks show it without pyplot."""

    def __init__(self, *, name: str, title: str, width: float, height: float) -> None:
        """Inches; ``name`` tells its ids from those of others, ``title`` says what it shows to who does not see it."""
        super().__init__(figsize=(width, height), dpi=72.0, layout="constrained")  # a pixel is a point, as in the SVG
        self.patch.set_alpha(0.0)
        self.name = name
        self.title = title

    def _repr_svg_(self) -> str:
        """IPython's question. The ground is white: ink and rules are those of a light page."""
        self.patch.set(facecolor="white", alpha=1.0)
        return self.svg()

    @styled
    def svg(self) -> str:
        """An SVG element that can be inlined beside others: own ids, a title, no XML prologue."""
        stream = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": self.name}):
            self.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'<g id="label-\d+">', f'<g style="{_HALO}">', text)
        text = re.sub(r'<g id="[a-zA-Z0-9]+_\d+">', "<g>", text)  # matplotlib counts from 1 in every figure
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{self.name}-", text)
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, variable)
        head = f'<svg role="img" aria-label="{self.title}" '
        text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
        return text.replace("<svg ", head, 1).strip()


def keep_clear(text: Text, *, number: int) -> None:
    """Put the page's ground behind a label, so that no line strikes it through; it stays text.

    ``number`` tells it from other labels of its plot. Matplotlib's own strokes would turn letters into outlines.
    """
    text.set_gid(f"label-{number}")


def canvas(*, name: str, title: str, height: float) -> tuple[Drawing, Axes]:
    """A drawing of this height in inches, and its axes."""
    figure = Drawing(name=name, title=title, width=6.4, height=height)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    return figure, axes


def percent(axis: Axis) -> None:
    """Write an axis of shares in per cent."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=1 if high - low < _FINE else 0, symbol=" %"))
