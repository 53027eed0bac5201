"""What a trial says of its held-out images, kept when its weights go: ``workdir/trials/NNNN/held-out.safetensors``.

Where weights of further fits of a tower would take too much room, what these say of it still counts.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.records import TrialResult
from vlmsel_auto.tuning.checkpoints import digest_of, drop_weights, load_held_out_logits, trial_dir

_log = logging.getLogger(__name__)
_FILE, _LOGITS, _DIGEST = "held-out.safetensors", "logits", "sha256"


def keep_held_out_alone(workdir: Path, trial: TrialResult) -> None:
    """Drop a trial's weights, but not what they say of its held-out images.

    Raises:
        OSError: the work directory cannot be written.
    """
    try:
        logits = load_held_out_logits(workdir, trial)
    except TrialUnavailable:
        logits = None  # damaged: nothing to keep
    if logits is not None:
        tensors = {_LOGITS: torch.from_numpy(logits).contiguous()}
        path = trial_dir(workdir, trial.number) / _FILE
        write_atomically(path, save(tensors, metadata={_DIGEST: digest_of(tensors)}))
    drop_weights(workdir, trial.number)


def read_held_out(workdir: Path, trial: TrialResult) -> NDArray[np.float32] | None:
    """Logits (n, K) of a trial without weights; None: none were kept, or they are damaged, which the log says."""
    path = trial_dir(workdir, trial.number) / _FILE
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
