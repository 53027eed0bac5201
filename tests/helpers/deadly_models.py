"""Loaders that take their process with them."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from helpers.study_world import NAMES
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate


def deadly_load(candidate: Candidate) -> LoadedModel:
    if candidate.id == NAMES[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return zoo.load(candidate)


@dataclass(frozen=True)
class DeadlyOnce:
    """Loads models; the first that is trained kills its process at its second step and leaves a file behind."""

    mark: Path

    def __call__(self, candidate: Candidate) -> LoadedModel:
        loaded, steps = zoo.load(candidate), list[None]()

        def die(_module: nn.Module, _inputs: tuple[torch.Tensor, ...]) -> None:
            if torch.is_grad_enabled():
                steps.append(None)
            if len(steps) > 1 and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        loaded.visual.register_forward_pre_hook(die)
        return loaded
