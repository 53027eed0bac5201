"""A method that the table does not have: the class means as head. A module with ``run``, as every method is."""

import torch

from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.space import Range
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import measure
from vlmsel_auto.tuning.work import Ending, MethodOutcome, Work

ROW = Method(
    name="nearest_mean",
    label="nearest class mean",
    module=__name__,
    trains=Trains.HEAD,
    ranges=lambda *_: {"shrinkage": Range(low=0.0, high=1.0)},
    settings=("shrinkage",),
)


def run(work: Work) -> MethodOutcome:
    splits, labels = work.splits, torch.from_numpy(work.task.labels)
    found = work.features()
    train, val, test = (found.of(rows) for rows in (splits.train, splits.val, splits.test))
    known = labels[splits.train]
    means = torch.stack([train[known == each].mean(dim=0) for each in range(len(found.text))])
    shrinkage = work.spec.settings["shrinkage"]
    head = torch.nn.functional.normalize((1 - shrinkage) * means + shrinkage * found.text, dim=-1)
    bias = torch.zeros(len(head))

    def measured(values, indices):
        logits = class_logits(values, head=head, bias=bias, scale=found.scale)
        return measure(work.task.metric, logits=logits, labels=labels[indices])

    return MethodOutcome(
        checkpoint=Checkpoint(visual=None, weight=head.numpy(), bias=bias.numpy(), scale=found.scale),
        start=None,
        validation=measured(val, splits.val),
        test=measured(test, splits.test).metric,
        kept=1,
        curve=(),
        ending=Ending.COMPLETE,
    )
