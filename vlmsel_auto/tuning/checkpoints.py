"""Files of one trial, ``workdir/trials/NNNN/``: its result as JSON and, while it may still be the best, its weights.

No pickle: safetensors and JSON only, each with a digest of what it holds, so that damage is noticed. Both are written
to a temporary name and renamed, so a kill leaves a whole file or none; the result is written last, so a result without
weights means that they were dropped on purpose. Where weights of further fits of a tower would take too much room, what
these say of their held-out images is kept alone, for it still counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlmsel_auto.cache import Json, atomic_file, sealed, unsealed, write_atomically
from vlmsel_auto.errors import TrialUnavailable, WorkdirError
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import TrialResult

_log = logging.getLogger(__name__)
_WEIGHTS = "weights.safetensors"
_HELD_OUT, _LOGITS, _DIGEST = "held-out.safetensors", "logits", "sha256"
_RESULT = "result.json"
_VISUAL = "visual."
_HEAD, _TOWER = "sha256 of head and logits", "sha256 of the tower"

Tensors = Mapping[str, torch.Tensor]


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
        tensors[_VISUAL + name] = value
    path, tensors = _weights(workdir, number), apart(tensors)
    digests = {part: digest_of(_part(tensors, tower=part == _TOWER)) for part in (_HEAD, _TOWER)}
    save_tensors(path, tensors, metadata=digests)
    return path


def save_tensors(path: Path, tensors: Tensors, *, metadata: Mapping[str, str]) -> None:
    """Write tensors that lie `apart`, whole or not at all, without a copy of them in memory.

    Raises:
        OSError: the disk does not take them, which safetensors says in an error of its own.
    """
    with atomic_file(path) as part:
        try:
            save_file(dict(tensors), part, metadata=dict(metadata))
        except SafetensorError as error:
            told = re.search(r"os error (\d+)", str(error))
            if told is None:
                raise
            raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error


def apart(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, none in the memory of another: of tied ones all but the first are copied."""
    found, taken = {}, set()
    for name, value in tensors.items():
        one = value.detach().cpu().contiguous()
        if one.untyped_storage().data_ptr() in taken:
            one = one.clone()
        taken.add(one.untyped_storage().data_ptr())
        found[name] = one
    return found


def _weights(workdir: Path, number: int) -> Path:
    return trial_dir(workdir, number) / _WEIGHTS


def _part(tensors: Tensors, *, tower: bool) -> Tensors:
    """The tensors of the tower, or the others."""
    return {name: value for name, value in tensors.items() if name.startswith(_VISUAL) == tower}


def digest_of(tensors: Tensors) -> str:
    """Hex SHA-256 of names, shapes, types and values."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check(tensors: Tensors, told: str | None) -> None:
    if told != digest_of(tensors):
        raise ValueError(f"a digest of {len(tensors)} tensors that is not theirs")


def load_trial(workdir: Path, trial: TrialResult, *, tower: bool = True) -> Checkpoint:
    """Read the weights that a trial kept; without its ``tower``, head and logits alone.

    Raises:
        TrialUnavailable: it kept none (it failed, was pruned, or another trial became better), or the file is damaged.
    """
    path = _weights(workdir, trial.number)
    with _reading(path, number=trial.number):
        tensors = _read(path, tower=tower)
        visual = {name.removeprefix(_VISUAL): each for name, each in tensors.items() if name.startswith(_VISUAL)}
        return Checkpoint(
            visual=visual or None,
            weight=tensors["head.weight"].numpy(),
            bias=tensors["head.bias"].numpy(),
            scale=float(tensors["head.scale"][0]),
            held_out_logits=tensors["logits.held_out"].numpy() if "logits.held_out" in tensors else None,
            test_logits=tensors["logits.test"].numpy() if "logits.test" in tensors else None,
        )


def _read(path: Path, *, tower: bool) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt", device="cpu") as stream:
        names = [name for name in stream.keys() if tower or not name.startswith(_VISUAL)]  # noqa: SIM118 - no mapping
        tensors = {name: stream.get_tensor(name) for name in names}
        digests = stream.metadata() or {}
    _check(_part(tensors, tower=False), digests.get(_HEAD))
    if tower:
        _check(_part(tensors, tower=True), digests.get(_TOWER))
    return tensors


@contextmanager
def _reading(path: Path, *, number: int) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrialUnavailable(
            f"Trial {number} has no sound weights at {path}: only trials that may be the best keep them, "
            f"but got {error}"
        ) from error


def has_weights(workdir: Path, number: int) -> bool:
    """Whether trial ``number`` still has weights."""
    return _weights(workdir, number).is_file()


def size_of_weights(workdir: Path, number: int) -> int:
    """Bytes of the weights of trial ``number``; 0 where it has none."""
    path = _weights(workdir, number)
    return path.stat().st_size if path.is_file() else 0


def drop_weights(workdir: Path, number: int) -> None:
    """Delete the weights of a trial; its result stays."""
    _weights(workdir, number).unlink(missing_ok=True)


def keep_held_out_alone(workdir: Path, trial: TrialResult) -> None:
    """Drop a trial's weights, but not what they say of its held-out images.

    Raises:
        OSError: the work directory cannot be written.
    """
    try:
        logits = load_trial(workdir, trial, tower=False).held_out_logits
    except TrialUnavailable:
        logits = None  # damaged: nothing to keep
    if logits is not None:
        tensors = {_LOGITS: torch.from_numpy(logits).contiguous()}
        path = trial_dir(workdir, trial.number) / _HELD_OUT
        save_tensors(path, tensors, metadata={_DIGEST: digest_of(tensors)})
    drop_weights(workdir, trial.number)


def read_held_out(workdir: Path, trial: TrialResult) -> NDArray[np.float32] | None:
    """Logits (n, K) of a trial without weights; None: none were kept, or they are damaged, which the log says."""
    path = trial_dir(workdir, trial.number) / _HELD_OUT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            tensors = {_LOGITS: stream.get_tensor(_LOGITS)}
            told = (stream.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError):
        tensors, told = {}, None
    if told is not None and told == digest_of(tensors):
        kept: NDArray[np.float32] = tensors[_LOGITS].numpy()
        return kept
    _log.warning("%s is damaged: the ensemble does without this trial", path)
    return None


def result_to_json(result: TrialResult) -> str:
    """One line of JSON, with a digest of the rest."""
    record: dict[str, Json] = json.loads(json.dumps(encode(result), allow_nan=False))
    return json.dumps(sealed(record), sort_keys=True, allow_nan=False)


def result_from_json(text: str) -> TrialResult:
    """The inverse of `result_to_json`.

    Raises:
        WorkdirError: not a trial's result, or damaged.
    """
    try:
        return decode(TrialResult, unsealed(json.loads(text)))
    except ValueError as error:  # also the InputError of a field that is missing or of another type
        raise WorkdirError(
            f"The result of a trial cannot be read: delete the file and run again, but got {error!r}"
        ) from error


def save_result(workdir: Path, result: TrialResult) -> None:
    """Write ``result.json`` of the trial."""
    write_atomically(trial_dir(workdir, result.number) / _RESULT, result_to_json(result).encode())


def read_result(workdir: Path, number: int) -> TrialResult | None:
    """The stored result of a trial, or None when it did not finish.

    Raises:
        WorkdirError: the file is damaged.
    """
    try:
        return result_from_json((trial_dir(workdir, number) / _RESULT).read_bytes().decode(errors="replace"))
    except FileNotFoundError:
        return None


def result_numbers(workdir: Path) -> list[int]:
    """Numbers of the trials that have a result on file, be it damaged."""
    files = sorted((workdir / "trials").glob(f"[0-9]*/{_RESULT}"))
    return [int(file.parent.name) for file in files if file.parent.name.isdigit()]
