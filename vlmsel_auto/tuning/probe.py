"""Linear probe on cached visual features: the text head, moved as far as the training images ask for.

Features are unit-norm embeddings, kept image by image (`models.embedding`), so the first probe of a
candidate pays for one pass over the images and every later one for a few small matrix products.

Training works on the change D of the head, W = W_text + D: weight decay pulls towards the zero-shot classifier, not
towards zero, so few images cannot do much harm (a simple form of the text-anchored probes of Silva-Rodriguez et al.,
CVPR 2024). Features are centred by their training mean while D is learned; afterwards the mean is folded into the bias,
exactly: <f - mu, w> + b = <f, w> + (b - <mu, w>).

Lightning is not used here: a probe is a second of plain tensor algebra, a trainer would cost more than the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.records import IntArray, Metric, TrialSpec
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Measured, measure, score
from vlmsel_auto.tuning.work import MAX_SCALE, SMOOTHING, Ending, EpochHook, Outcome, Work

_PROBE_BATCH = 1_024


def run(work: Work) -> Outcome:
    """Features from the cache, a head trained on them, and its test metric unless the hook ended it.

    Zero epochs measure the zero-shot head.
    """
    splits, labels = work.splits, work.task.labels
    found = features_of(work)
    train, val, test = torch.split(found.values, [len(splits.train), len(splits.val), len(splits.test)])
    late = False

    def stop(epoch: int, validation: float, loss: float) -> bool:
        nonlocal late
        late = work.deadline.passed()
        return work.hook(epoch, validation, loss) or late

    fitted = fit_head(
        train=train,
        train_labels=torch.from_numpy(labels[splits.train]),
        val=val,
        val_labels=labels[splits.val],
        text=found.text,
        scale=found.scale,
        spec=work.spec,
        metric=work.task.metric,
        hook=stop,
    )
    pruned = fitted.stopped and not late
    measured: float | None = None
    if len(test) and not pruned:
        logits = class_logits(test, head=fitted.weight, bias=fitted.bias, scale=found.scale)
        measured = score(work.task.metric, labels=labels[splits.test], predicted=logits.argmax(dim=1).numpy())
    return Outcome(
        checkpoint=Checkpoint(visual=None, weight=fitted.weight.numpy(), bias=fitted.bias.numpy(), scale=found.scale),
        start=fitted.start,
        validation=fitted.validation,
        test=measured,
        kept=fitted.kept,
        curve=fitted.curve,
        ending=Ending.PRUNED if pruned else Ending.DEADLINE if fitted.stopped else Ending.COMPLETE,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Unit-norm embeddings of images with what the zero-shot classifier of the same model is."""

    values: torch.Tensor  # (n, D) float32
    text: torch.Tensor  # (K, D) float32
    scale: float


def features_of(work: Work) -> Features:
    """Features of the training, validation and test images of a trial, in this order.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        DeadlineReached: the time ran out before they were complete.
    """
    splits = work.splits
    found = embed(
        work.candidate,
        work.task,
        np.concatenate([splits.train, splits.val, splits.test]),
        load=lambda: work.load(work.candidate),
        store=work.store,
        check=work.deadline.check,
    )
    return Features(
        values=functional.normalize(torch.tensor(found.images), dim=-1),
        text=torch.tensor(found.text),
        scale=min(found.logit_scale, MAX_SCALE),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A trained head and how it came about."""

    weight: torch.Tensor  # (K, D), for uncentred unit-norm features
    bias: torch.Tensor  # (K,)
    start: float  # validation metric of the zero-shot head
    validation: Measured  # of the kept epoch
    kept: int  # epoch that was kept; 0 is the start
    curve: tuple[float, ...]
    stopped: bool  # by the hook


def fit_head(
    *,
    train: torch.Tensor,
    train_labels: torch.Tensor,
    val: torch.Tensor,
    val_labels: IntArray,
    text: torch.Tensor,
    scale: float,
    spec: TrialSpec,
    metric: Metric,
    centre: bool = True,
    hook: EpochHook | None = None,
) -> Fitted:
    """Train the head by AdamW on its change, with a cosine schedule; keep the best epoch, the start included.

    Equal metrics are told apart by the validation loss.

    Args:
        train: unit-norm features (n, D).
        train_labels: int64 (n,).
        val: unit-norm features of the validation images.
        val_labels: their labels.
        text: class weights (K, D) to start from.
        scale: factor on the logits.
        spec: learning rate, weight decay, epochs and seed are used.
        metric: what the validation measures.
        centre: subtract the mean training feature while training.
        hook: called after every epoch; True ends the training.

    Raises:
        TrialDiverged: the loss became NaN or infinite.
    """
    mean = train.mean(dim=0) if centre else torch.zeros_like(train[0])
    centred, val_centred = train - mean, val - mean
    offset = scale * (text @ mean)  # so that the start is the zero-shot classifier although features are centred
    change = torch.zeros_like(text, requires_grad=True)
    bias = torch.zeros(len(text), requires_grad=True)
    val_target = torch.from_numpy(val_labels)

    def logits(values: torch.Tensor) -> torch.Tensor:
        return scale * (values @ (text + change).T) + offset + bias

    @torch.no_grad()
    def validate() -> Measured:
        return measure(metric, logits=logits(val_centred), labels=val_target)

    start = validate()
    best, kept, curve, stopped = start, 0, [], False
    best_state = (change.detach().clone(), bias.detach().clone())
    batch, rate = min(_PROBE_BATCH, len(train)), spec.settings["learning_rate"]
    steps = math.ceil(len(train) / batch)
    optimizer = torch.optim.AdamW(
        [
            {"params": [change], "weight_decay": spec.settings["weight_decay"]},
            {"params": [bias], "weight_decay": 0.0, "lr": rate * 10},  # logits, not cosines
        ],
        lr=rate,
    )
    total = max(1, spec.epochs * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / total))
    generator = torch.Generator().manual_seed(spec.seed)
    for epoch in range(1, spec.epochs + 1):
        order = torch.randperm(len(centred), generator=generator) if steps > 1 else torch.arange(len(centred))
        running = 0.0
        for rows in torch.split(order, batch):
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(logits(centred[rows]), train_labels[rows], label_smoothing=SMOOTHING)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()
            schedule.step()
            running += float(loss.detach()) * len(rows)
        mean_loss = running / len(centred)
        outcome = validate()
        if not math.isfinite(mean_loss) or not math.isfinite(outcome.loss):
            raise TrialDiverged(
                f"The loss of {spec.candidate} became {mean_loss} in epoch {epoch}: lower the learning rate, "
                f"but got {rate!r}"
            )
        curve.append(outcome.metric)
        if outcome.order > best.order:
            best, kept = outcome, epoch
            best_state = (change.detach().clone(), bias.detach().clone())
        if hook is not None and hook(epoch, outcome.metric, mean_loss):
            stopped = True
            break
    weight = text + best_state[0]
    return Fitted(
        weight=weight,
        bias=best_state[1] + offset - scale * (weight @ mean),
        start=start.metric,
        validation=best,
        kept=kept,
        curve=tuple(curve),
        stopped=stopped,
    )
