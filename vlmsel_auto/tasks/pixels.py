"""A task's images: each is decoded when a view of it is first read, and kept as a uint8 row of that view.

The rows lie in an entry of the store (`pixel_files`), beside ``late.jsonl``: what was found of files only when they
were decoded.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.errors import ImageError, TaskError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.process import locked, writing
from vlmsel_auto.records import BadFile, ImageView, IntArray, PixelSource
from vlmsel_auto.tasks.decode import in_threads
from vlmsel_auto.tasks.pixel_files import RowWriter, ViewFile, view_name
from vlmsel_auto.tasks.preprocessing import read_view
from vlmsel_auto.tasks.scan import ImageSource

_LATE: Final = "late.jsonl"
_COMMIT: Final = 64  # rows that a kill may cost
_TOLD_AFTER: Final = 2.0  # seconds of decoding after which it is told
_STAND_INS: Final = 8  # images that are tried in a damaged one's place
_LOOKED_FOR: Final = 64  # images of which it is asked whether they are still there, when one cannot be read
_NEARLY_ALL: Final = 0.9
_GREY: Final = 127  # of a damaged image for which none can stand in


@dataclass(frozen=True, slots=True)
class LocalSink:
    """A sink that stays in its process: pickled, it becomes one that drops events."""

    sink: Sink

    def __reduce__(self) -> tuple[type[LocalSink], tuple[Sink]]:
        return LocalSink, (discard,)


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelStore(PixelSource):
    """The images of a task in an entry of the store. Holds no open file: cheap to share between processes.

    A file that turns out to be damaged, or to be gone, stops nothing: the next image of its class and split
    stands in for it, and `found_bad` lists it.
    """

    entry: Path  # folder of the store entry
    root: Path  # the task folder
    source: ImageSource
    positions: IntArray  # (n_rows,) position of each row in the source, sorted
    rows: IntArray  # (N,) row of each image of the task, sorted
    paths: tuple[str, ...]  # (N,) of the images
    peers: IntArray  # (N,) equal for images that may stand in for each other
    noted: frozenset[int]  # images whose conversion the task lists already
    told: LocalSink = LocalSink(discard)

    def read(self, view: ImageView, indices: IntArray) -> NDArray[np.uint8]:
        """Return the images ``indices`` (positions in ``Task.paths``) in ``view``: uint8 (n, size, size, 3), RGB.

        What is not there yet is decoded first, see `prepare`.
        """
        indices = np.asarray(indices, dtype=np.int64)
        self.prepare(view, indices)
        return self._file(view).read(self.rows[indices])

    def prepare(self, view: ImageView, indices: IntArray, *, check: Callable[[], None] = lambda: None) -> None:
        """Decode what `read` would have to, in threads, and keep it.

        Two processes that need the same images decode them once: one waits for the other. ``check`` is called after
        every image: what it raises ends the work, and what was decoded stays.

        Raises:
            TaskError: the task folder is gone, or nearly all of its images are.
            WorkdirError: the decoded images cannot be written.
        """
        file, rows = self._file(view), self.rows[np.asarray(indices, dtype=np.int64)]
        if file.has(rows).all():
            return
        lock = self.entry / f".{file.path.name}.lock"
        with writing(self.entry), locked(lock, wait=math.inf):
            missing = np.unique(rows[~file.has(rows)])
            if len(missing):
                self._decode(view, file, missing, check=check)

    @property
    def found_bad(self) -> tuple[BadFile, ...]:
        """Files that were found damaged, or in need of conversion, when they were decoded; of all runs, by path."""
        try:
            lines = (self.entry / _LATE).read_text("utf-8").splitlines()
        except OSError:
            return ()
        found: dict[str, BadFile] = {}
        for line in lines:
            with suppress(ValueError, TypeError):  # half a line of a run that was killed
                path, note, used = json.loads(line)
                found[path] = BadFile(path=str(path), reason=str(note), used=bool(used))
        return tuple(found[path] for path in sorted(found.keys() & set(self.paths)))

    def _file(self, view: ImageView) -> ViewFile:
        return ViewFile(path=self.entry / view_name(view), count=len(self.positions), size=view.size)

    def _decode(self, view: ImageView, file: ViewFile, rows: IntArray, *, check: Callable[[], None]) -> None:
        """Decode ``rows`` into the view's file; whoever calls holds its lock."""
        text = f"decoded {len(rows):,} images for models of {view.size} pixels"
        progress = ImageProgress(sink=self.told.sink, total=len(rows), text=text, after=_TOLD_AFTER)
        sources = zip(rows.tolist(), self.source.images(self.positions[rows]), strict=True)
        with ExitStack() as stack:
            writer = stack.enter_context(file.writer())
            waiting: list[int] = []
            stack.callback(lambda: writer.commit(waiting))
            work = partial(self._decode_one, view=view, writer=writer)
            for done, (row, bad) in enumerate(stack.enter_context(closing(in_threads(work, sources))), start=1):
                if bad is not None:
                    self._note(bad)
                waiting.append(row)
                if len(waiting) == _COMMIT:
                    writer.commit(waiting)
                    waiting.clear()
                progress(done)
                check()
        progress.finish(text)

    def _decode_one(
        self, item: tuple[int, Path | bytes], *, view: ImageView, writer: RowWriter
    ) -> tuple[int, BadFile | None]:
        """Write the row, and say what was wrong with its file."""
        row, source = item
        at = int(np.searchsorted(self.rows, row))
        bad: BadFile | None = None
        try:
            pixels, note = read_view(source, view)
            if note and at not in self.noted:
                bad = BadFile(path=self.paths[at], reason=note, used=True)
        except ImageError as error:
            if self._is_gone(source):
                raise TaskError(
                    f"the task folder and its images are needed until the end; bring it back (is a disk unmounted?), "
                    f"then the same command goes on, but got {error} in {self.root}"
                ) from error
            other, pixels = self._stand_in(at, view)
            bad = BadFile(path=self.paths[at], reason=f"{error}; {other} stood in for it")
        writer.put(row, pixels)
        return row, bad

    def _is_gone(self, source: Path | bytes) -> bool:
        """Whether the folder, or with this image nearly all of a sample, are no longer there: a few may be removed."""
        if not self.root.is_dir():
            return True
        if not isinstance(source, Path) or source.exists():
            return False
        some = self.rows[np.unique(np.linspace(0, len(self.rows) - 1, _LOOKED_FOR).astype(np.int64))]
        files = [one for one in self.source.images(self.positions[some]) if isinstance(one, Path)]
        return sum(not one.exists() for one in files) > _NEARLY_ALL * len(files)

    def _stand_in(self, at: int, view: ImageView) -> tuple[str, NDArray[np.uint8]]:
        """One of the next images of the same class and split that can be decoded: its name and pixels."""
        peers = np.flatnonzero(self.peers == self.peers[at])
        for other in np.roll(peers, -int(np.searchsorted(peers, at)))[1 : 1 + _STAND_INS]:
            (source,) = self.source.images(self.positions[self.rows[[other]]])
            with suppress(ImageError):
                return self.paths[other], read_view(source, view)[0]
        return "a grey image", np.full((view.size, view.size, 3), _GREY, dtype=np.uint8)

    def _note(self, bad: BadFile) -> None:
        with (self.entry / _LATE).open("a", encoding="utf-8") as stream:  # one write: lines of two processes stay whole
            stream.write(json.dumps([bad.path, bad.reason, bad.used]) + "\n")
        if not bad.used:
            self.told.sink(Notice(text=f"{bad.path}: {bad.reason}", level="warning"))


@dataclass(kw_only=True, slots=True)
class ImageProgress:
    """Tells a sink of work on ``total`` images, once it has taken ``after`` seconds."""

    sink: Sink
    total: int
    text: str
    after: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _started: bool = False

    def __post_init__(self) -> None:
        """Tell of the start where that need not wait."""
        self._start()

    def __call__(self, done: int) -> None:
        """Tell that so many are done, if the time has come."""
        self._start()
        if self._started and (done == self.total or done % max(1, self.total // 100) == 0):
            self.sink(StageProgress(stage="images", done=done))

    def finish(self, text: str) -> None:
        """Tell of the end, if the start was told."""
        if self._started:
            self.sink(StageFinished(stage="images", seconds=time.monotonic() - self._began, text=text))

    def _start(self) -> None:
        if not self._started and time.monotonic() - self._began >= self.after:
            self._started = True
            self.sink(StageStarted(stage="images", total=self.total, text=self.text))
