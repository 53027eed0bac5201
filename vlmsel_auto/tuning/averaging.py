"""One tower from several fits: the mean of their weights.

Fits that begin at the same tower and head and differ in their seeds end so close to each other that the mean of their
weights is about as good as the mean of their predictions, at the cost of one model (Wortsman et al., ICML 2022,
"Model soups", uniform soup). docs/tuning.md says what that gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Batches, ImageSet, image_set, measure, score
from vlmsel_auto.tuning.work import Outcome, Work

MOST_FITS: Final = 4
_GAIN: Final = 0.009  # of the metric, that the mean of very many fits is better than one (benchmarks/averaged_fits.py)
_BATCH: Final = 64


def worth_another(fits: int, *, seconds: float, price: float) -> bool:
    """Whether one more fit promises what its time costs: the mean of n fits is better than one by a share 1 - 1 / n.

    Args:
        fits: that there are; at least 1.
        seconds: that one takes.
        price: of the metric for each minute; at least 0.
    """
    return fits < MOST_FITS and _GAIN * (1 / fits - 1 / (fits + 1)) > price * seconds / 60


def average(fits: Sequence[Checkpoint]) -> Checkpoint:
    """Mean weights of towers and heads; what counts in whole numbers is that of the first. No logits.

    Raises:
        ValueError: no fit, or one without a tower.
    """
    towers = [each.visual for each in fits if each.visual is not None]
    if not towers or len(towers) != len(fits):
        raise ValueError(f"fits of a tower are needed, but got {len(towers)} towers of {len(fits)} fits")
    first = fits[0]
    return replace(
        first,
        visual={name: _mean([each[name] for each in towers]) for name in towers[0]},
        # the logits are scale * ... + bias: the mean of both sides, at the first one's scale
        weight=np.mean([each.weight * np.float32(each.scale / first.scale) for each in fits], axis=0),
        bias=np.mean([each.bias for each in fits], axis=0),
        held_out_logits=None,
        test_logits=None,
    )


def _mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([each.double() for each in values]).mean(dim=0).to(values[0].dtype)


def averaged(fits: Sequence[Outcome], work: Work) -> Outcome:
    """The first of some finished fits with the mean of their weights, measured anew.

    Where the mean is worse on the validation images of ``work`` than every one of the fits (they ended too far from
    each other), or says nothing that is finite, it is the first as it was.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        ValueError: as for `average`.
    """
    first = fits[0]
    made = average([each.checkpoint for each in fits if each.checkpoint is not None])
    task, splits, view = work.task, work.splits, work.candidate.view
    model = work.load(work.candidate)
    model.visual.load_state_dict(_of(made))
    val = image_set(task, view=view, indices=splits.val)
    known = measure(task.metric, logits=_logits(model, made, val), labels=val.labels)
    least = min(each.validation.metric for each in fits if each.validation is not None)
    if known.metric < least or not math.isfinite(known.loss):
        return first
    test, of_test = first.test, None
    if len(splits.test):
        of_test = _logits(model, made, image_set(task, view=view, indices=splits.test)).numpy()
        test = score(task.metric, labels=task.labels[splits.test], predicted=of_test.argmax(axis=1))
    return replace(first, checkpoint=replace(made, test_logits=of_test), validation=known, test=test)


def _of(checkpoint: Checkpoint) -> Mapping[str, torch.Tensor]:
    assert checkpoint.visual is not None  # noqa: S101 - `average` has one
    return checkpoint.visual


@torch.inference_mode()
def _logits(model: LoadedModel, checkpoint: Checkpoint, images: ImageSet) -> torch.Tensor:
    """(n, K) of all images, float32, on the CPU."""
    head, bias = (torch.from_numpy(each).to(model.device) for each in (checkpoint.weight, checkpoint.bias))
    parts = [
        class_logits(model.embed(model.normalise(pixels)).float(), head=head, bias=bias, scale=checkpoint.scale).cpu()
        for pixels, _ in Batches(images=images, size=_BATCH)
    ]
    return torch.cat(parts)
