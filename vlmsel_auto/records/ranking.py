"""A predicted order of candidates, and how it agrees with what tuning found."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


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
