"""The stage that chooses prompt templates for a folder without labels of which nobody named any."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Channel
from vlmsel_auto.events import StageFinished, StageStarted
from vlmsel_auto.measuring.measure import find_measurement
from vlmsel_auto.measuring.reference_embeddings import ReferenceEmbeddings, mean_text, reference_embeddings
from vlmsel_auto.models.embedding import reword
from vlmsel_auto.pipeline.each_candidate import CandidateJob, Work, for_each
from vlmsel_auto.pipeline.screen import ScreeningResult
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.templates import LEAST_IMAGES, LEAST_VOTERS, Heard, choose_by_agreement
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.reporting.formatting import quoted
from vlmsel_auto.tasks.templates import BANK
from vlmsel_auto.tasks.unlabelled_pool import spoken_in

_SHARE: Final = 0.5  # of the time for looking, at most: words tell more than conductance
_FREE_SECONDS: Final = 120.0  # without a deadline: as long as the screenings, or this long
_FEWEST: Final = 8  # templates that are worth trying
_MOST_TEXTS: Final = 10_000  # of a candidate: a thousand classes in ten templates


def _embed_texts(
    job: CandidateJob, channel: Channel, *, prompts: Sequence[str], templates: Sequence[str]
) -> ReferenceEmbeddings:
    """A candidate's class names in templates, and pictures to compare them with."""
    return reference_embeddings(job.candidate, prompts, templates, load=partial(job.load, channel), store=job.store)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spoken:
    """A task in the templates that were chosen, and what the screenings found in these."""

    task: Task
    screening: ScreeningResult
    chosen: tuple[str, ...] = ()  # templates; (): the task's own stay
    note: str = ""  # for the report, where some were tried


def choose_templates(session: Session, screening: ScreeningResult) -> Spoken:
    """Speak of the classes of a task without labels, which names no templates, in those that candidates agree on.

    Nothing is changed where fewer than six candidates saw twenty images, where the screenings were interrupted, or
    where there is no time for eight templates.

    Args:
        session: its store keeps texts, and what is known of the images under the new texts.
        screening: what the screenings found.
    """
    task, deadline, sink = session.task, session.deadline, session.sink
    unchanged = Spoken(task=task, screening=screening)
    seeing = [one for one in session.candidates if one.id in screening.found]
    most = min(len(BANK), _MOST_TEXTS // task.n_classes)
    few = len(seeing) < LEAST_VOTERS or len(task.screened) < LEAST_IMAGES or most < _FEWEST
    if task.is_labelled or task.names_templates or screening.interrupted or few:
        return unchanged
    allowed = max(_FREE_SECONDS, screening.seconds)
    if deadline is not None:
        left = max(0.0, deadline - time.monotonic())
        allowed = min(left, _SHARE * (screening.seconds + left))
    began = time.monotonic()
    sink(StageStarted(stage="templates", total=len(seeing), text=f"class names in {most} templates"))
    words = _words(session, seeing, most=most, allowed=allowed)
    if len(words) >= LEAST_VOTERS:
        made = _agreed(task, screening, words, seeing=seeing, store=session.store)
    else:
        why = "too few candidates could try others" if words else "there was no time to try others"
        made = replace(unchanged, note=f"class names are spoken as {quoted(BANK[:1])}: {why}")
    sink(StageFinished(stage="templates", seconds=time.monotonic() - began, text=quoted(made.task.templates)))
    return made


def _agreed(
    task: Task,
    screening: ScreeningResult,
    words: Mapping[str, ReferenceEmbeddings],
    *,
    seeing: Sequence[Candidate],
    store: Store,
) -> Spoken:
    """The task in the templates that those with words agree on; screenings of the others count no more."""
    tried = min(len(one.captions) for one in words.values())
    choice = choose_by_agreement(
        [
            Heard(
                images=screening.found[name].features,
                elsewhere=one.elsewhere.astype(np.float64),
                captions=one.captions[:tried],
            )
            for name, one in words.items()
        ]
    )
    chosen = tuple(BANK[place] for place in choice.places)
    if chosen == task.templates:
        note = f"class names are spoken as {quoted(chosen)}: in none of {tried - 1} others do candidates agree more"
        return Spoken(task=task, screening=screening, note=note)
    note = (
        f"class names are spoken as {quoted(chosen)}: of {tried} templates what candidates agree in most "
        f"(kappa {choice.kappa:.2f}, and {choice.before:.2f} in {quoted(BANK[:1])}); "
        "templates in task.toml replace them"
    )
    spoken, places = spoken_in(task, chosen), list(choice.places)
    found = {
        one.id: _reworded(
            one, task, spoken, text=mean_text(words[one.id].captions[places]), screening=screening, store=store
        )
        for one in seeing
        if one.id in words
    }
    return Spoken(task=spoken, screening=replace(screening, found=found), chosen=chosen, note=note)


def _reworded(
    candidate: Candidate,
    task: Task,
    spoken: Task,
    *,
    text: NDArray[np.float32],
    screening: ScreeningResult,
    store: Store,
) -> Measurement:
    """What is known of a candidate under the new texts: what was measured under these before, or its embeddings."""
    kept = find_measurement(candidate, spoken, store=store)
    if kept is not None:
        return kept
    reword(candidate, task, spoken, text=text, store=store)
    seen = screening.found[candidate.id]
    return replace(seen, text_features=text.astype(np.float64), total=np.nan, activity=np.full(0, np.nan), blocks=())


def _words(
    session: Session, seeing: Sequence[Candidate], *, most: int, allowed: float
) -> dict[str, ReferenceEmbeddings]:
    """By candidate, in the first templates of the bank: fewer of them, or none at all, where time is short."""
    began, found, made = time.monotonic(), dict[str, ReferenceEmbeddings](), 0

    def work() -> Work:
        return partial(_embed_texts, prompts=session.task.prompts, templates=BANK[:most])

    with closing(
        for_each(session, seeing, work, stage="templates", lacking="says nothing in other templates")
    ) as ended:
        for done, candidate, outcome in ended:
            if isinstance(outcome, ReferenceEmbeddings):
                found[candidate.id] = outcome
                made += len(outcome.captions)
            spent, left = time.monotonic() - began, len(seeing) - done
            if left and made and spent + left * most * spent / made > allowed:
                most = int((allowed - spent) / (left * spent / made))
                if most < _FEWEST:
                    return {}
    return found
