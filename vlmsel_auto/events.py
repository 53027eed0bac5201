"""What the core tells while it works. The core emits, it never prints: a sink renders, logs or drops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from vlmsel_auto.records import Agreement, BestModel, EnsembleModel, Ranking, TrialResult, TrialSpec

Stage: TypeAlias = Literal[
    "images", "screenings", "templates", "profiles", "ranking", "trials", "report", "library", "predict", "export"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStarted:
    """A stage begins; ``total`` steps are expected (None: unknown)."""

    stage: Stage
    total: int | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """``done`` steps of the stage are finished."""

    stage: Stage
    done: int
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFinished:
    """A stage ended after ``seconds`` of wall time."""

    stage: Stage
    seconds: float
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingReady:
    """A ranking was made, or updated by finished trials."""

    ranking: Ranking
    updated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStarted:
    """A trial begins; ``why`` says what chose it ("predicted rank 1", "sampled")."""

    number: int
    spec: TrialSpec
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEpoch:
    """An epoch of a running trial ended with this validation metric."""

    number: int
    epoch: int  # 1-based
    epochs: int
    validation: float
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFinished:
    """A trial ended, in whatever state. ``leader`` is the trial that would be chosen now."""

    result: TrialResult
    leader: TrialResult | None = None
    resumed: bool = False  # True: it was finished by an earlier run of the same search


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportWritten:
    """A search is over: its report lies in ``directory``."""

    directory: Path
    best: BestModel | None
    ensemble: EnsembleModel | None
    agreement: Agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One line that a person should see."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadProgress:
    """``done`` of ``total`` bytes that a candidate needs from the hub are here. May come from any thread."""

    candidate: str
    done: int  # bytes, with those of an earlier, broken-off download
    total: int | None = None  # bytes; None: the hub did not say
    rate: float | None = None  # bytes a second since the download began; None: nothing has come yet
    ended: bool = False  # True: the last of this download, whether it is whole (done equals total) or broke off


Event: TypeAlias = (
    StageStarted
    | StageProgress
    | StageFinished
    | RankingReady
    | TrialStarted
    | TrialEpoch
    | TrialFinished
    | ReportWritten
    | DownloadProgress
    | Notice
)


class Sink(Protocol):
    """Anything that takes events. Must be quick and must not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
        ...


def discard(event: Event, /) -> None:
    """Sink that drops every event."""
