"""``vlmsel-auto library sources``: images of published data sets, so that loaded candidates can be profiled on them."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmsel_auto.cli.options import AsJson, Debug, Quiet
from vlmsel_auto.cli.support import EXIT_ALL_FAILED, guarded, make_sink, say


def sources(
    *,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAMES]...",
            help="Published data sets (MNIST, 'Stanford Cars'); default: the 18 of the DCD paper that have published "
            "accuracies.",
        ),
    ] = [],  # noqa: B006 - typer copies defaults
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep a few images of each of some public data sets, once; the same command goes on after a kill.

    With them a screening of a model also makes its conductance profiles on these tasks, where there is time.
    """
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.measuring.source_pack import (
            BYTES_PER_IMAGE,
            IMAGES,
            PUBLISHED,
            fetch_pack,
            missing,
            pack_dir,
        )
        from vlmsel_auto.reporting.formatting import plural
        from vlmsel_auto.units import byte_count

        wanted = tuple(dict.fromkeys(names or PUBLISHED))
        lacking = missing(wanted)
        most = byte_count(len(lacking) * IMAGES * BYTES_PER_IMAGE)
        say(f"{len(wanted) - len(lacking)} of {plural(len(wanted), 'source task')} are here; at most {most} are read")
        with make_sink(quiet=quiet) as sink:
            failures = fetch_pack(lacking, sink=sink)
        say(f"{pack_dir()}: {plural(len(wanted) - len(failures), 'source task')}")
        answer.json = {
            "folder": str(pack_dir()),
            "tasks": [{"name": name, "here": name not in failures, "problem": failures.get(name)} for name in wanted],
        }
        if len(failures) == len(wanted):
            answer.code = EXIT_ALL_FAILED
