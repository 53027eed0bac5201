"""The zero-shot classifier of a candidate: class names in the task's templates, nothing trained.

Trial 0 of a search, and its floor: it costs the embeddings that every later trial of the candidate uses too, and from
then on there is a model to export.
"""

from __future__ import annotations

import torch

from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Measured, measure
from vlmsel_auto.tuning.probe import features_of
from vlmsel_auto.tuning.work import Ending, Outcome, Work


def run(work: Work) -> Outcome:
    """Measure the text weights on the validation and test images."""
    splits, labels = work.splits, work.task.labels
    found = features_of(work)
    _, val, test = torch.split(found.values, [len(splits.train), len(splits.val), len(splits.test)])
    bias = torch.zeros(len(found.text))

    def measured(values: torch.Tensor, known: torch.Tensor) -> Measured:
        logits = class_logits(values, head=found.text, bias=bias, scale=found.scale)
        return measure(work.task.metric, logits=logits, labels=known)

    validation = measured(val, torch.from_numpy(labels[splits.val]))
    return Outcome(
        checkpoint=Checkpoint(visual=None, weight=found.text.numpy(), bias=bias.numpy(), scale=found.scale),
        start=validation.metric,
        validation=validation,
        test=measured(test, torch.from_numpy(labels[splits.test])).metric if len(test) else None,
        kept=0,
        curve=(),
        ending=Ending.COMPLETE,
    )
