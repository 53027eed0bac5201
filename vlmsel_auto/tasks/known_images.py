"""Images of a folder of which it is known what they are, and the task that some of them make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.records import BadFile, ImageView, IntArray, Task
from vlmsel_auto.tasks.copies import Identity
from vlmsel_auto.tasks.file_names import printable, shown
from vlmsel_auto.tasks.pixel_files import Identify, open_entry
from vlmsel_auto.tasks.pixels import ImageProgress, LocalSink, PixelStore
from vlmsel_auto.tasks.scan import ListedImage, Scan


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How images are read: where they are kept, what is wanted of them at once, who is told."""

    workdir: Path  # decoded images are kept in its folder pixels, and found again by a second call on the same files
    views: Sequence[ImageView] = ()  # made while images are decoded anyway
    sink: Sink = discard


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownImages:
    """Images of a scan of which it is known what they are."""

    scan: Scan
    positions: IntArray  # (n,) of the scan's entries, sorted
    identities: tuple[Identity, ...]  # (n,)
    entry: Path  # of the pixel store
    sink: Sink

    @property
    def entries(self) -> list[ListedImage]:
        """What the folder names of each (n,)."""
        return [self.scan.entries[place] for place in self.positions]

    @property
    def odd(self) -> list[BadFile]:
        """Files that cannot be used, or had to be converted."""
        return [
            BadFile(path=printable(entry.path), reason=row.note, used=bool(row.digest))
            for entry, row in zip(self.entries, self.identities, strict=True)
            if row.note
        ]

    def usable(self) -> list[int]:
        """Places of those that can be decoded.

        Raises:
            TaskError: there is none.
        """
        good = [place for place, row in enumerate(self.identities) if row.digest]
        if not good:
            lost = shown([f"{one.path}: {one.reason}" for one in self.odd])
            raise TaskError(f"no image was found: not one file can be decoded, but got {lost}")
        return good

    def task(
        self, chosen: Sequence[int], *, labels: IntArray, peers: IntArray, copies: Sequence[BadFile], digest: str
    ) -> Task:
        """A task of these (N,) images, as yet without split, notes and seed.

        Args:
            chosen: places of the images.
            labels: (N,) of `records.Task`.
            peers: (N,) equal for images that may stand in for each other.
            copies: that were left out, or are worth telling.
            digest: of the task.
        """
        scan, told, entries = self.scan, self.scan.declaration, self.entries
        pixels = PixelStore(
            entry=self.entry,
            root=scan.root,
            source=scan.source,
            positions=self.positions,
            rows=np.array(chosen, dtype=np.int64),
            paths=tuple(printable(entries[place].path) for place in chosen),
            peers=peers,
            noted=frozenset(at for at, place in enumerate(chosen) if self.identities[place].note),
            told=LocalSink(self.sink),
        )
        return Task(
            name=told.name,
            root=scan.root,
            classes=scan.classes,
            prompts=scan.prompts,
            templates=told.templates,
            domain=told.domain,
            metric=told.metric,
            paths=tuple(entries[place].path for place in chosen),
            labels=labels,
            bad_files=tuple(sorted([*scan.stray, *self.odd, *copies], key=lambda one: (one.used, one.path))),
            pixels=pixels,
            digest=digest,
        )


@contextmanager
def known_images(scan: Scan, positions: IntArray, *, by: Identify, reading: Reading) -> Iterator[KnownImages]:
    """Find out what images of a scan are; where the block raises, none of them is kept.

    Raises:
        WorkdirError: the decoded images cannot be written.
    """
    many = f"{len(positions):,} images"
    progress = ImageProgress(sink=reading.sink, total=len(positions), text=f"reading {many}")
    opened = open_entry(
        root=reading.workdir / "pixels",
        key=scan.source.key(positions),
        count=len(positions),
        sources=lambda: scan.source.images(positions),
        identify=by,
        views=reading.views,
        progress=progress,
        sink=reading.sink,
    )
    try:
        yield KnownImages(
            scan=scan, positions=positions, identities=opened.identities, entry=opened.path, sink=reading.sink
        )
    except BaseException:  # also on Ctrl+C
        opened.discard()
        raise
    made = f"decoded {many}" if by == "pixels" else f"looked at {many}"
    progress.finish("known from an earlier run" if opened.reused else made)
