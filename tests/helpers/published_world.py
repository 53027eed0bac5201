"""A drawn table of published accuracies: 12 candidates in three families on 14 data sets."""

import numpy as np

from vlmsel_auto.planning.screening_posterior import DEFAULT, Screening, ScreeningPolicy, screening_posterior
from vlmsel_auto.planning.screening_prior import ScreeningPrior, learn_prior

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


def best_seen(known: ScreeningPrior, screenings: list[Screening], policy: ScreeningPolicy = DEFAULT) -> int:
    """The highest posterior mean among those screened."""
    mean = screening_posterior(known, screenings, policy=policy).mean
    return max((each.candidate for each in screenings), key=lambda candidate: float(mean[candidate]))


KNOWN = learn_prior(drawn_table())
PLAIN = ScreeningPolicy(cover_every=0, p_reversed=0.0, p_uninformative=0.0, spreads=(1.0,))  # one Gaussian
LEVEL_SD = PLAIN.level_width * KNOWN.level_sd
