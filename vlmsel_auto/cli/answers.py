"""Results of the commands as tables for people; as JSON they have the fields of the records that Python gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from vlmsel_auto.cache import Json
from vlmsel_auto.cli.support import EXIT_ALL_FAILED, EXIT_INTERRUPTED, Answer
from vlmsel_auto.errors import InputError
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import BadFile, Ranking, StoppedBy
from vlmsel_auto.reporting.formatting import clean, plural
from vlmsel_auto.reporting.report import UNKNOWN
from vlmsel_auto.reporting.sentences import expected_text, gain_text, points_text
from vlmsel_auto.reporting.table import Column, ranking_columns, table
from vlmsel_auto.units import percent

if TYPE_CHECKING:
    from vlmsel_auto.models.prediction import Predictions  # imports torch
    from vlmsel_auto.pipeline.label import LabelResult  # likewise

_PIPE_WIDTH = 200  # columns when standard output is no terminal: nothing gets cut


def answer_search(answer: Answer, result: SearchResult, *, to_stderr: bool) -> None:
    """Show a search's summary, and leave its JSON and exit code."""
    from vlmsel_auto.reporting import panel
    from vlmsel_auto.reporting.report import load

    answer.json = encode(result)
    panel.show(load(result.report_dir), report_dir=result.report_dir, to_stderr=to_stderr)
    if result.stopped_by is StoppedBy.INTERRUPTED:
        answer.code = EXIT_INTERRUPTED
    elif result.best is None:
        answer.code = EXIT_ALL_FAILED


def predict_json(found: Predictions) -> Json:
    """``{"predictions": [{path, class, probability, probabilities, doubt}, ...]}`` in the order of the images."""
    return {
        "predictions": [
            {
                "path": str(path),
                "class": label,
                "probability": max(row),
                "probabilities": dict(zip(found.classes, row, strict=True)),
                "doubt": doubt,
            }
            for path, label, doubt, row in zip(
                found.paths, found.labels, found.doubts, found.probabilities.tolist(), strict=True
            )
        ]
    }


def check_paths(paths: Sequence[Path]) -> None:
    """Refuse a mistyped path before any model is loaded.

    Raises:
        InputError: one of the paths does not exist.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"an image to predict must be a file or a folder that exists, but got {str(path)!r}")


def check_task(directory: Path, given: Mapping[str, Any], *, exclude: Sequence[Path] = ()) -> None:
    """Refuse a task folder or a candidate's name that cannot be used, before seconds are spent on importing torch.

    ``given``: keywords of `rank`; ``exclude``: folders inside that are no part of the task.

    Raises:
        TaskError: no such folder, or of no known layout.
        CandidateError: an unknown name. Names that need a hub are left to the search.
    """
    from vlmsel_auto.models.candidates import resolve_usable
    from vlmsel_auto.tasks.imagefolder import scan_folder

    named = [name for name in given["candidates"] if name != "auto"]
    if named and not any("hf-hub:" in name for name in named):
        resolve_usable(named)
    scan_folder(directory, exclude=exclude, classes=given["classes"], unlabelled=given["unlabelled"])


def bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    """One line for each file that was left out or converted."""
    return [f"{'converted' if bad.used else 'left out'}: {clean(bad.path)}: {clean(bad.reason)}" for bad in bad_files]


def print_table(columns: Sequence[Column], *, notes: Sequence[str] = ()) -> None:
    """Print a table on standard output, with notes below."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    shown = table(columns, width=console.width)
    shown.header_style = "bold"
    console.print(shown)
    for note in notes:
        console.print(Text(clean(note)), style="dim")


def print_ranking(ranking: Ranking, *, top: int) -> None:
    """Print a ranking, its failures and notes on standard output."""
    columns = ranking_columns(ranking, top=top)
    hidden = len(ranking.ranked) - top
    more = [f"... and {plural(hidden, 'candidate')} more"] if hidden > 0 else []
    failures = [f"not ranked: {name}: {reason}" for name, reason in ranking.failures.items()]
    print_table(columns, notes=[*more, *failures, *ranking.notes])


def print_labelling(found: LabelResult, *, top: int = 5) -> None:
    """Print what to label next and who leads on standard output."""
    wanted, scores = found.to_label, found.scores
    leaders = list(scores.p_best)[:top]
    doubts = [UNKNOWN] if scores.accuracy[leaders[0]].is_unknown else []
    print_table(
        [
            Column("candidate", leaders, folds=True),
            Column("P(best)", [percent(scores.p_best[name]) for name in leaders], right=True),
            Column("accuracy", [expected_text(scores.accuracy[name]).removeprefix("accuracy ") for name in leaders]),
            Column("may cost", [points_text(scores.loss[name]) for name in leaders], right=True),
        ],
        notes=[f"zero-shot, by {plural(scores.known, 'label')}; {gain_text(scores.loss[leaders[0]])}", *doubts],
    )
    print_table(
        [
            Column("to label", [one.path for one in wanted], folds=True),
            Column("suggested", [f"{one.suggested} {percent(one.probability)}" for one in wanted]),
            Column("why", [one.why for one in wanted], folds=True),
        ],
        notes=[f"written to {found.path}"],
    )


def print_predictions(found: Predictions, *, top: int) -> None:
    """Print the most probable classes of each image on standard output."""
    columns = [Column("image", [str(path) for path in found.paths], folds=True)]
    order = (-found.probabilities).argsort(axis=1, kind="stable")
    for place, best in enumerate(order.T[:top], start=1):
        shares = found.probabilities[range(len(best)), best]
        cells = [
            "-" if label is None else f"{found.classes[index]} {percent(share)}"
            for label, index, share in zip(found.labels, best, shares, strict=True)
        ]
        columns.append(Column("class" if place == 1 else f"{place}.", cells))
    if any(found.doubts):
        columns.append(Column("doubt", list(found.doubts), folds=True))
    print_table(columns)
