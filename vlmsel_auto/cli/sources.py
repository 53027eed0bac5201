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
            help="Published data sets (MNIST, 'Stanford Cars') or webdatasets (wds/vtab/dtd, hf-wds:ORG/NAME, a folder "
            "or tar file); default: the 18 of the DCD paper that have published accuracies.",
        ),
    ] = [],  # noqa: B006 - typer copies defaults
    images: Annotated[int, typer.Option(min=4, help="Images of each task.")] = 32,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep a few images of each of some source tasks, once; the same command goes on after a kill.

    With them a screening of a model also makes its conductance profiles on these tasks, where there is time.
    """
    with guarded(debug=debug, as_json=as_json) as answer:
        from vlmsel_auto.measuring.source_pack import PUBLISHED, fetch_pack, pack_dir, plan_pack
        from vlmsel_auto.reporting.formatting import plural
        from vlmsel_auto.units import byte_count

        plans = plan_pack(names or tuple(PUBLISHED), images=images)
        wanted = [one for one in plans if one.found is not None]
        most, archives = sum(one.most_bytes for one in wanted), sum(one.archive_bytes for one in wanted)
        say(
            f"{plural(len(plans), 'source task')} of {images} images: {sum(one.here for one in plans)} are here; of "
            f"{len(wanted)} at most {byte_count(most)} are read, of {byte_count(archives)}"
        )
        failures = {one.name: one.problem for one in plans if one.problem}
        if not plan:
            with make_sink(quiet=quiet) as sink:
                failures = fetch_pack(plans, sink=sink)
            say(f"{pack_dir()}: {plural(len(plans) - len(failures), 'source task')}")
        answer.json = {
            "folder": str(pack_dir()),
            "most_bytes": most,
            "archive_bytes": archives,
            "tasks": [
                {
                    "name": one.name,
                    "source": one.source,
                    "here": one.here or (not plan and one.name not in failures),
                    "most_bytes": one.most_bytes,
                    "archive_bytes": one.archive_bytes,
                    "problem": failures.get(one.name),
                }
                for one in plans
            ],
        }
        if len(failures) == len(plans):
            answer.code = EXIT_ALL_FAILED
            for name, reason in failures.items() if plan else ():
                say(f"{name}: {reason}")
