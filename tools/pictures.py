"""Make the pictures of README and docs.

    python -m tools.pictures [WORKDIR]

Runs the demo in a temporary folder, or takes WORKDIR of an earlier demo, and writes docs/pictures/*. The
picture of the report needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from matplotlib.patches import FancyBboxPatch
from rich.console import Console
from selenium import webdriver

from vlmsel_auto.library.places import open_library
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.canvas import BLUE, FAINT, INK, Drawing, canvas, percent, styled
from vlmsel_auto.reporting.panel import panel
from vlmsel_auto.reporting.report import SearchReport, load

PLACE = Path(__file__).parents[1] / "docs" / "pictures"
_DEMO = ("vlmsel-auto", "demo", "--time-budget", "5m")
_PLOTS = ("ranking", "ranks", "time", "tradeoff", "reliability")  # of the report
_CANDIDATE, _TASKS = "ViT-Deep-8-48.glyph-m", 4
_HEIGHT = 1180  # pixels of the report that are shown
_STEPS = (
    "task\nfolder",
    "screening of\ncandidates",
    "ranking",
    "trials in\nthat order",
    "report,\nmodel",
    "better\nlibrary",
)


def run_demo(folder: Path) -> Path:
    """Run the demo in ``folder`` and return the search's work directory."""
    subprocess.run(_DEMO, cwd=folder, check=True, env={**os.environ, "VLMSEL_LIBRARY": str(folder / "library")})  # noqa: S603 - our own command
    return folder / "demo" / "search"


def terminal(report: SearchReport) -> str:
    """The panel that ends a search, as rich writes it, without its link to a font on the network."""
    console = Console(record=True, width=112, file=Path(os.devnull).open("w"))  # noqa: SIM115 - ends with the process
    console.print(f"$ {' '.join(_DEMO)}", style="dim")
    console.print(panel(report, report_dir=Path(report.workdir) / "report", width=112))
    text = console.export_svg(title="vlmsel-auto", unique_id="terminal")
    return re.sub(r"@font-face\s*{.*?}\s*", "", text, flags=re.DOTALL)


def page(report_html: Path) -> bytes:
    """The upper part of the report at 1280 pixels, as PNG."""
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.binary_location = shutil.which("chromium") or "chromium"
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        metrics = {"width": 1280, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(report_html.resolve().as_uri())
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 80})
        return base64.b64decode(taken["data"])
    finally:
        driver.quit()


@styled
def conductance() -> Drawing:
    """Share of the conductance of each visual block, of one candidate on some source tasks of the shipped library."""
    library = open_library(None)
    activity = library.activity[library.candidate_ids.index(_CANDIDATE)]
    figure, axes = canvas(name="conductance", title="Conductance of each block on four source tasks", height=3.4)
    chosen = range(0, len(library.tasks), max(1, len(library.tasks) // _TASKS))
    for index, marker in zip(list(chosen)[:_TASKS], "os^D", strict=True):
        share = activity[index] / activity[index].sum()
        axes.plot(range(1, len(share) + 1), share, marker=marker, label=library.task_names[index])
    axes.set_xlabel(f"visual block of {_CANDIDATE}, shallow to deep")
    axes.set_ylabel("share of the conductance")
    percent(axes.yaxis)
    axes.grid(visible=True)
    axes.legend()
    return figure


@styled
def loop() -> Drawing:
    """The stages of a search, and what comes back."""
    figure, axes = canvas(name="loop", title="From a task folder to a model, and back to the library", height=1.9)
    for place, text in enumerate(_STEPS):
        box = FancyBboxPatch(
            (place - 0.36, -0.3), 0.72, 0.6, boxstyle="round,pad=0.02", facecolor="none", edgecolor=BLUE
        )
        axes.add_patch(box)
        axes.text(place, 0.0, text, ha="center", va="center", fontsize=9)
        if place:
            axes.annotate(
                "", (place - 0.38, 0), (place - 0.62, 0), arrowprops={"arrowstyle": "->", "color": INK, "shrinkB": 0}
            )
    back = {"arrowstyle": "->", "color": FAINT, "connectionstyle": "arc3,rad=-0.25"}
    axes.annotate("", (1.0, -0.36), (5.0, -0.36), arrowprops=back)
    axes.text(3.0, -1.08, "source tasks of later searches", ha="center", va="center", fontsize=9)
    axes.set_xlim(-0.5, 5.5)
    axes.set_ylim(-1.25, 0.5)
    axes.axis("off")
    return figure


def write(workdir: Path) -> None:
    """Every picture, of the search in ``workdir``."""
    PLACE.mkdir(parents=True, exist_ok=True)
    report = load(workdir)
    (PLACE / "terminal.svg").write_text(terminal(report), encoding="utf-8")
    (PLACE / "report.webp").write_bytes(page(workdir / "report" / "report.html"))
    drawn = html_page.drawings(report)
    for name, draw in {**{name: drawn[name] for name in _PLOTS}, "conductance": conductance, "loop": loop}.items():
        (PLACE / f"{name}.svg").write_text(draw()._repr_svg_() + "\n", encoding="utf-8")
    for path in sorted(PLACE.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, nargs="?", metavar="WORKDIR")
    args = parser.parse_args()
    if args.workdir is not None:
        write(args.workdir)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            write(run_demo(Path(scratch)))


if __name__ == "__main__":
    main()
