"""The main job offline: handwritten digits as an image folder, the mini zoo, a real search, an unseen image."""

from __future__ import annotations

from pathlib import Path

from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.models.prediction import predict
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.search import search
from vlmsel_auto.records import Budget
from vlmsel_auto.tasks.digits import write_digits


def demo(*, workdir: Path, seconds: float, sink: Sink, since: float | None = None) -> SearchResult:
    """Write scikit-learn's digits to ``workdir/images``, search, and classify digits that no split holds.

    The images of the shipped library's `optical_digits` would be these, so that source task was left out of it. The
    demo does not add itself to the user's library. The same ``workdir`` resumes. ``seconds`` count from ``since``, a
    `time.monotonic`; None: from this call.
    """
    digits = write_digits(workdir / "images")
    sink(Notice(text=f"wrote handwritten digits to {digits.task}"))
    result = search(
        digits.task, candidates="mini-zoo", budget=Budget(seconds=seconds), workdir=workdir / "search", learn=False,
        since=since, sink=sink,
    )  # fmt: skip
    if result.best is not None and result.best.model_dir is not None:
        found = predict(result.best.model_dir, digits.unseen)
        right = sum(said == true for said, true in zip(found.labels, digits.unseen_labels, strict=True))
        sink(Notice(text=f"digits in no split: {right} of {len(digits.unseen)} right"))
        first, label, probability = digits.unseen[0], found.labels[0], found.probabilities[0].max()
        command = f"vlmsel-auto predict {result.best.model_dir} {first}"
        sink(Notice(text=f"{first}: predicted {label!r} with probability {probability:.2f}; try: {command}"))
    return result
