"""A paused fine-tuning trial, ``workdir/trials/NNNN/paused.safetensors``: all that it needs to go on where it stopped.

Tower and head after its last epoch, those of its best epoch, the optimiser's moments, the place in the schedule and the
states of the random generators: continued on the same machine it ends with the numbers of a trial that never paused.
Tensors and JSON only, no pickle; written to a temporary name and renamed, so a kill leaves a whole file or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import InputError, TrialUnavailable
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.trials.checkpoints import trial_dir

__all__ = ["Paused", "Progress", "drop_paused", "has_paused", "load_paused", "save_paused"]

_FILE = "paused.safetensors"
_RECORD = "progress"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a paused trial is."""

    curve: tuple[float, ...]  # validation metric after each epoch
    kept: int  # best epoch, 0 is the start
    metric: float  # of the best epoch
    soft: float  # likewise
    loss: float  # likewise
    start: float  # validation metric before training
    steps: int  # optimiser steps done
    batch: int  # images that a step sees at once
    seconds: float  # spent until here, also by the trials that this one continues


@dataclass(frozen=True, kw_only=True, eq=False)
class Paused:
    """State of a trial between two epochs; K classes, D embedding width."""

    progress: Progress
    module: Tensors  # state dict of tower and head after the last epoch
    best: Tensors  # of the best epoch; empty: it is the last epoch or the start
    moments: Tensors  # optimiser state, "PARAMETER.NAME" by the parameter's place
    generators: Tensors  # uint8 states, by name


def save_paused(workdir: Path, number: int, paused: Paused) -> Path:
    """Write the state of trial ``number`` and return the file."""
    groups = {"module": paused.module, "best": paused.best, "moments": paused.moments, "generators": paused.generators}
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous().clone()  # clone: tied tensors may not share memory
        for group, values in groups.items()
        for name, value in values.items()
    }
    record = json.dumps(encode(paused.progress), sort_keys=True, allow_nan=False)
    path = trial_dir(workdir, number) / _FILE
    write_atomically(path, save_tensors(tensors, metadata={_RECORD: record}))
    return path


def load_paused(workdir: Path, number: int) -> Paused:
    """Read what `save_paused` wrote.

    Raises:
        TrialUnavailable: the trial left no such file, or it is damaged.
    """
    path = trial_dir(workdir, number) / _FILE
    groups: dict[str, dict[str, torch.Tensor]] = {"module": {}, "best": {}, "moments": {}, "generators": {}}
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            progress = decode(Progress, json.loads((stream.metadata() or {})[_RECORD]))
            for name in stream.keys():  # noqa: SIM118 - not a mapping
                group, _, rest = name.partition("/")
                groups[group][rest] = stream.get_tensor(name)
    except (OSError, KeyError, ValueError, InputError, SafetensorError) as error:
        raise TrialUnavailable(
            f"Trial {number} cannot be continued from {path}: it will be begun anew, but got {error!r}"
        ) from error
    return Paused(progress=progress, **groups)


def has_paused(workdir: Path, number: int) -> bool:
    """Whether trial ``number`` can be continued."""
    return (trial_dir(workdir, number) / _FILE).is_file()


def drop_paused(workdir: Path, number: int) -> None:
    """Delete the state of a trial; its result stays."""
    (trial_dir(workdir, number) / _FILE).unlink(missing_ok=True)
