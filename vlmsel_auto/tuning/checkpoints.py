"""Files of one trial, ``workdir/trials/NNNN/``: its result as JSON and, while it may still be the best, its weights.

No pickle: safetensors and JSON only. Both are written to a temporary name and renamed, so a kill leaves a whole file or
none; the result is written last, so a result without weights means that they were dropped on purpose.

A paused fine-tuning trial, ``workdir/trials/NNNN/paused.safetensors``: all that it needs to go on where it stopped.

Tower and head after its last epoch, the optimiser's moments, the place in the schedule and the
states of the random generators: continued with as many threads it ends with the numbers of a trial that never paused.
Tensors and JSON only, no pickle; written to a temporary name and renamed, so a kill leaves a whole file or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import InputError, TrialUnavailable, WorkdirError
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import TrialResult

_WEIGHTS = "weights.safetensors"
_RESULT = "result.json"
_VISUAL = "visual."


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a trial learned: classifier = softmax(scale * normalise(embed(x)) @ weight.T + bias)."""

    visual: Mapping[str, torch.Tensor] | None  # state dict of the visual tower; None: it was not changed
    weight: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float
    held_out_logits: NDArray[np.float32] | None = None  # (n, K) by heads that never saw the images: of
    # `Splits.held_out` by heads on cached features, of the validation images by towers
    test_logits: NDArray[np.float32] | None = None  # (n, K) of the test images


def trial_dir(workdir: Path, number: int) -> Path:
    """Folder of trial ``number``."""
    return workdir / "trials" / f"{number:04d}"


def save_weights(workdir: Path, number: int, checkpoint: Checkpoint) -> Path:
    """Write the weights of a trial and return the file."""
    tensors = {
        "head.weight": torch.from_numpy(np.ascontiguousarray(checkpoint.weight)),
        "head.bias": torch.from_numpy(np.ascontiguousarray(checkpoint.bias)),
        "head.scale": torch.tensor([checkpoint.scale], dtype=torch.float64),
    }
    for name, logits in (("held_out", checkpoint.held_out_logits), ("test", checkpoint.test_logits)):
        if logits is not None:
            tensors[f"logits.{name}"] = torch.from_numpy(np.ascontiguousarray(logits))
    for name, value in (checkpoint.visual or {}).items():
        tensors[_VISUAL + name] = value.detach().cpu().contiguous().clone()  # clone: tied tensors may not share memory
    path = trial_dir(workdir, number) / _WEIGHTS
    write_atomically(path, save_tensors(tensors))
    return path


def load_trial(workdir: Path, number: int, *, tower: bool = True) -> Checkpoint:
    """Read the weights that trial ``number`` kept; without its ``tower``, the head and the logits alone.

    Raises:
        TrialUnavailable: it kept none (it failed, was pruned, or another trial became better), or the file is damaged.
    """
    with _reading(workdir, number):
        tensors = _read(workdir, number, tower=tower)
        visual = {name.removeprefix(_VISUAL): each for name, each in tensors.items() if name.startswith(_VISUAL)}
        return Checkpoint(
            visual=visual or None,
            weight=tensors["head.weight"].numpy(),
            bias=tensors["head.bias"].numpy(),
            scale=float(tensors["head.scale"][0]),
            held_out_logits=tensors["logits.held_out"].numpy() if "logits.held_out" in tensors else None,
            test_logits=tensors["logits.test"].numpy() if "logits.test" in tensors else None,
        )


def load_held_out_logits(workdir: Path, number: int) -> NDArray[np.float32] | None:
    """What trial ``number`` says of the images that it held out; its tower is not read.

    Raises:
        TrialUnavailable: as for `load_trial`.
    """
    return load_trial(workdir, number, tower=False).held_out_logits


def _read(workdir: Path, number: int, *, tower: bool) -> dict[str, torch.Tensor]:
    with safe_open(trial_dir(workdir, number) / _WEIGHTS, framework="pt", device="cpu") as stream:
        names = [name for name in stream.keys() if tower or not name.startswith(_VISUAL)]  # noqa: SIM118 - no mapping
        return {name: stream.get_tensor(name) for name in names}


@contextmanager
def _reading(workdir: Path, number: int) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, SafetensorError) as error:
        raise TrialUnavailable(
            f"Trial {number} has no weights at {trial_dir(workdir, number) / _WEIGHTS}: only trials that may be the "
            f"best keep them, but got {error}"
        ) from error


def has_weights(workdir: Path, number: int) -> bool:
    """Whether trial ``number`` still has its weights."""
    return (trial_dir(workdir, number) / _WEIGHTS).is_file()


def drop_weights(workdir: Path, number: int) -> None:
    """Delete the weights of a trial; its result stays."""
    (trial_dir(workdir, number) / _WEIGHTS).unlink(missing_ok=True)


def result_to_json(result: TrialResult) -> str:
    """One line of JSON."""
    return json.dumps(encode(result), sort_keys=True, allow_nan=False)


def result_from_json(text: str) -> TrialResult:
    """The inverse of `result_to_json`.

    Raises:
        WorkdirError: not a trial's result.
    """
    try:
        return decode(TrialResult, json.loads(text))
    except ValueError as error:  # also the InputError of a field that is missing or of another type
        raise WorkdirError(
            f"The result of a trial cannot be read: delete the file and run again, but got {error!r}"
        ) from error


def save_result(workdir: Path, result: TrialResult) -> None:
    """Write ``result.json`` of the trial."""
    write_atomically(trial_dir(workdir, result.number) / _RESULT, result_to_json(result).encode())


def read_result(workdir: Path, number: int) -> TrialResult | None:
    """The stored result of a trial, or None when it did not finish."""
    try:
        return result_from_json((trial_dir(workdir, number) / _RESULT).read_text("utf-8"))
    except FileNotFoundError:
        return None


def read_results(workdir: Path) -> tuple[TrialResult, ...]:
    """All finished trials of a work directory by number; needs neither Optuna nor a study."""
    folders = sorted((workdir / "trials").glob("[0-9]*"))
    found = (read_result(workdir, int(folder.name)) for folder in folders if folder.name.isdigit())
    return tuple(result for result in found if result is not None)


_FILE = "paused.safetensors"
_RECORD = "progress"

Tensors = Mapping[str, torch.Tensor]


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
    groups: dict[str, dict[str, torch.Tensor]] = {"module": {}, "moments": {}, "generators": {}}
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
