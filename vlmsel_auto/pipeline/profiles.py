"""Conductance of the candidates on the target, where source tasks can be compared by it; a job of an engine each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Final

from vlmsel_auto.engines.engine import Channel, Shared
from vlmsel_auto.events import StageFinished, StageStarted
from vlmsel_auto.measuring.measure import PROFILE_IMAGES, measure_target
from vlmsel_auto.pipeline.each_candidate import CandidateJob, for_each
from vlmsel_auto.pipeline.screen import ScreeningResult
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, Task

_PROFILE_SHARE: Final = 0.25  # of the time for looking, at most, for conductance: labels already say most
_PROFILE_TIMES: Final = 20.0  # what conductance of an image takes at least, in times of embedding it


def _profile(job: CandidateJob, channel: Channel, *, task: Shared[Task]) -> Measurement:
    """A candidate's conductance on the task."""
    return measure_target(job.load(channel), task.get(), store=job.store)


def with_profiles(session: Session, screening: ScreeningResult) -> Mapping[str, Measurement]:
    """What the screenings found, with conductance where source tasks can be compared by it.

    That is paid for candidates that the library has profiles of, and for those on this disk, which own searches will
    add. It is compared, so all of them have it or none: with a deadline, none where it takes over a quarter of the
    time.

    Args:
        session: its task is the target, in the templates that were chosen.
        screening: what the screenings found.
    """
    sources = session.sources
    known = dict(zip(sources.candidate_ids, sources.has_profiles, strict=True))
    useful = [
        one
        for one in session.candidates
        if one.has_text and one.id in screening.found and (known.get(one.id, False) or one.path is not None)
    ]
    missing = [one for one in useful if not screening.found[one.id].blocks]
    deadline = session.deadline
    allowed = None if deadline is None else _PROFILE_SHARE * (screening.seconds + max(0.0, deadline - time.monotonic()))
    embedding = sum(
        screening.found[one.id].seconds for one in missing if math.isfinite(screening.found[one.id].seconds)
    )
    expected = _PROFILE_TIMES * embedding * min(PROFILE_IMAGES, len(session.task.screened))
    hurried = allowed is not None and (screening.passed_over or expected > allowed)
    if not missing or hurried:
        return screening.found
    began = time.monotonic()
    text = "conductance of every candidate on the target"
    session.sink(StageStarted(stage="profiles", total=len(missing), text=text))
    found = _measure(session, missing, allowed=allowed)
    session.sink(StageFinished(stage="profiles", seconds=time.monotonic() - began))
    return {**screening.found, **found}


def _measure(session: Session, missing: Sequence[Candidate], *, allowed: float | None) -> dict[str, Measurement]:
    """By candidate; none at all where they would take longer than ``allowed`` seconds."""
    began, found = time.monotonic(), dict[str, Measurement]()
    work = partial(_profile, task=session.near_engine.share(session.task))
    with closing(for_each(session, missing, lambda: work, stage="profiles", lacking="has no conductance")) as ended:
        for done, candidate, outcome in ended:
            if isinstance(outcome, Measurement):
                found[candidate.id] = outcome
            if allowed is not None and (time.monotonic() - began) * len(missing) / done > allowed:
                return {}
    return found
