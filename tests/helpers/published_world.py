"""A drawn table of published accuracies: 12 candidates in three families on 14 data sets."""

import numpy as np

CANDIDATES, DATASETS = 12, 14
FAMILY = np.arange(CANDIDATES) % 3


def drawn_table(seed: int = 0) -> np.ndarray:
    """(12, 14); candidates get worse with their index, families rise and fall together."""
    rng = np.random.default_rng(seed)
    skill = 0.12 - 0.02 * np.arange(CANDIDATES)
    family = rng.normal(0, 0.06, (3, DATASETS))[FAMILY]
    own = rng.normal(0, 0.015, (CANDIDATES, DATASETS))
    level = rng.uniform(0.4, 0.7, DATASETS)
    return np.clip(level + skill[:, None] + family + own, 0, 1)
