"""What the trials of a search left on file."""

from pathlib import Path

from vlmsel_auto.records import TrialResult
from vlmsel_auto.tuning.checkpoints import read_result, result_numbers


def read_results(workdir: Path) -> tuple[TrialResult, ...]:
    """All finished trials of a work directory by number; needs neither Optuna nor a study."""
    found = (read_result(workdir, number) for number in result_numbers(workdir))
    return tuple(result for result in found if result is not None)
