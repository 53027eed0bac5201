"""A probe as a trial, and as the head from which fine-tuning starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.models.classifier import class_logits
from vlmsel_auto.records import Candidate, Task, TrialSpec
from vlmsel_auto.trials.checkpoints import Checkpoint
from vlmsel_auto.trials.data import Measured, Splits, score
from vlmsel_auto.trials.probe import Deadline, EpochHook, Loader, features, fit_head
from vlmsel_auto.trials.space import default_point, space_for

__all__ = ["NOTHING", "Outcome", "head_start", "never", "probe_trial"]


def never(epoch: int, validation: float, loss: float) -> bool:  # noqa: ARG001 - the signature of a report
    """The report that prunes nothing."""
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What either method gives."""

    checkpoint: Checkpoint | None
    start: float | None
    validation: Measured | None
    test: float | None
    kept: int | None
    curve: tuple[float, ...]
    stopped: Literal["", "pruned", "deadline"]


NOTHING = Outcome(checkpoint=None, start=None, validation=None, test=None, kept=None, curve=(), stopped="deadline")


def probe_trial(
    spec: TrialSpec,
    *,
    task: Task,
    candidate: Candidate,
    load: Loader,
    store: Store,
    parts: Splits,
    hook: EpochHook,
    deadline: Deadline,
) -> Outcome:
    """Features from the cache, a head trained on them, and its test metric unless the hook ended it."""
    indices = np.concatenate([parts.train, parts.val, parts.test])
    found = features(candidate=candidate, task=task, load=load, store=store, indices=indices, deadline=deadline)
    train, val, test = torch.split(found.values, [len(parts.train), len(parts.val), len(parts.test)])
    late = False

    def stop(epoch: int, validation: float, loss: float) -> bool:
        nonlocal late
        late = deadline.passed()
        return hook(epoch, validation, loss) or late

    fitted = fit_head(
        train=train,
        train_labels=torch.from_numpy(task.labels[parts.train]),
        val=val,
        val_labels=task.labels[parts.val],
        text=found.text,
        scale=found.scale,
        spec=spec,
        metric=task.metric,
        hook=stop,
    )
    pruned = fitted.stopped and not late
    measured: float | None = None
    if len(test) and not pruned:
        logits = class_logits(test, head=fitted.weight, bias=fitted.bias, scale=found.scale)
        measured = score(task.metric, labels=task.labels[parts.test], predicted=logits.argmax(dim=1).numpy())
    return Outcome(
        checkpoint=Checkpoint(visual=None, weight=fitted.weight.numpy(), bias=fitted.bias.numpy(), scale=found.scale),
        start=fitted.start,
        validation=fitted.validation,
        test=measured,
        kept=fitted.kept,
        curve=fitted.curve,
        stopped="pruned" if pruned else "deadline" if fitted.stopped else "",
    )


def head_start(
    spec: TrialSpec,
    *,
    task: Task,
    candidate: Candidate,
    load: Loader,
    store: Store,
    parts: Splits,
    deadline: Deadline,
) -> tuple[Checkpoint, float]:
    """The head that fine-tuning starts from, and the zero-shot metric.

    First a probe, then the tower (Kumar et al., ICLR 2022: a head that does not fit yet would distort the features).
    """
    room = space_for("probe", candidate=candidate, train_images=len(parts.train))
    settings = room.spec(default_point(), candidate=spec.candidate, seed=spec.seed)
    if not spec.epochs:
        settings = replace(settings, epochs=0)
    probed = probe_trial(
        settings,
        task=task,
        candidate=candidate,
        load=load,
        store=store,
        parts=parts,
        hook=never,
        deadline=deadline,
    )
    assert probed.checkpoint is not None  # noqa: S101 - a probe that returns has a head
    assert probed.start is not None  # noqa: S101 - likewise
    return probed.checkpoint, probed.start
