"""Directional conductance divergence (DCD) as its authors compute it: divergence, weights of sources, NDCG@5.

Yang et al., "Model Specific Task Similarity for Vision Language Model Selection via Layer Conductance" (arXiv
2602.01346). The formulas are those of the authors' code (github.com/echoas8/DCD, commit 9e872a6). Our own form is in
`vlmsel_auto.ranking.dcd`; docs/results/conductance.md says what either is worth.

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

from vlmsel_auto.ranking.divergence import softmax_of_known
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray

GAMMA: Final = 4.0  # the authors try 3 to 5
_EPSILON: Final = 1e-8
_TOP: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorsDcd:
    """The authors' divergence, as a `Divergence`: >= 0, 0 for a source with the target's profile, not symmetric.

    Profiles (T, B) and (S, B) are means over elements, in units of F.
    """

    eta: float = 2.5  # the authors try 1.5 to 3.5

    def __call__(self, targets: FloatArray, sources: FloatArray, used: NDArray[np.bool_]) -> FloatArray:  # noqa: ARG002 - no source changes another's divergence
        """Divergences (T, S)."""
        alpha = special.softmax(self.eta * unit_rows(targets), axis=1)
        gap = np.abs(targets[:, None] - sources[None]) / (np.abs(targets) + _EPSILON)[:, None]
        return np.asarray(np.einsum("tb,tsb->ts", alpha, gap), dtype=np.float64)


AUTHORS: Final = AuthorsDcd()


def authors_weights(divergence: FloatArray, *, gamma: float = GAMMA) -> FloatArray:
    """Weights softmax(-gamma (d - min)) of divergences (..., S); NaN gives weight 0, equal weights where all are."""
    return softmax_of_known(-gamma * divergence)


def authors_ndcg(predicted: FloatArray, actual: FloatArray) -> float:
    """NDCG@5 as the DCD authors compute it: among the candidates that stand in both top fives, blind for the misses.

    Relevance is the rank among these n, n = best; linear gain, discount 1 / log2(1 + place among these). In [0, 1]; 0
    where fewer than two are shared. Not comparable with `ranking.agreement.ndcg`. Of tied candidates the one listed
    first goes first. Their code has `sklearn.metrics.ndcg_score` on the intersection.
    """
    best = np.argsort(-actual, kind="stable")[:_TOP]
    order = np.argsort(-predicted, kind="stable")[:_TOP]
    shared = best[np.isin(best, order)]  # best first
    n = len(shared)
    if n < 2:
        return 0.0
    gain = np.arange(n, 0.0, -1.0)
    discount = 1.0 / np.log2(np.arange(2, n + 2))
    place = {int(candidate): k for k, candidate in enumerate(order[np.isin(order, shared)])}
    return float(gain @ discount[[place[int(candidate)] for candidate in shared]] / (gain @ discount))
