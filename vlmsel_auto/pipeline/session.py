"""What is open while candidates are screened and ranked, and while a search lasts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Json, Store, default_cache_dir
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Sink
from vlmsel_auto.library.places import open_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.models.hub import hub_offline
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.affordable import affordable_sample
from vlmsel_auto.pipeline.choose import Chosen, choose
from vlmsel_auto.pipeline.request import TaskRequest
from vlmsel_auto.pipeline.search import SearchRequest
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.process import writing
from vlmsel_auto.records import Candidate, ImageView, Task
from vlmsel_auto.tasks.datasets import task_folder
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.unlabelled_pool import AsManyAsFit

_EAGER_VIEWS: Final = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Session(Chosen):
    """A task, the candidates that were chosen for it, and what they are measured with."""

    task: Task  # its support set is embedded, or all images without labels; these move no forecast
    library: Library  # of source tasks; accuracies on them are figures like those that are published
    device: str  # where models run
    store: Store  # keeps embeddings and measurements
    sink: Sink  # takes events
    limits: Limits = NO_LIMITS  # of latency alone is judged here: who takes longer, or is expected to, cannot be used
    objective: Objective = ACCURACY  # screenings go to whom it expects to be worth most
    seed: int = 0
    deadline: float | None = None  # `time.monotonic` after which no candidate is loaded; None: no end
    price: float = POLICY.price  # accuracy that a screening must promise for each minute that it takes
    engine: Engine = field(default_factory=InProcess)  # where models run, as many at once as it has slots

    @cached_property
    def sources(self) -> Library:
        """The library without this task."""
        return self.library.leave_out(name=self.task.name, digest=self.task.digest)

    @property
    def near_engine(self) -> Engine:
        """The engine, if its workers see this disk; else this process."""
        return InProcess() if self.engine.apart else self.engine


@contextmanager
def opened(request: TaskRequest, *, sink: Sink) -> Iterator[Session]:
    """Choose the candidates and read the images; embeddings are kept in the user's cache. Raises as `rank.rank`."""
    known, device = open_library(request.library), str(pick_device(request.device))
    root = Path(request.cache_dir or default_cache_dir())
    with hub_offline(request.offline), writing(root), tempfile.TemporaryDirectory(prefix="vlmsel-") as scratch:
        chosen = choose(request, sink=sink)
        images: int | AsManyAsFit | None = request.images
        if images is None:
            images = affordable_sample(chosen.candidates, machine=chosen.machine, device=device)
        options = TaskOptions(
            shots=request.shots, seed=request.seed, classes=request.classes, unlabelled=request.unlabelled,
            images=images, groups=request.groups_of_folder,
        )  # fmt: skip
        folder = task_folder(request.data, folder=Path(scratch) / "dataset", groups=request.groups)
        task = load_task(folder, options, workdir=root, views=views_of(chosen.candidates), sink=sink)
        yield Session(
            **vars(chosen), task=task, library=known, device=device, store=Store(root / "targets"), sink=sink,
            limits=request.limits, seed=request.seed,
        )  # fmt: skip


def views_of(candidates: Sequence[Candidate]) -> tuple[ImageView, ...]:
    """The geometries to decode images into at once: none where there are many, most of which nobody will read."""
    found = tuple(dict.fromkeys(one.view for one in candidates))
    return found if len(found) <= _EAGER_VIEWS else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A search while it lasts: it has its task, its candidates and its work directory."""

    request: SearchRequest
    session: Session
    command: str  # as the report says it
    settings: Mapping[str, Json]  # likewise; those that a work directory is bound to
    began: float  # `time.monotonic` from which wall time counts
    started_after: float  # seconds until the first image was read

    @property
    def workdir(self) -> Path:
        """Where it works."""
        return self.request.folder

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.began
