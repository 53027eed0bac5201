"""The zero-shot classifier of a candidate: class names in the task's templates, nothing trained.

Trial 0 of a search, its baseline: it costs the embeddings that every later trial of the candidate uses too, and from
then on there is a model to export.
"""

from __future__ import annotations

import torch

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.records import IntArray
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Measured, measure
from vlmsel_auto.tuning.work import Ending, MethodOutcome, Work


def run(work: Work) -> MethodOutcome:
    """Measure the text weights on all labelled images, or on the validation images that were given; and on the test.

    Raises:
        TrialUnavailable: the candidate has no text tower.
    """
    if not work.candidate.has_text:
        raise TrialUnavailable(f"A tower without texts has no zero-shot classifier, but got {work.candidate.id!r}")
    splits, labels = work.splits, work.task.labels
    found = work.features()
    bias = torch.zeros(len(found.text))

    def logits(rows: IntArray) -> torch.Tensor:
        return class_logits(found.of(rows), head=found.text, bias=bias, scale=found.scale)

    def measured(rows: IntArray) -> Measured:
        return measure(work.task.metric, logits=logits(rows), labels=torch.from_numpy(labels[rows]))

    validation = measured(splits.held_out)
    return MethodOutcome(
        checkpoint=Checkpoint(
            visual=None,
            weight=found.text.numpy(),
            bias=bias.numpy(),
            scale=found.scale,
            held_out_logits=logits(splits.held_out).numpy(),
            test_logits=logits(splits.test).numpy(),
        ),
        start=validation.metric,
        validation=validation,
        test=measured(splits.test).metric if len(splits.test) else None,
        kept=0,
        curve=(),
        ending=Ending.COMPLETE,
    )
