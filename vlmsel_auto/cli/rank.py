"""``vlmsel-auto rank``: the ranking alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from vlmsel_auto.cli.options import Asked, Folder, answering, asking
from vlmsel_auto.cli.support import Answer, make_sink
from vlmsel_auto.pipeline.request import TaskRequest


@asking(TaskRequest)
@answering(resumes=True)
def rank(
    *,
    directory: Folder,
    asked: Asked,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Show the best N only; 0: all.")] = 0,
    truth: Annotated[
        Literal["zeroshot", "tuned"] | None,
        typer.Option(
            help="What to predict: accuracy once tuned, for images without labels too, or zero-shot accuracy. "
            "Default: tuned where there are labels, else zeroshot."
        ),
    ] = None,
    answer: Answer,
) -> None:
    """Predict how the candidates will rank on DIR once tuned, or zero-shot; nothing is trained."""
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.cli.answers import check_task, print_ranking
    from vlmsel_auto.process import collections_paused
    from vlmsel_auto.recordjson import encode

    given = asked.read()
    check_task(directory, given, exclude=(given["cache_dir"] or default_cache_dir(),))
    with collections_paused():
        from vlmsel_auto.pipeline.rank import rank as run_rank

    with make_sink(quiet=answer.quiet) as sink:
        predicted: Literal["zero_shot", "tuned"] | None = "zero_shot" if truth == "zeroshot" else truth
        ranking = run_rank(directory, **given, truth=predicted, sink=sink)
    shown = top or len(ranking.ranked)
    answer.json = encode(replace(ranking, ranked=ranking.ranked[:shown]))
    if not answer.as_json:
        print_ranking(ranking, top=shown)
