"""Directional conductance divergence (DCD) of a target task from source tasks, as one candidate sees them.

After the idea of Yang et al. (arXiv 2602.01346); the formula is our own and was chosen on the mini zoo
(`benchmarks/ranking/dcd_forms.py` has others, `dcd_authors.py` beside it the authors'; docs/results/conductance.md
compares them).

Symbols (one candidate; B blocks, S sources):
    a[b]   activity, mean over images of sum |conductance|
    z[b]   log a[b] minus its mean over the sources: sums of |conductance| fall with depth whatever the task is
    DCD(T || S) = sum_b softmax(z(T))_b max(0, z_b(T) - z_b(S)), what the target excites and the source leaves uncovered
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vlmsel_auto.records import FloatArray

_TINY = 1e-12


def log_activity(activity: FloatArray) -> FloatArray:
    """Natural logarithm, finite also at 0."""
    return np.log(np.maximum(activity, _TINY))


def depth_corrected(targets: FloatArray, sources: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
    """Log activity z (T, B) of the targets, minus its mean over the sources that each may know of, ``used`` (T, S)."""
    reference = used.astype(np.float64) @ log_activity(sources) / used.sum(axis=1, keepdims=True)
    return np.asarray(log_activity(targets) - reference, dtype=np.float64)


def dcd(targets: FloatArray, sources: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
    """Divergences (T, S), a `Divergence`: >= 0, 0 for a source with the target's profile, not symmetric."""
    uncovered = np.maximum(0.0, log_activity(targets)[:, None] - log_activity(sources))
    importance = special.softmax(depth_corrected(targets, sources, used), axis=1)
    return np.asarray(np.einsum("tsb,tb->ts", uncovered, importance), dtype=np.float64)
