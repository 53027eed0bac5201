"""What a search chose: one model or several, and their figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.records.ranking import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalScore:
    """A model on the test split, which chose nothing."""

    metric: float  # the task's, in [0, 1]
    images: int
    interval: Interval | None  # 95 %; None: the metric is no share of images
    calibration_error: float  # expected, in [0, 1]: mean distance of probabilities from how often they come true
    calibration_floor: float | None = None  # what exact probabilities would show on so few images; None: not computed


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedAccuracy:
    """Of a model that few or no labels checked: what the candidates' votes say of it, and how sure that is."""

    value: float  # in [0, 1]
    interval: Interval  # 90 %
    chance: float  # accuracy of a guess

    @property
    def is_unknown(self) -> bool:
        """Whether the model may be no better than a guess, or is expected to be below twice its accuracy."""
        return self.interval.low <= self.chance or self.value < min(2 * self.chance, (1 + self.chance) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLevel:
    """Held-out images of which a classifier is sure enough: the highest probability is at least ``threshold``."""

    threshold: float
    coverage: float  # share of all held-out images
    images: int
    right: int
    at_least: float  # accuracy on new images that these assure, one-sided at a confidence of 90 %


@dataclass(frozen=True, kw_only=True, slots=True)
class BestModel:
    """The chosen model. Figures are the task's metric in [0, 1]."""

    candidate: str
    method: str
    validation: float | None  # what chose it; None: without labels the ranking did
    test: float | None  # on the test split, which chose nothing
    trial: int | None  # None: without labels there are no trials
    model_dir: Path | None  # exported open_clip folder; None: it could not be written
    on_test: FinalScore | None = None  # of the weights that are exported; None: no test split
    params: int | None = None  # of both its towers
    fits: int = 1  # of the tower, whose mean weights these are
    expected: ExpectedAccuracy | None = None  # without labels; None: there are labels, or fewer than two candidates
    answers: tuple[AnswerLevel, ...] = ()  # the surest first, the last answers all held-out images


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleModel:
    """Several models, pooled by a weighted sum of their log-probabilities. Figures are the task's metric in [0, 1]."""

    members: tuple[str, ...]  # candidates, the first is the expected best; one may be there by two methods
    trials: tuple[int, ...]  # their trials; none without labels
    weights: tuple[float, ...]  # of their log-probabilities
    validation: float | None  # on images that the scored models never saw; None: there are no labels
    validation_images: int
    test: float | None
    model_dir: Path
    on_test: FinalScore | None = None
    params: int | None = None  # of all members together: each is a pass of its own
    answers: tuple[AnswerLevel, ...] = ()  # as for `BestModel`
