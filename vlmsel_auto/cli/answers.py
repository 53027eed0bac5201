"""Results of the commands: the JSON shapes that scripts rely on, and tables for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.errors import InputError
from vlmsel_auto.models import catalogue
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.records import BadFile, BestModel, Candidate, Ranking, TrialResult
from vlmsel_auto.reporting.formatting import clean, number, percent, plural, thousands

if TYPE_CHECKING:
    from vlmsel_auto.models.prediction import Predictions  # imports torch

_PIPE_WIDTH = 200  # columns when standard output is no terminal: nothing gets cut


def _fields(record: object, *names: str) -> dict[str, Json]:
    """Some fields of a record, which are plain values, by name."""
    return {name: getattr(record, name) for name in names}


def rank_json(ranking: Ranking, *, top: int) -> Json:
    """``{"ranking": [{candidate, score, prior, evidence, p_best, p_top5}, ...]}``, best first."""
    lines = ranking.ranked[:top]
    return {"ranking": [_fields(line, "candidate", "score", "prior", "evidence", "p_best", "p_top5") for line in lines]}


def _trial_json(trial: TrialResult) -> Json:
    return {
        "number": trial.number,
        **_fields(trial.spec, "candidate", "method"),
        **_fields(trial, "state", "origin", "validation", "test"),
        "epochs": trial.epochs_run,
        "seconds": trial.seconds,
        "settings": dict(trial.spec.settings),
        "reason": trial.reason,
    }


def _best_json(best: BestModel) -> Json:
    folder = None if best.model_dir is None else str(best.model_dir)
    return {**_fields(best, "candidate", "method", "validation", "test"), "model_dir": folder}


def search_json(result: SearchResult) -> Json:
    """``{"best", "trials", "agreement", "seconds", "report_dir"}``; ``best`` is null when no trial succeeded."""
    return {
        "best": None if result.best is None else _best_json(result.best),
        "trials": [_trial_json(trial) for trial in result.trials],
        "agreement": _fields(result.agreement, "tau_b", "weighted_tau", "ndcg5", "top1_loss", "n"),
        "seconds": result.seconds,
        "report_dir": str(result.report_dir),
    }


def predict_json(found: Predictions) -> Json:
    """``{"predictions": [{path, class, probability, probabilities}, ...]}`` in the order of the images."""
    lines: list[Json] = [
        {
            "path": str(path),
            "class": label,
            "probability": max(row),
            "probabilities": dict(zip(found.classes, row, strict=True)),
        }
        for path, label, row in zip(found.paths, found.labels, found.probabilities.tolist(), strict=True)
    ]
    return {"predictions": lines}


def zoo_json(candidates: Sequence[Candidate]) -> Json:
    """``{"candidates": [{id, source, family, params, flops, image_size}, ...]}``."""
    return {
        "candidates": [
            {**_fields(item, "id", "source", "family", "params", "flops"), "image_size": item.view.size}
            for item in candidates
        ]
    }


def catalogue_names() -> tuple[str, ...]:
    """Every ``ARCH/TAG`` of the open_clip catalogue that ships with the package, sorted; no network."""
    return tuple(sorted(f"{arch}/{tag}" for arch, tags in catalogue.tags().items() for tag in tags))


def check_paths(paths: Sequence[Path]) -> None:
    """Refuse a mistyped path before any model is loaded.

    Raises:
        InputError: one of the paths does not exist.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"an image to predict must be a file or a folder that exists, but got {str(path)!r}")


def check_task(directory: Path, candidates: Sequence[str], *, workdir: Path | None = None) -> None:
    """Refuse a task folder or a candidate's name that cannot be used, before seconds are spent on importing torch.

    Raises:
        TaskError: no such folder, or of no known layout.
        CandidateError: an unknown name. Names that need a hub or another file are left to the search.
    """
    from vlmsel_auto.models.candidates import resolve_usable
    from vlmsel_auto.tasks.imagefolder import scan_folder

    if not any("hf-hub:" in name or ".toml" in name for name in candidates):
        resolve_usable(candidates)
    scan_folder(directory, exclude=() if workdir is None else (workdir,))


def bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    """One line for each file that was left out or converted."""
    return [f"{'converted' if bad.used else 'left out'}: {clean(bad.path)}: {clean(bad.reason)}" for bad in bad_files]


def print_table(
    columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], *, notes: Sequence[str] = ()
) -> None:
    """Print a table on standard output: (title, right-aligned) columns, one text a cell, notes below."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, (title, right) in enumerate(columns):
        table.add_column(
            title, justify="right" if right else "left", no_wrap=True, ratio=None, min_width=8 * (index == 1)
        )
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console.print(table)
    for note in notes:
        console.print(Text(clean(note)), style="dim")


def print_ranking(ranking: Ranking, *, top: int) -> None:
    """Print a ranking, its failures and notes on standard output."""
    columns = [("", True), ("candidate", False), ("score", True), ("± sd", True), ("P(best)", True), ("P(top 5)", True),
               ("rank 95 %", True), ("basis", False)]  # fmt: skip
    rows = [
        (
            str(place),
            line.candidate,
            number(line.score),
            number(line.sd),
            percent(line.p_best, digits=0),
            percent(line.p_top5, digits=0),
            f"{number(line.rank_interval.low, digits=0)} to {number(line.rank_interval.high, digits=0)}",
            line.basis,
        )
        for place, line in enumerate(ranking.ranked[:top], start=1)
    ]
    failures = [f"not ranked: {name}: {reason}" for name, reason in ranking.failures.items()]
    hidden = len(ranking.ranked) - len(rows)
    more = [f"... and {plural(hidden, 'candidate')} more"] if hidden > 0 else []
    print_table(columns, rows, notes=[*more, *failures, *ranking.notes])


def print_zoo(candidates: Sequence[Candidate]) -> None:
    """Print candidates on standard output."""
    columns = [
        ("", True),
        ("candidate", False),
        ("parameters", True),
        ("FLOPs", True),
        ("image", True),
        ("family", False),
    ]
    rows = [
        (str(place), item.id, thousands(item.params), thousands(item.flops), str(item.view.size), item.family)
        for place, item in enumerate(candidates, start=1)
    ]
    note = "FLOPs: floating-point operations of one image through the visual tower, two a multiply-add"
    print_table(columns, rows, notes=[note] if rows else ["no candidate matches"])


def print_predictions(found: Predictions, *, top: int) -> None:
    """Print the most probable classes of each image on standard output."""
    shown = min(top, len(found.classes))
    columns = [
        ("", False),
        ("image", False),
        *((f"{place}." if place > 1 else "class", False) for place in range(1, shown + 1)),
    ]
    rows = []
    for path, row in zip(found.paths, found.probabilities.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda index: -row[index])[:shown]
        rows.append(("", str(path), *(f"{found.classes[index]} {percent(row[index])}" for index in order)))
    print_table(columns, rows)


def write_predictions(found: Predictions, path: Path) -> None:
    """Write ``path,class,probability`` and one column a class as CSV, in one step.

    Raises:
        InputError: the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "predicted", "probability", *found.classes])
    for image, row in zip(found.paths, found.probabilities.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        writer.writerow([str(image), found.classes[best], f"{row[best]:.6f}", *(f"{value:.6f}" for value in row)])
    try:
        write_atomically(path, stream.getvalue().encode(errors="replace"))  # file names need not be UTF-8
    except OSError as error:
        raise InputError(f"the predictions cannot be written here ({error.strerror}), but got {str(path)!r}") from error
