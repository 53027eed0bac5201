"""What is known of candidates before and between screenings, what is expected of one, and one as a job of an engine."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.engines.engine import Channel, Shared
from vlmsel_auto.events import Notice
from vlmsel_auto.library import published
from vlmsel_auto.library.published import expected_figures
from vlmsel_auto.measuring.measure import embed_target
from vlmsel_auto.models.download import fetch, is_cached
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.machine import Machine, screening_embedding_seconds
from vlmsel_auto.pipeline.affordable import charges_of, expected_latencies
from vlmsel_auto.pipeline.each_candidate import CandidateJob
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.planning.screening_posterior import Screening, screening_posterior
from vlmsel_auto.planning.screening_prior import ScreeningPrior, learn_prior, nothing_published
from vlmsel_auto.planning.screening_seconds import TimedScreening, screening_seconds
from vlmsel_auto.ranking.forecast import Forecast, screening_accuracy
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, FloatArray, Task
from vlmsel_auto.units import milliseconds

_SPEED: Final = 5e10  # operations a second of a machine that nobody measured
_BANDWIDTH: Final = 2e7  # bytes a second, until a download tells
_EXPECTED_SD: Final = 0.03  # accuracy: of a screening that was not made yet


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Of M candidates, in their order."""

    prior: ScreeningPrior  # accuracies on other tasks, as possible ones on this
    published: NDArray[np.bool_]  # (M,) whether there are figures of it
    embedding: FloatArray  # (M,) seconds in which it should embed the images; NaN: unknown
    downloads: FloatArray  # (M,) bytes that a screening would download; NaN: unknown


def known_before(session: Session) -> Known:
    """Published zero-shot accuracies, and the library's side by side; who has none stands where it is expected.

    A task of the library that is a published data set only fills what is not published there. Where the target has
    labels, the library's accuracies are those after tuning, as far as it knows them.
    """
    candidates, library, images = session.candidates, session.sources, session.task.screening_size
    rows = {name: m for m, name in enumerate(library.candidate_ids)}
    truth = np.where(np.isfinite(library.tuned) & session.task.is_labelled, library.tuned, library.zero_shot)
    own = np.full((len(candidates), len(library.tasks)), np.nan)
    for m, one in enumerate(candidates):
        if one.id in rows:
            own[m] = truth[rows[one.id]]
    figures, columns = published.zero_shot([one.id for one in candidates]), published.datasets()
    table = figures.copy()
    shared = {s: columns.index(name) for s, name in enumerate(library.task_names) if name in columns}
    for s, column in shared.items():
        table[:, column] = np.where(np.isfinite(table[:, column]), table[:, column], own[:, s])
    table = np.concatenate([table, np.delete(own, list(shared), axis=1)], axis=1)
    unknown = ~np.isfinite(table).any(axis=1)
    table[unknown, : len(columns)] = expected_figures([candidates[m] for m in np.flatnonzero(unknown).tolist()])
    usable = (np.isfinite(table).sum(axis=0) > 1).sum() > 1
    return Known(
        prior=learn_prior(table) if usable else nothing_published(len(candidates)),
        published=np.asarray(np.isfinite(figures).any(axis=1)),
        embedding=np.array([_embedding_seconds(one, images, session.machine) for one in candidates]),
        downloads=np.array([_download_bytes(one, session.downloads.get(one.id)) for one in candidates]),
    )


def _embedding_seconds(candidate: Candidate, images: int, machine: Machine | None) -> float:
    if machine is None:
        return math.nan if candidate.flops is None else candidate.flops * images / _SPEED
    return screening_embedding_seconds(facts_of(candidate), images=images, machine=machine) or math.nan


def _download_bytes(candidate: Candidate, told: int | None) -> float:
    needed = facts_of(candidate, download_bytes=told).download_bytes
    return 0.0 if is_cached(candidate) else math.nan if needed is None else float(needed)


@dataclass(kw_only=True, eq=False)
class Screenings:
    """The state of the loop; arrays are in the order of the candidates."""

    session: Session
    known: Known
    found: dict[str, Measurement] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    screenings: list[Screening] = field(default_factory=list)
    timed: list[TimedScreening] = field(default_factory=list)
    in_vain: int = 0  # downloads that failed, one after the other
    running: dict[int, Screening] = field(default_factory=dict)  # by place: who is screened now, and what is expected

    def keep(self, place: int, measurement: Measurement) -> None:
        """Take what was measured, now or by an earlier run."""
        self.found[self.session.candidates[place].id] = measurement
        labels = self.session.task.known_labels
        seen = measurement.embedded(labels)
        if seen is not None and labels is not None:  # without labels a screening tells no accuracy
            accuracy, sd = screening_accuracy(seen)
            self.screenings.append(Screening(candidate=place, accuracy=accuracy, sd=sd))

    def take(self, place: int, seen: Measurement, *, seconds: float, download_seconds: float) -> None:
        """Take a screening that was made now, and how long it took."""
        self.keep(place, seen)
        downloaded = float(np.nan_to_num(self.known.downloads[place]))
        took = TimedScreening(
            candidate=place, seconds=seconds, downloaded=downloaded, download_seconds=download_seconds
        )
        self.timed.append(took)

    def give_up(self, place: int, reason: str) -> None:
        """A candidate cannot be used."""
        name = self.session.candidates[place].id
        self.failures[name] = reason
        self.session.sink(Notice(text=f"{name} cannot be used: {reason}", level="warning"))

    def drop_slow(self) -> None:
        """Take out who is slower than the limits allow, as measured, or as expected once somebody was."""
        most = self.session.limits.max_latency
        if most is None or not self.found:
            return
        measured = self.latencies()
        expected = expected_latencies(self.session.candidates, self.session.machine, measured)
        for one, seconds in zip(self.session.candidates, expected.tolist(), strict=True):
            if seconds > most and one.id not in self.failures:
                how = "measured" if one.id in measured else "expected"
                reason = f"{milliseconds(seconds)} an image, as {how}, exceed --max-latency {milliseconds(most)}"
                self.failures[one.id] = reason
                self.found.pop(one.id, None)
                self.session.sink(Notice(text=f"{one.id} cannot be used: {reason}"))

    def open_places(self) -> list[int]:
        """Candidates that may yet be screened."""
        known = self.found.keys() | self.failures.keys()
        return [m for m, one in enumerate(self.session.candidates) if one.id not in known and m not in self.running]

    def forecast(self) -> Forecast:
        """What published figures and the screenings say."""
        # what an earlier run saw counts in the same order
        screenings = sorted(self.screenings, key=lambda each: each.candidate)
        now = screening_posterior(self.known.prior, screenings)
        return Forecast(
            mean=now.mean,
            # before the first screening nearly all of it would be the level's, which all share
            sd=now.sd if screenings else np.sqrt(np.diag(self.known.prior.cov)),
            screened=np.array([one.id in self.found for one in self.session.candidates]),
            published=self.known.published,
        )

    def expected(self, place: int) -> Screening:
        """A screening as it is expected to come out, to plan what follows it."""
        accuracy = float(np.clip(screening_posterior(self.known.prior, self.screenings).mean[place], 0.0, 1.0))
        return Screening(candidate=place, accuracy=accuracy, sd=_EXPECTED_SD)

    def latencies(self) -> dict[str, float]:
        """Seconds an image of those screened, as measured, by id."""
        return {name: one.seconds for name, one in self.found.items() if math.isfinite(one.seconds)}

    def charges(self) -> FloatArray | None:
        """(M,) what the objective takes off accuracies; None: nothing of any."""
        session = self.session
        off = charges_of(
            session.objective, session.candidates, machine=session.machine, measured=self.latencies()
        )  # fmt: skip
        return np.array([off[one.id] for one in session.candidates]) if off else None

    def seconds(self) -> FloatArray:
        """(M,) that a screening takes."""
        return screening_seconds(
            embedding=self.known.embedding, downloads=self.known.downloads, timed=self.timed, bandwidth=_BANDWIDTH
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a screening showed."""

    measurement: Measurement
    seconds: float  # without the download
    download_seconds: float


def screen_candidate(job: CandidateJob, channel: Channel, *, task: Shared[Task]) -> Seen:
    """Load a candidate and embed the images that screenings see."""
    from vlmsel_auto.models import zoo  # noqa: F401 - imports open_clip: seconds that are no screening's

    began = time.monotonic()
    fetch(job.candidate, sink=channel.tell)
    arrived = time.monotonic()
    seen = embed_target(job.load(channel), task.get(), store=job.store)
    return Seen(measurement=seen, seconds=time.monotonic() - arrived, download_seconds=arrived - began)
