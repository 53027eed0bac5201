"""Screening: one candidate after the other is loaded and embeds images of the task, as long as that is worth its time.

Before the first screening published figures and the library's accuracies say who is likely to be good. Every screening
moves the forecast of all candidates, since models rise and fall together, and the next is the one that promises most
for its seconds (`planning.next_screening`). One candidate that fails is named with its reason; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from vlmsel_auto.events import Notice, StageFinished, StageProgress, StageStarted
from vlmsel_auto.measuring.measure import embed_target
from vlmsel_auto.models.download import Prefetcher
from vlmsel_auto.models.hub import is_reachable
from vlmsel_auto.pipeline.each_candidate import CandidateJob, attempt, outcomes
from vlmsel_auto.pipeline.screenings import Screenings, Seen, known_before, screen_candidate
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.pipeline.source_profiles import SourceProfiles
from vlmsel_auto.planning.next_screening import next_screening, screening_values
from vlmsel_auto.planning.screening_posterior import DEFAULT, Screening
from vlmsel_auto.process import older_objects_left_alone
from vlmsel_auto.ranking.forecast import Forecast
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import NotScreened
from vlmsel_auto.reporting.formatting import plural

_LOST: Final = 3  # downloads in vain, one after the other, before the hub is taken for lost
# when all screenings that are left take no longer together, price is no reason to leave any
_FREE_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreeningResult:
    """What the screenings found."""

    found: Mapping[str, Measurement]  # by candidate
    failures: Mapping[str, str]  # candidate -> why it cannot be used
    passed_over: Mapping[str, NotScreened]  # by candidate
    forecast: Forecast  # in the order of the candidates
    seconds: float
    interrupted: bool = False  # someone asked to end


def screen(
    session: Session,
    *,
    kept: Mapping[str, Measurement],
    profiles: SourceProfiles | None = None,
    catches_interrupt: bool = False,
) -> ScreeningResult:
    """Screen candidates until none is left that is worth its time.

    Where several workers see this disk, screenings are made there, so many at once; the next is chosen by what those
    under way are expected to show. The price does not count while all screenings that are left take less than a minute
    together.

    Args:
        session: the task and its candidates.
        kept: what earlier runs measured, by candidate: screenings that cost nothing.
        profiles: made of each model while it is loaded, where their time is earned; None: none. Workers make none.
        catches_interrupt: after a first screening Ctrl+C ends the screenings, and what they found is returned.

    Raises:
        KeyboardInterrupt: asked to end.
    """
    began, sink = time.monotonic(), session.sink
    state, interrupted = _begun(session, kept), False
    if state.open_places():  # open_clip's seconds are of no screening, and its objects are older than screenings' ones
        import vlmsel_auto.models.zoo  # noqa: F401
    with older_objects_left_alone(), Prefetcher(sink=sink) as hub:
        try:
            if session.engine.slots > 1 and not session.engine.apart:
                _on_workers(state)
            while (place := _next(state)) is not None:
                _screen(state, place, hub=hub, following=_following(state, place), profiles=profiles)
                _told(state, place)
        except KeyboardInterrupt:
            state.running.clear()
            if not (catches_interrupt and state.found):
                raise
            interrupted = True
            sink(Notice(text="interrupted: the best so far is made a model of; Ctrl+C again ends at once"))
    seconds = time.monotonic() - began - (profiles.spent if profiles is not None else 0.0)
    text = f"{len(state.found)} of {plural(len(session.candidates), 'candidate')}"
    sink(StageFinished(stage="screenings", seconds=seconds, text=text))
    return ScreeningResult(
        found=state.found,
        failures=state.failures,
        passed_over=_why_not(state, interrupted=interrupted),
        forecast=state.forecast(),
        seconds=seconds,
        interrupted=interrupted,
    )


def _begun(session: Session, kept: Mapping[str, Measurement]) -> Screenings:
    """What is known before the first screening of this run."""
    state = Screenings(session=session, known=known_before(session))
    for m, one in enumerate(session.candidates):
        if one.id in kept:
            state.keep(m, kept[one.id])
    state.drop_slow()
    text = f"candidates embed {plural(session.task.screening_size, 'image')}"
    session.sink(StageStarted(stage="screenings", total=len(session.candidates), text=text))
    return state


def _told(state: Screenings, place: int) -> None:
    """Say that a candidate was screened, when those that it shows to be slow are out."""
    state.drop_slow()
    done, name = len(state.found) + len(state.failures), state.session.candidates[place].id
    state.session.sink(StageProgress(stage="screenings", done=done, text=name))


def _next(state: Screenings, *, imagined: Screening | None = None) -> int | None:
    """The candidate to screen now, or after an ``imagined`` screening; None: none."""
    made = [*state.screenings, *state.running.values(), *(() if imagined is None else (imagined,))]
    left = [m for m in state.open_places() if imagined is None or m != imagined.candidate]
    now, deadline = time.monotonic(), state.session.deadline
    if not left or (deadline is not None and now > deadline):
        return None
    seconds = state.seconds()
    least = np.full(len(seconds), np.inf)
    least[left] = 0.0 if seconds[left].sum() <= _FREE_SECONDS else state.session.price * seconds[left] / 60
    if deadline is not None:
        least[now + seconds > deadline] = np.inf
    place = next_screening(state.known.prior, made, costs=seconds, least=least, charges=state.charges())
    if place is None and not made:  # someone has to be screened, and there is time
        return min(left, key=lambda m: float(seconds[m]))
    return place


def _following(state: Screenings, place: int) -> int | None:
    """Who comes after ``place`` if that screening shows what is expected; None where nobody needs a download."""
    if not state.known.downloads.any():  # NaN, an unknown size, is one
        return None
    return _next(state, imagined=state.expected(place))


def _screen(
    state: Screenings, place: int, *, hub: Prefetcher, following: int | None, profiles: SourceProfiles | None
) -> None:
    """Screen one candidate, while the one that follows is downloaded."""
    from vlmsel_auto.models import zoo  # see `screen`

    session = state.session
    candidate = session.candidates[place]
    began = time.monotonic()
    outcome: tuple[Measurement, float] | str | None = attempt(lambda: hub.fetch(candidate))
    arrived = time.monotonic()
    state.in_vain = state.in_vain + 1 if isinstance(outcome, str) else 0
    if state.in_vain >= _LOST and not is_reachable():
        _without_hub(state)
        following = None
    if following is not None and state.known.downloads[following] != 0:
        hub.start(session.candidates[following])

    def visit() -> tuple[Measurement, float]:
        model = zoo.load(candidate, device=session.device, sink=session.sink)
        seen, now = embed_target(model, session.task, store=session.store), time.monotonic()
        if profiles is not None:
            profiles.visit(model, image_seconds=seen.seconds, screening_seconds=now - began, deadline=session.deadline)
        return seen, now

    if outcome is None:
        outcome = attempt(visit)
    if isinstance(outcome, tuple):
        seen, now = outcome
        state.take(place, seen, seconds=now - arrived, download_seconds=arrived - began)
    else:
        state.give_up(place, str(outcome))


def _on_workers(state: Screenings) -> None:
    """Keep every worker at a screening while one is worth its time."""
    session = state.session
    work = partial(screen_candidate, task=session.engine.share(session.task))

    def next_job() -> tuple[int, CandidateJob] | None:
        place = _next(state)
        if place is None:
            return None
        state.running[place] = state.expected(place)
        one = session.candidates[place]
        return place, CandidateJob(candidate=one, device=session.device, store=session.store, work=work)

    with closing(outcomes(session, next_job)) as ended:
        for place, outcome in ended:
            del state.running[place]
            if isinstance(outcome, Seen):
                state.take(
                    place, outcome.measurement, seconds=outcome.seconds, download_seconds=outcome.download_seconds
                )
            else:
                state.give_up(place, str(outcome))
            _told(state, place)


def _without_hub(state: Screenings) -> None:
    """Nobody else is asked for in vain: each would wait for the network."""
    lost = [m for m in state.open_places() if state.known.downloads[m] != 0]
    reason = "the hub cannot be reached any more"
    state.failures |= dict.fromkeys((state.session.candidates[m].id for m in lost), reason)
    state.session.sink(Notice(text=f"{reason}: {plural(len(lost), 'candidate')} cannot be had", level="warning"))


def _why_not(state: Screenings, *, interrupted: bool) -> dict[str, NotScreened]:
    left = state.open_places()
    if not left:
        return {}
    seconds = state.seconds()
    values = DEFAULT.realised * screening_values(state.known.prior, state.screenings, charges=state.charges())
    reasons, deadline = {}, state.session.deadline
    for m in left:
        late = deadline is not None and time.monotonic() + seconds[m] > deadline
        why = "no time was left for it" if late else f"it promised {100 * values[m]:.2f} points"
        why = "the screenings were interrupted" if interrupted else why
        reasons[state.session.candidates[m].id] = NotScreened(reason=why, seconds=float(seconds[m]))
    return reasons
