"""The one error tree.

VlmselError
├── InputError (ValueError)      what the caller gave cannot be used; nothing was written
│   ├── TaskError                the task folder, its images, CSV or task.toml
│   ├── ImageError               one image file cannot be decoded; a task lists it and goes on
│   ├── CandidateError           a candidate name, folder or weight file
│   ├── LibraryError             a library file: corrupt, foreign, another version
│   ├── WorkdirError             the work directory belongs to another search, or is locked
│   └── BudgetError              a budget that allows nothing to be done
├── ConductanceError (ValueError) a tower, scalar or image that has no conductance
├── TrialFailed                  this trial failed; the run goes on and the report says why
│   ├── TrialOutOfMemory         no way of fine-tuning fits into the device's memory
│   ├── TrialDiverged            loss or metric became NaN or infinite
│   └── TrialUnavailable         weights missing, unreadable or of another shape
└── MissingDependency (ImportError) an optional package is needed; the message names the extra

Messages say what, where and what to do, and end with what was got.
"""

__all__ = [
    "BudgetError",
    "CandidateError",
    "ConductanceError",
    "ImageError",
    "InputError",
    "LibraryError",
    "MissingDependency",
    "TaskError",
    "TrialDiverged",
    "TrialFailed",
    "TrialOutOfMemory",
    "TrialUnavailable",
    "VlmselError",
    "WorkdirError",
]


class VlmselError(Exception):
    """Base of every error that vlmsel_auto raises on purpose."""


class InputError(VlmselError, ValueError):
    """What the caller gave cannot be used."""


class TaskError(InputError):
    """The task folder cannot be used."""


class ImageError(InputError):
    """One image file cannot be decoded, or must not be."""


class CandidateError(InputError):
    """A candidate cannot be found, read or trusted."""


class LibraryError(InputError):
    """A library file cannot be read or does not fit."""


class WorkdirError(InputError):
    """The work directory cannot be used for this search."""


class BudgetError(InputError):
    """The budget allows nothing to be done."""


class ConductanceError(VlmselError, ValueError):
    """This tower, scalar or input has no conductance."""


class TrialFailed(VlmselError):
    """One trial failed; the run goes on."""


class TrialOutOfMemory(TrialFailed):
    """The device ran out of memory."""


class TrialDiverged(TrialFailed):
    """Loss or metric became NaN or infinite."""


class TrialUnavailable(TrialFailed):
    """The candidate's weights are missing or unreadable."""


class MissingDependency(VlmselError, ImportError):
    """An optional dependency is not installed."""
