"""Directional conductance divergence (DCD) as its authors compute it: the preset `AUTHORS`, its weights of sources.

Yang et al., "Model Specific Task Similarity for Vision Language Model Selection via Layer Conductance" (arXiv
2602.01346). The formulas are those of the authors' code (github.com/echoas8/DCD, commit 9e872a6). Our own form is in
`dcd`; docs/conductance.md says what either is worth.

    v[b]    mean |conductance| over the elements of block b and the images, F = norm of the unnormalised embedding
    alpha   softmax(eta v(T) / ||v(T)||), T the target
    DCD(T || S) = sum_b alpha_b |v_b(T) - v_b(S)| / (v_b(T) + 1e-8)
    weight of S = softmax(-gamma (DCD(T || S) - min DCD)), every candidate its own
    score       = -(sum_S weight of S x the candidate's rank on S by zero-shot accuracy)

A mean over elements, not the sum that `conductance` gives: the eta-softmax depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vlmsel_auto.ranking.divergence import TaskProfiles, softmax_of_known
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray

GAMMA: Final = 4.0  # the authors try 3 to 5
_EPSILON: Final = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorsDcd:
    """The authors' divergence, as a `Divergence`: >= 0, 0 for a source with the target's profile, not symmetric.

    Profiles hold means over elements in ``activity``, in units of F.
    """

    eta: float = 2.5  # the authors try 1.5 to 3.5

    def __call__(self, targets: TaskProfiles, sources: TaskProfiles, used: NDArray[np.bool_]) -> FloatArray:  # noqa: ARG002 - no source changes another's divergence
        """Divergences (T, S)."""
        own = targets.activity
        alpha = special.softmax(self.eta * unit_rows(own), axis=1)
        gap = np.abs(own[:, None] - sources.activity[None]) / (np.abs(own) + _EPSILON)[:, None]
        return np.asarray(np.einsum("tb,tsb->ts", alpha, gap), dtype=np.float64)


AUTHORS: Final = AuthorsDcd()


def authors_weights(divergence: FloatArray, *, gamma: float = GAMMA) -> FloatArray:
    """Weights softmax(-gamma (d - min)) of divergences (..., S); NaN gives weight 0, equal weights where all are."""
    return softmax_of_known(-gamma * divergence)
