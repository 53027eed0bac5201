"""A drawn table of published accuracies: 12 candidates in three families on 14 data sets."""

import numpy as np

from vlmsel_auto.planning.outlook import Screening, ScreeningPolicy
from vlmsel_auto.planning.scenarios import learn_scenarios

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


def look(candidate: int, accuracy: float, sd: float = 0.03) -> Screening:
    return Screening(candidate=candidate, accuracy=accuracy, sd=sd)


KNOWN = learn_scenarios(drawn_table())
PLAIN = ScreeningPolicy(cover_every=0, p_reversed=0.0, p_vague=0.0, spreads=(1.0,))  # one Gaussian
LEVEL_SD = PLAIN.level_width * KNOWN.level_sd
