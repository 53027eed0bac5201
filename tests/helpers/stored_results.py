"""What the trials of a search left on file."""

from pathlib import Path

import numpy as np

from vlmsel_auto.records import TrialResult
from vlmsel_auto.tuning.checkpoints import Checkpoint, read_result, result_numbers


def read_results(workdir: Path) -> tuple[TrialResult, ...]:
    """All finished trials of a work directory by number; needs neither Optuna nor a study."""
    found = (read_result(workdir, number) for number in result_numbers(workdir))
    return tuple(result for result in found if result is not None)


def saying(held_out: np.ndarray | None = None, test: np.ndarray | None = None) -> Checkpoint:
    """A head of which only counts what it says of images."""
    weight = np.ones((2, 3), np.float32)
    return Checkpoint(
        visual=None, weight=weight, bias=weight[:, 0], scale=1.0, held_out_logits=held_out, test_logits=test
    )
