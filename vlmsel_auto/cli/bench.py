"""``vlmsel-auto bench``: every ranking on every task of a library, or of 48 real models, that task left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlmsel_auto.cli.options import AsJson, Debug, Quiet, Seed
from vlmsel_auto.cli.support import guarded, make_sink, say
from vlmsel_auto.errors import InputError

if TYPE_CHECKING:
    from vlmsel_auto.bench.real_table import RealTable
    from vlmsel_auto.bench.table import BenchTable


def bench(
    *,
    library: Annotated[
        Path | None, typer.Option(help="File of a library; default: the shipped one, without your own searches.")
    ] = None,
    research: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Figures that only some rows need; default: the mini zoo's, where the repository is."
        ),
    ] = None,
    zoo: Annotated[
        Literal["library", "real"],
        typer.Option(
            help="library: the candidates and tasks of --library. real: 48 pretrained models on 18 data sets, from "
            "published figures; takes --output, --seed, --json and --quiet only."
        ),
    ] = "library",
    truth: Annotated[
        Literal["zeroshot", "tuned"] | None,
        typer.Option(help="Accuracy after tuning (default), or zero-shot accuracy on the test split."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Labels a class that rankings may look at (default 16); 0: none.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma list of rankings beside the average rank; default: all that the library has data for.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Also write bench.json, bench.md and bench.svg into this folder."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare all rankings on every task of a library, or of 48 real models, leaving that task out."""
    with guarded(debug=debug, as_json=as_json) as answer:
        table: BenchTable | RealTable
        if zoo == "real":
            from vlmsel_auto.bench.real import run_real_bench

            given = {"library": library, "research": research, "truth": truth, "shots": shots, "rows": rows}
            if wrong := [f"--{name}" for name, value in given.items() if value is not None]:
                raise InputError(f"--zoo real has figures and rows of its own, but got {', '.join(wrong)}")
            with make_sink(quiet=quiet) as sink:
                table = run_real_bench(seed=seed, sink=sink)
        else:
            from vlmsel_auto.bench.research import load, research_path
            from vlmsel_auto.bench.run import run_bench
            from vlmsel_auto.library.places import default_library, open_library

            if research is None and research_path().exists():
                research = research_path()
            with make_sink(quiet=quiet) as sink:
                table = run_bench(
                    default_library() if library is None else open_library(library),
                    truth="zero_shot" if truth == "zeroshot" else "tuned",
                    shots=16 if shots is None else shots,
                    seed=seed,
                    research=None if research is None else load(research),
                    rankings=None if rows is None else [name.strip() for name in rows.split(",") if name.strip()],
                    sink=sink,
                )
        text = table.to_json()
        answer.json = json.loads(text)
        if output is not None:
            from vlmsel_auto.cache import write_atomically

            write_atomically(output / "bench.json", (text + "\n").encode())
            write_atomically(output / "bench.md", table.to_markdown().encode())
            table.plot(output / "bench.svg")
            say(f"wrote bench.json, bench.md and bench.svg to {output}")
        if not as_json:
            typer.echo(table.to_markdown())
