"""A paused fine-tuning trial, ``workdir/trials/NNNN/paused.safetensors``: all that it needs to go on where it stopped.

Tower and head after its last epoch, the optimiser's moments, the place in the schedule and the states of the random
generators: continued with as many threads it ends with the numbers of a trial that never paused. The file is written
whole or not at all, with a digest of what it holds, as those of `checkpoints`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import InputError, TrialUnavailable
from vlmsel_auto.planning.method import Part
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.tuning.checkpoints import Tensors, apart, digest_of, save_tensors, trial_dir

_FILE = "paused.safetensors"
_RECORD, _DIGEST = "progress", "sha256"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a paused trial is."""

    curve: tuple[float, ...]  # validation metric after each epoch
    metric: float  # after the last epoch
    soft: float  # likewise
    loss: float  # likewise
    start: float  # validation metric before training
    steps: int  # optimiser steps done
    batch: int  # images that a step sees at once
    part: Part  # of the tower that is trained
    seconds: float  # spent until here, also by the trials that this one continues


@dataclass(frozen=True, kw_only=True, eq=False)
class Paused:
    """State of a trial between two epochs; K classes, D embedding width."""

    progress: Progress
    module: Tensors  # state dict of tower and head after the last epoch
    moments: Tensors  # optimiser state, "PARAMETER.NAME" by the parameter's place
    generators: Tensors  # uint8 states, by name


def save_paused(workdir: Path, number: int, paused: Paused) -> Path:
    """Write the state of trial ``number`` and return the file."""
    groups = {"module": paused.module, "moments": paused.moments, "generators": paused.generators}
    tensors = apart({f"{group}/{name}": each for group, values in groups.items() for name, each in values.items()})
    record = json.dumps(encode(paused.progress), sort_keys=True, allow_nan=False)
    path = trial_dir(workdir, number) / _FILE
    told = {_RECORD: record, _DIGEST: digest(record, digest_of(tensors))}
    save_tensors(path, tensors, metadata=told)
    return path


def load_paused(workdir: Path, number: int) -> Paused:
    """Read what `save_paused` wrote.

    Raises:
        TrialUnavailable: the trial left no such file, or it is damaged.
    """
    path = trial_dir(workdir, number) / _FILE
    groups: dict[str, dict[str, torch.Tensor]] = {"module": {}, "moments": {}, "generators": {}}
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            told = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
        if told[_DIGEST] != digest(told[_RECORD], digest_of(tensors)):
            raise ValueError("a digest that is not that of the rest")  # noqa: TRY301 - as what the others find
        progress = decode(Progress, json.loads(told[_RECORD]))
        for name, value in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = value
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
