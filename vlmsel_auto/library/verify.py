"""Whether the content of a library can be true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmsel_auto.library.records import Library
from vlmsel_auto.records import FloatArray


def verify(
    library: Library, *, weights: Mapping[str, str] | None = None, tasks: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Everything wrong with a library, one sentence each; empty when all is well.

    `load` has already refused a file whose content does not match its digest; this looks at what the content means.
    ``weights`` (SHA-256 by candidate id) and ``tasks`` (digests by task name) at hand are compared with those that the
    cells were made with.
    """
    found: list[str] = []
    for kind, names in (("candidate", library.candidate_ids), ("task", library.task_names)):
        found += [f"{kind} {name} is there more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    for name in ("zero_shot", "probed", "tuned_runs"):
        value: FloatArray = getattr(library, name)
        if value.size and (np.nanmin(value, initial=0.0) < 0 or np.nanmax(value, initial=1.0) > 1):
            found.append(f"{name} must lie in [0, 1]; its range is [{np.nanmin(value)}, {np.nanmax(value)}]")
    for m, candidate in enumerate(library.candidates):
        activity = library.activity[m]
        profiled = activity[np.isfinite(library.total[m]) & np.isfinite(activity).any(axis=1)]
        if not np.isfinite(profiled).all():
            found.append(f"activity of {candidate.id} is not finite")
        if (profiled < 0).any():
            found.append(f"activity of {candidate.id} is negative")
        known = (weights or {}).get(candidate.id)
        if known is not None and candidate.sha256 not in ("", known):
            found.append(f"the weights of {candidate.id} are not those that its cells were made with")
    for task in library.tasks:
        if (tasks or {}).get(task.name, task.digest) != task.digest:
            found.append(f"the content of task {task.name} is not that which its cells were made with")
    found += [f"{one.candidate} on {one.task} failed: {one.reason}" for one in library.failures]
    return tuple(found)
