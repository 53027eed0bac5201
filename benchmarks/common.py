"""What scripts share: their command line, folders of tasks, tables, and differences between two rows of a table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlmsel_auto.ranking.agreement import mean_interval
from vlmsel_auto.records import FloatArray


def command_line(about: str | None, *, write: bool = True, quick: str | None = None) -> argparse.ArgumentParser:
    """A script's options begin with these.

    Args:
        about: its docstring.
        write: it writes its figures as JSON where that is asked for.
        quick: what its short form leaves; None: it has none.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if write:
        parser.add_argument("--write", type=Path, metavar="FILE", help="JSON")
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def write_json(path: Path | None, content: object) -> None:
    """Write figures where a file is wanted."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def folders(root: Path, *, only: str = "", quick: bool = False) -> list[Path]:
    """Task folders by name: those of a comma list, or all; the first alone where it is to be quick."""
    names = set(only.split(",")) - {""}
    found = sorted(each for each in root.iterdir() if each.is_dir() and (not names or each.name in names))
    return found[:1] if quick else found


def print_head(*names: object) -> None:
    """Begin a table in Markdown."""
    print_row(*names)
    print("|" + "---|" * len(names))


def print_row(*cells: object) -> None:
    """One line of it."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def change(gaps: FloatArray, *, digits: int) -> list[float]:
    """Mean of the differences (tasks,) and its 95 % interval: [mean, low, high], rounded."""
    over = mean_interval(gaps, seed=0)
    return [round(float(each), digits) for each in (gaps.mean(), over.low, over.high)]


def told_change(gaps: FloatArray, *, digits: int) -> str:
    """The same as a cell of a table."""
    mean, low, high = (f"{each:+.{digits}f}" for each in change(gaps, digits=digits))
    return f"{mean} [{low}, {high}]"


def by_target(gaps: Iterable[tuple[str, float]]) -> FloatArray:
    """Mean difference (targets,) of each target over its cases."""
    found: dict[str, list[float]] = {}
    for target, gap in gaps:
        found.setdefault(target, []).append(gap)
    return np.array([np.mean(each) for each in found.values()])


def standard_error(gaps: FloatArray) -> float:
    """Of the mean of differences (targets,); NaN where there is one."""
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
