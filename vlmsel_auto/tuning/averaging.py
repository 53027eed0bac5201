"""One tower from several fits: the mean of their weights.

Fits that begin at the same tower and differ in the fold that they left out end so close to each other that the mean
of their weights is about as good as one fit on all labels (Wortsman et al., ICML 2022, "Model soups", uniform soup), at
the cost of one model. docs/results/tuning.md says what that gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.records import Candidate, IntArray, Task
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import ImageSet, MiniBatches, image_set, score
from vlmsel_auto.tuning.work import Loader

_BATCH: Final = 64


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


def averaged(
    fits: Sequence[Checkpoint], *, task: Task, candidate: Candidate, load: Loader, known: IntArray, least: float
) -> Checkpoint | None:
    """The mean weights of some fits, with their logits of the test images.

    Args:
        fits: of the candidate's tower on the task.
        task: the task.
        candidate: the candidate.
        load: loads it.
        known: labelled images that its fits left out in turn, each learned from by all others.
        least: what the fits reached on these, each on the images that it left out.

    Returns:
        None where the mean is worse than ``least`` on ``known``, which its fits have learned from: they ended too far
        from each other.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        ValueError: as for `average`.
    """
    made = average(fits)
    assert made.visual is not None  # noqa: S101 - `average` has one
    model = load(candidate)
    model.visual.load_state_dict(dict(made.visual))
    of_known = _logits(model, made, image_set(task, view=candidate.view, indices=known))
    reached = score(task.metric, labels=task.labels[known], predicted=of_known.argmax(dim=1).numpy())
    if reached < least or not bool(of_known.isfinite().all()):
        return None
    if not len(task.test):
        return made
    test = image_set(task, view=candidate.view, indices=np.sort(task.test))
    return replace(made, test_logits=_logits(model, made, test).numpy())


@torch.inference_mode()
def _logits(model: LoadedModel, checkpoint: Checkpoint, images: ImageSet) -> torch.Tensor:
    """(n, K) of all images, float32, on the CPU."""
    model.visual.eval()
    head, bias = (torch.from_numpy(each).to(model.device) for each in (checkpoint.weight, checkpoint.bias))
    parts = [
        class_logits(model.embed(model.normalise(pixels)).float(), head=head, bias=bias, scale=checkpoint.scale).cpu()
        for pixels, _ in MiniBatches(images=images, size=_BATCH)
    ]
    return torch.cat(parts)
