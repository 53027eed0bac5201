"""A predicted order of candidates, how it agrees with what tuning found, and what a search chose: one model or more."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Basis(enum.StrEnum):
    """What a candidate's place in a ranking rests on."""

    LIBRARY_AND_LABELS = "library and labels"
    LIBRARY = "library"
    LABELS = "labels"
    IMAGES = "unlabelled images"
    PUBLISHED = "published figures"
    NOTHING = "no signal"

    @property
    def has_library(self) -> bool:
        """Whether source tasks of a library took part."""
        return self in (Basis.LIBRARY, Basis.LIBRARY_AND_LABELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A central interval of an estimate."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedCandidate:
    """One line of a ranking. Scores are in standard units of predicted accuracy within the task; higher is better."""

    candidate: str
    score: float  # posterior mean: everything fused
    sd: float  # posterior standard deviation
    prior: float | None  # what the library alone says (no target labels)
    evidence: float | None  # what the target's labels alone say
    p_best: float  # probability of being the best of the list
    p_top5: float
    rank_interval: Interval  # of the true rank, 1 = best
    basis: Basis
    signals: Mapping[str, float] = field(default_factory=dict)  # raw score by name: "knn", "logme", "dcd", ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NotScreened:
    """Why a candidate was ranked without a screening of it."""

    reason: str
    seconds: float  # that a screening would take


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Predicted order of the candidates on one task, best first."""

    task: str
    ranked: tuple[RankedCandidate, ...]
    failures: Mapping[str, str] = field(default_factory=dict)  # candidate -> why it could not be ranked
    not_looked: Mapping[str, NotScreened] = field(default_factory=dict)  # who was not screened; files have this name
    seed: int = 0  # of split, cap and few-shot draws
    notes: tuple[str, ...] = ()  # what a reader must know: sources used, trust in prior and evidence
    templates: tuple[str, ...] = ()  # that candidates agreed on, of a task that names none; (): none were chosen

    @property
    def order(self) -> tuple[str, ...]:
        """Candidate ids, best first."""
        return tuple(line.candidate for line in self.ranked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Predicted against actual rank over the n tuned candidates. None: too few to say, or all of a side are equal."""

    n: int
    tau_b: float | None
    weighted_tau: float | None
    ndcg5: float | None  # relevance max(0, 6 - true rank), linear gain
    top1_loss: float | None  # best actual accuracy minus that of the predicted best, in [0, 1]
    top5_loss: float | None
    tau_b_interval: Interval | None = None
    ndcg5_interval: Interval | None = None
    note: str = ""


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
