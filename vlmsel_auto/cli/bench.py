"""``vlmsel-auto bench``: the ranking and what to beat on every task of a library, that task left out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlmsel_auto.cli.options import Seed, answering
from vlmsel_auto.cli.support import Answer, make_sink


@answering()
def bench(
    *,
    library: Annotated[
        Path | None, typer.Option(help="File of a library; default: the shipped one, without your own searches.")
    ] = None,
    truth: Annotated[
        Literal["zeroshot", "tuned"], typer.Option(help="Zero-shot accuracy on the test split, or that after tuning.")
    ] = "tuned",
    shots: Annotated[int, typer.Option(min=0, help="Labels a class that rankings may look at; 0: none.")] = 16,
    seed: Seed = 0,
    answer: Answer,
) -> None:
    """Compare the ranking with chance, average rank, DCD, k-NN and ceilings on every task of a library, left out."""
    from vlmsel_auto.bench.run import run_bench
    from vlmsel_auto.library.places import default_library, open_library

    with make_sink(quiet=answer.quiet) as sink:
        table = run_bench(
            default_library() if library is None else open_library(library),
            truth="zero_shot" if truth == "zeroshot" else "tuned",
            shots=shots,
            seed=seed,
            sink=sink,
        )
    answer.json = table.record()
    if not answer.as_json:
        typer.echo(table.to_markdown())
