"""A task of drawn shapes, and sessions in which members of the mini zoo look at one."""

from collections.abc import Sequence
from pathlib import Path

from helpers.drawings import draw_task
from vlmsel_auto.cache import Store
from vlmsel_auto.events import discard
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.pipeline.session import Session, views_of
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.task import TaskOptions, load_task


def shapes_task(root: Path, candidates: Sequence[Candidate], **drawn: int) -> Task:
    """Four labels a class, as the candidates see them."""
    drawn_at = draw_task(root / "shapes", **drawn)
    return load_task(drawn_at, TaskOptions(shots=4), views=views_of(candidates), workdir=root / "work")


def session_of(task: Task, candidates: Sequence[Candidate] | Sequence[str], folder: Path, **changes: object) -> Session:
    """On the processor, with the shipped library; what is measured is kept in ``folder``."""
    found = [each for one in candidates for each in (resolve(one) if isinstance(one, str) else [one])]
    fields = {"library": default_library(), "sink": discard, "device": "cpu", "store": Store(folder), **changes}
    return Session(task=task, candidates=found, **fields)
