"""``vlmsel-auto demo``: the main job offline, on handwritten digits, and a prediction for an image that nobody saw."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vlmsel_auto.cli.options import answering
from vlmsel_auto.cli.support import Answer, make_sink


@answering(resumes=True)
def demo(
    *,
    workdir: Annotated[Path, typer.Option(help="Folder of the demo's images, study, report and model.")] = Path("demo"),
    time_budget: Annotated[str, typer.Option(metavar="TIME", help="What the search may take: 90s, 2m.")] = "2m",
    answer: Answer,
) -> None:
    """The main job offline: handwritten digits as an image folder, the mini zoo, a real search, a prediction."""
    from vlmsel_auto.cli.answers import answer_search
    from vlmsel_auto.events import Notice
    from vlmsel_auto.process import collections_paused
    from vlmsel_auto.records import Budget
    from vlmsel_auto.units import parse_duration

    budget = Budget(seconds=parse_duration(time_budget))
    with make_sink(quiet=answer.quiet, budget=budget) as sink:
        since = time.monotonic()
        with collections_paused():  # these load torch, which the screen covers
            from vlmsel_auto.models.prediction import predict
            from vlmsel_auto.pipeline.search import search
            from vlmsel_auto.tasks.digits import write_digits

        digits = write_digits(workdir / "images")
        sink(Notice(text=f"wrote handwritten digits to {digits.task}"))
        # images of the shipped library's optical_digits would be these: that task was left out of it
        result = search(
            digits.task, candidates="mini-zoo", budget=budget, workdir=workdir / "search", learn=False, since=since,
            sink=sink,
        )  # fmt: skip
        if result.best is not None and result.best.model_dir is not None:
            found = predict(result.best.model_dir, digits.unseen)
            right = sum(said == true for said, true in zip(found.labels, digits.unseen_labels, strict=True))
            sink(Notice(text=f"digits in no split: {right} of {len(digits.unseen)} right"))
            first, label, probability = digits.unseen[0], found.labels[0], found.probabilities[0].max()
            command = f"vlmsel-auto predict {result.best.model_dir} {first}"
            sink(Notice(text=f"{first}: predicted {label!r} with probability {probability:.2f}; try: {command}"))
    answer_search(answer, result, to_stderr=answer.as_json)
