"""Text scores of class names: how well a candidate's text tower tells captions of the classes apart.

Zohar et al., "LOVM: Language-Only Vision Model Selection", NeurIPS 2023 (arXiv 2306.08893), section 4. Their captions
come from a language model; here the captions of a class are its name in the task's own templates, and the score of
synonyms is left out, as no language model is at hand offline.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.metrics import f1_score

from vlmsel_auto.records import FloatArray

TEXT_SCORES: Final = ("text_accuracy", "text_f1", "text_inter_close", "text_intra_close", "text_intraclass")
_NOISE: Final = 0.1  # LOVM's standard deviation, a dimension, of what is added to captions
_DRAWS: Final = 10  # of the noise; LOVM has hundreds of captions a class, templates are few


def text_scores(captions: FloatArray, *, seed: int = 0) -> dict[str, float]:
    """The scores of `TEXT_SCORES` from what the text tower says of captions (LOVM, section 4).

    Args:
        captions: (K, T, D) unit-norm embeddings of T captions for each of K >= 2 classes.
        seed: of the noise that stands for images.

    Returns:
        Accuracy and macro F1 in [0, 1] of classifying noisy captions by class weights; mean cosine of captions to
        their own weight, to the nearest other weight, and of weights to their nearest other, in [-1, 1].
    """
    weights = captions.mean(axis=1)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    n_classes, n_captions, width = captions.shape
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((_DRAWS, *captions.shape))
    noisy = (captions + _NOISE * noise).reshape(-1, width)
    predicted = (noisy @ weights.T).argmax(axis=1)
    labels = np.tile(np.repeat(np.arange(n_classes), n_captions), _DRAWS)
    cosine = captions @ weights.T  # (K, T, K)
    own = cosine[np.arange(n_classes), :, np.arange(n_classes)]
    others = np.where(np.eye(n_classes, dtype=np.bool_)[:, None, :], -np.inf, cosine)
    between = weights @ weights.T
    np.fill_diagonal(between, -np.inf)
    return {
        "text_accuracy": float(np.mean(predicted == labels)),
        "text_f1": float(f1_score(labels, predicted, average="macro")),
        "text_inter_close": float(own.mean()),
        "text_intra_close": float(others.max(axis=2).mean()),
        "text_intraclass": float(between.max(axis=1).mean()),
    }
