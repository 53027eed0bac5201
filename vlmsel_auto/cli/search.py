"""``vlmsel-auto search``: rank, tune, report, export."""

from __future__ import annotations

import typer

from vlmsel_auto.cli.options import Asked, Folder, answering, asking
from vlmsel_auto.cli.support import Answer, make_sink
from vlmsel_auto.pipeline.search import SearchRequest
from vlmsel_auto.pipeline.search import search as run_search

EPILOG = (
    "Without a budget the search ends when no trial promises enough for its time. The same command on the same work "
    "directory goes on where it was, also after a kill."
)


@asking(SearchRequest)
@answering(resumes=True)
def search(
    context: typer.Context,
    *,
    directory: Folder,
    asked: Asked,
    answer: Answer,
) -> None:
    """Rank the candidates on DIR, tune the promising ones, report, and export the best model."""
    from vlmsel_auto.cli.answers import answer_search, check_task

    given = asked.read()
    check_task(directory, given, exclude=[given[name] for name in ("workdir", "cache_dir") if given[name]])
    with make_sink(quiet=answer.quiet, budget=given["budget"]) as sink:
        result = run_search(directory, **given, since=context.obj, sink=sink)  # loads torch, which the screen covers
    answer_search(answer, result, to_stderr=answer.as_json)
