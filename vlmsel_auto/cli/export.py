"""The command ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmsel_auto.cli.options import answering
from vlmsel_auto.cli.support import Answer, make_sink, say

if TYPE_CHECKING:
    from vlmsel_auto.models.onnxfile import OnnxExport  # imports torch


@answering()
def export(
    *,
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="A model or ensemble folder that a search exported.")
    ],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Weights in half precision; says what that changes.")] = False,
    images: Annotated[
        list[Path],
        typer.Option(
            "--images",
            metavar="DIR",
            help="Images to compare file and model on; folders named as classes tell accuracy. May be repeated.",
        ),
    ] = [],  # noqa: B006 - typer copies defaults
    answer: Answer,
) -> None:
    """Write an exported model, or an ensemble, as one ONNX file and check the file against the model."""
    from vlmsel_auto.cli.answers import check_paths

    check_paths(images)
    from vlmsel_auto.models.onnxfile import export_onnx
    from vlmsel_auto.recordjson import encode

    with make_sink(quiet=answer.quiet) as sink:
        made = export_onnx(model_dir, onnx, half=half, images=images, sink=sink)
    answer.json = encode(made)
    for line in _lines(made, on_noise=not images):
        (say if answer.as_json else typer.echo)(line)


def _lines(made: OnnxExport, *, on_noise: bool) -> list[str]:
    """What was written, and how it differs from the model."""
    from vlmsel_auto.reporting.formatting import clean, plural
    from vlmsel_auto.units import byte_count, percent

    check = made.check
    weights = "half" if made.half else "single"
    images = f"{plural(check.images, 'image')}{' of noise' if on_noise else ''}"
    same, most = (
        f"{check.same_class:,} in the same class",
        f"probabilities differ by at most {check.largest_difference:.1e}",
    )
    lines = [
        f"{clean(str(made.file))}: {byte_count(made.bytes)}, weights in {weights} precision",
        f"beside the model on {images}: {same}, {most}",
    ]
    if check.labelled:
        model, file = (percent(right / check.labelled) for right in (check.model_right, check.file_right))
        lines.append(f"accuracy on {plural(check.labelled, 'labelled image')}: model {model}, file {file}")
    elif made.half:
        lines.append("give labelled images (--images DIR, folders named as classes) to know what accuracy loses")
    return lines
