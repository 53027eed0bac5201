"""The command ``predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.options import Device, answering
from vlmsel_auto.cli.support import Answer, make_sink, say

_SHOWN = 3  # classes of an image on the screen


@answering()
def predict(
    *,
    model_dir: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A model folder that a search exported.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    top: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="K", help="The K most probable classes; default: 3 on the screen, every class in a file."
        ),
    ] = None,
    accuracy: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Name classes only as far as held-out images assure this: 95%.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a row an image, while they are made: FILE.csv, FILE.parquet, or - for CSV on standard output. "
            "Nothing is kept in memory, so folders may be of any size.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: Device = "auto",
    answer: Answer,
) -> None:
    """Classify images with an exported model."""
    from vlmsel_auto.cli.answers import bad_file_lines, check_paths, predict_json, print_predictions
    from vlmsel_auto.cli.predictions import STDOUT, check_output, written
    from vlmsel_auto.errors import InputError
    from vlmsel_auto.process import collections_paused
    from vlmsel_auto.units import parse_share

    check_paths(images)
    wanted = None if accuracy is None else parse_share(accuracy)
    if output is not None:
        check_output(output)
    if output == STDOUT and answer.as_json:
        raise InputError("standard output takes --json or --output -, but got both")
    with collections_paused():
        from vlmsel_auto.models.device import pick_device
        from vlmsel_auto.models.prediction import collect, iter_predictions
    from vlmsel_auto.reporting.formatting import plural

    with make_sink(quiet=answer.quiet) as sink:
        found = iter_predictions(
            model_dir, images, accuracy=wanted, device=pick_device(device), batch_size=batch_size, sink=sink
        )
        if output is not None:
            found = written(found, output, top=top)
        if output is not None and not answer.as_json:
            count = Counter("left out" if each.probabilities is None else each.label is None for each in found)
            silent = "" if wanted is None else f"{plural(count[True], 'image')} without a class, "
            say(f"{plural(count[False], 'image')} classified, {silent}{plural(count['left out'], 'file')} left out")
            return
        gathered = collect(found)
    answer.json = predict_json(gathered)
    for line in bad_file_lines(gathered.bad_files):
        say(line)
    if not answer.as_json:
        print_predictions(gathered, top=top or _SHOWN)
