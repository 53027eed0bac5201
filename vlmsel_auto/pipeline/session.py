"""What candidates are screened and ranked with: open from the first screening to the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Sink
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.models.machine import Machine
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Candidate, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A task, its candidates, and what they are measured with."""

    task: Task  # its support set is embedded, or all images without labels; these move no forecast
    candidates: Sequence[Candidate]  # M of them
    library: Library  # of source tasks; accuracies on them are figures like those that are published
    device: str  # where models run
    store: Store  # keeps embeddings and measurements
    sink: Sink  # takes events
    failures: Mapping[str, str] = field(default_factory=dict)  # candidates that were named but cannot be used -> why
    limits: Limits = NO_LIMITS  # of latency alone is judged here: who takes longer, or is expected to, cannot be used
    objective: Objective = ACCURACY  # screenings go to whom it expects to be worth most
    machine: Machine | None = None  # this one, as measured; None: an ordinary one
    downloads: Mapping[str, int] = field(default_factory=dict)  # bytes still to come, by candidate, as the hub told
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
