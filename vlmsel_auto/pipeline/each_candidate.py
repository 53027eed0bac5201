"""Work with each candidate, which may fail without stopping the others: one job of an engine each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.each_job import as_they_end, why_not
from vlmsel_auto.engines.engine import Channel, Done, Job, Resources
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Notice, Stage, StageProgress
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.pipeline.session import Session
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Candidate

K = TypeVar("K")
R = TypeVar("R")
Work: TypeAlias = "Callable[[CandidateJob, Channel], object]"


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateJob:
    """Work with one candidate."""

    candidate: Candidate
    device: str
    store: Store  # on a disk that the coordinator sees
    work: Work  # can be pickled

    def run(self, channel: Channel) -> object:
        """What the work gives, or why the candidate cannot be used."""
        return attempt(lambda: self.work(self, channel))

    def load(self, channel: Channel) -> LoadedModel:
        """The candidate's model."""
        from vlmsel_auto.models import zoo  # imports open_clip: seconds that are spared where all is kept

        return zoo.load(self.candidate, device=self.device, sink=channel.tell)


def outcomes(session: Session, following: Callable[[], tuple[K, Job[object]] | None]) -> Generator[tuple[K, object]]:
    """As `each_job.as_they_end` near this disk, with what each job gave, or why it gave nothing."""
    needs = Resources(gpus=1.0 if session.device.startswith("cuda") else 0.0)

    def told(event: object) -> None:
        session.sink(cast("Event", event))

    with closing(as_they_end(session.near_engine, following, resources=needs, told=told)) as ending:
        for key, ended in ending:
            yield key, ended.result if isinstance(ended, Done) else why_not(ended)


def for_each(
    session: Session,
    candidates: Sequence[Candidate],
    work: Callable[[], Work],
    *,
    stage: Stage,
    lacking: str,
) -> Generator[tuple[int, Candidate, object]]:
    """Do with each candidate what ``work`` gives when its job begins, as `outcomes`, and say how far the stage is.

    Yields how many are done, the candidate, and what it gave; a text says why it gave nothing, which is told as what is
    ``lacking`` of it.
    """
    jobs = (
        (one, CandidateJob(candidate=one, device=session.device, store=session.store, work=work()))
        for one in candidates
    )
    with closing(outcomes(session, lambda: next(jobs, None))) as ended:
        for done, (one, outcome) in enumerate(ended, start=1):
            if isinstance(outcome, str):
                session.sink(Notice(text=f"{one.id} {lacking}: {outcome}", level="warning"))
            session.sink(StageProgress(stage=stage, done=done, text=one.id))
            yield done, one, outcome


def attempt(work: Callable[[], R]) -> R | str:
    """What ``work`` with one candidate gives, or why it cannot be done; its model is released in either case."""
    try:
        return work()
    except VlmselError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # torch: out of memory, operators a device lacks
        what = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return f"{what}: {' '.join(str(error).split())[:300]}"
    finally:
        release_memory()
