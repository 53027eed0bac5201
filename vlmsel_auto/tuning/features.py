"""Cached features of a trial's images: what every head is fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vlmsel_auto.models.embedding import embed
from vlmsel_auto.records import IntArray
from vlmsel_auto.tuning.work import MAX_SCALE, Work


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Unit-norm embeddings of images with what the zero-shot classifier of the same model is."""

    values: torch.Tensor  # (n, D) float32
    at: IntArray  # (n,) sorted: which images of the task
    text: torch.Tensor  # (K, D) float32
    scale: float

    def of(self, indices: IntArray) -> torch.Tensor:
        """Features (m, D) of some of the images."""
        return self.values[torch.from_numpy(np.searchsorted(self.at, indices))]


def features_of(work: Work) -> Features:
    """Features of all images of a trial; the first trial of a candidate pays for one pass over them.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        DeadlineReached: the time ran out before they were complete.
    """
    splits = work.splits
    everything = np.sort(np.concatenate([splits.train, splits.val, splits.test]))
    found = embed(
        work.candidate,
        work.task,
        everything,
        load=lambda: work.load(work.candidate),
        store=work.store,
        check=work.deadline.check,
    )
    return Features(
        values=functional.normalize(torch.tensor(found.images), dim=-1),
        at=everything,
        text=torch.tensor(found.text),
        scale=min(found.logit_scale, MAX_SCALE),
    )
