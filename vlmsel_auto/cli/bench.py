"""``vlmsel-auto bench``: every ranking on every task of a library, that task left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlmsel_auto.cli.options import AsJson, Debug, LibraryPath, Quiet, Seed
from vlmsel_auto.cli.support import guarded, make_sink, say


def bench(
    *,
    library: LibraryPath = None,
    research: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Figures that only some rows need; default: the mini zoo's, where the repository is."
        ),
    ] = None,
    truth: Annotated[
        Literal["zeroshot", "tuned"],
        typer.Option(help="Accuracy after tuning, or zero-shot accuracy on the test split."),
    ] = "tuned",
    shots: Annotated[int, typer.Option(min=0, help="Labels a class that rankings may look at; 0: none.")] = 16,
    rows: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Comma list of rankings; default: all that the library has data for."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write bench.json, bench.md and bench.svg into this folder.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare all rankings on every task of a library, leaving that task out."""
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.bench.research import load, research_path
        from vlmsel_auto.bench.run import run_bench
        from vlmsel_auto.cache import write_atomically
        from vlmsel_auto.library.places import open_library

        if research is None and research_path().exists():
            research = research_path()
        with make_sink(quiet=quiet) as sink:
            table = run_bench(
                open_library(library),
                truth="tuned" if truth == "tuned" else "zero_shot",
                shots=shots,
                seed=seed,
                research=None if research is None else load(research),
                rankings=None if rows is None else [name.strip() for name in rows.split(",") if name.strip()],
                sink=sink,
            )
        text = table.to_json()
        answer.json = json.loads(text)
        if output is not None:
            write_atomically(output / "bench.json", (text + "\n").encode())
            write_atomically(output / "bench.md", table.to_markdown().encode())
            table.plot(output / "bench.svg")
            say(f"wrote bench.json, bench.md and bench.svg to {output}")
        if not as_json:
            typer.echo(table.to_markdown())
