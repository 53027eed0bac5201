"""Samples of tar archives as webdatasets have them: images (KEY.jpg, .png or .webp) and class numbers (KEY.cls).

Archives are hundreds of megabytes long and often sorted by class. So samples are taken at places spread over them: the
reader jumps to a place, looks for the next tar header and reads a few samples. Nothing is unpacked, no name in an
archive becomes a path, and the bytes that are read are bounded.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from vlmsel_auto.errors import ImageError
from vlmsel_auto.tasks.decode import decode_image, quiet_pillow
from vlmsel_auto.tasks.file_names import printable

_IMAGES: Final = frozenset({"jpg", "jpeg", "png", "webp"})
_LABEL: Final = "cls"
_MOST_IMAGE: Final = 1 << 25  # bytes of one image
_MOST_LABEL: Final = 20  # bytes of a class number
_RUN: Final = 2  # samples of a place, at least: in sorted archives two of a class
_MOST_PLACES: Final = 64
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A tar file that can be read from any byte on."""

    name: str  # for messages
    size: int  # bytes; 0: nobody knows, and it is read from its beginning
    # gives an offset, at most the one that is asked for, and the bytes from there on; leaving it ends the reading
    read_from: Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]


def local_archive(path: Path) -> Archive:
    """A tar file on this disk."""

    @contextmanager
    def read_from(offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        with path.open("rb") as stream:
            stream.seek(offset)
            yield offset, iter(lambda: stream.read(_CHUNK), b"")

    return Archive(name=str(path), size=path.stat().st_size, read_from=read_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSample:
    """An image and its class."""

    key: str  # its name in the archive: for messages only
    label: int  # 0..K-1
    image: bytes
    suffix: str  # "jpg", "png", "webp"


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenSamples:
    """What was taken of some archives."""

    samples: tuple[TarSample, ...]
    skipped: tuple[str, ...]  # what could not be used, one sentence each
    read_bytes: int


def take_samples(archives: Sequence[Archive], *, n_classes: int, count: int, most_bytes: int) -> TakenSamples:
    """Take samples spread evenly over the archives, in their order.

    Args:
        archives: tar files, not compressed.
        n_classes: a sample of another class number is skipped, as is one whose image cannot be decoded.
        count: samples that are wanted, at least 1; fewer come where there are fewer.
        most_bytes: read at most, of all archives together.

    Raises:
        VlmselError: whatever an archive raises when it cannot be read.
    """
    state = _Taking(n_classes=n_classes, count=count, left=most_bytes)
    sizes = [each.size for each in archives]
    places = min(_MOST_PLACES, -(-count // _RUN))
    run = -(-count // places)
    try:
        with quiet_pillow():
            for number in range(places):
                archive, offset = _place(sizes, sum(sizes) * number // places)
                state.read(archives[archive], archive, offset, most=run)
            for number, each in enumerate(archives):  # few samples, or many that cannot be used
                state.read(each, number, 0, most=count)
    except _EnoughRead:
        state.skipped.append(f"no more than {most_bytes:,} bytes were to be read")
    return TakenSamples(
        samples=tuple(state.taken[each] for each in sorted(state.taken)),
        skipped=tuple(dict.fromkeys(state.skipped)),
        read_bytes=most_bytes - state.left,
    )


def _place(sizes: Sequence[int], at: int) -> tuple[int, int]:
    """Which archive, and which block of it, holds byte ``at`` of all of them in a row."""
    for number, size in enumerate(sizes):
        if at < size or number == len(sizes) - 1:
            break
        at -= size
    return number, at // _BLOCK * _BLOCK


class _EnoughRead(Exception):
    """As many bytes were read as were allowed."""


@dataclass(kw_only=True, slots=True)
class _Taking:
    """Samples so far."""

    n_classes: int
    count: int
    left: int  # bytes that may be read
    taken: dict[tuple[int, str], TarSample] = field(default_factory=dict)  # by archive and key
    seen: set[tuple[int, str]] = field(default_factory=set)  # also those that cannot be used
    skipped: list[str] = field(default_factory=list)

    def read(self, archive: Archive, number: int, offset: int, *, most: int) -> None:
        """Take up to ``most`` new samples from the first that begins at ``offset`` or behind it."""
        if len(self.taken) >= self.count:
            return
        wanted = min(self.count, len(self.taken) + most)
        with archive.read_from(offset) as (start, chunks):
            stream = _Stream(chunks, state=self)
            for done in range(start, offset, _CHUNK):
                stream.read(min(_CHUNK, offset - done))
            try:
                for key, parts in _samples(stream, whole=offset == 0):
                    if (number, key) not in self.seen:
                        self.seen.add((number, key))
                        self._take((number, key), parts)
                    if len(self.taken) >= wanted:
                        return
            except (tarfile.TarError, ValueError, OverflowError) as error:
                self.skipped.append(f"{archive.name} is damaged behind byte {offset:,}: {error}")

    def _take(self, key: tuple[int, str], parts: dict[str, bytes | None]) -> None:
        try:
            self.taken[key] = _sample(printable(key[1]), parts, n_classes=self.n_classes)
        except ImageError as error:
            self.skipped.append(f"{printable(key[1])}: {error}")


def _sample(name: str, parts: Mapping[str, bytes | None], *, n_classes: int) -> TarSample:
    """The sample of these files.

    Raises:
        ImageError: it cannot be used.
    """
    suffix = next((each for each in parts if each != _LABEL), None)
    if suffix is None or _LABEL not in parts:
        raise ImageError("not both an image and a class number")
    label, image = parts[_LABEL], parts[suffix]
    if image is None or label is None:
        raise ImageError("a link, or a file that is too large")
    if not (label.strip().isdigit() and int(label) < n_classes):
        raise ImageError(f"no class number below {n_classes}")
    decode_image(image)
    return TarSample(key=name, label=int(label), image=image, suffix=suffix)


class _Stream(io.RawIOBase):
    """The bytes of an archive in order, as far as they may be read."""

    def __init__(self, chunks: Iterator[bytes], *, state: _Taking) -> None:
        self._chunks = chunks
        self._state = state
        self._held = bytearray()

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; fewer at the end."""
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._state.left -= len(chunk)
            if self._state.left < 0:
                self._state.left = 0
                raise _EnoughRead
            self._held += chunk
        found = bytes(self._held[:size])
        del self._held[:size]
        return found


def _samples(stream: _Stream, *, whole: bool) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and files of each sample from the next tar header on, None for a file that is not read.

    The first is passed over in silence where it may be the rest of one: where the stream is not ``whole``.
    """
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", ignore_zeros=True) as tar:  # and what is no header
        key, parts = "", dict[str, bytes | None]()
        for member in tar:
            path = PurePosixPath(member.name)
            stem, _, suffix = path.name.partition(".")
            suffix, name = suffix.lower(), str(path.with_name(stem)) if stem else member.name
            if suffix != _LABEL and suffix not in _IMAGES:
                continue
            if name != key:
                if parts and (whole or len(parts) > 1):
                    yield key, parts
                whole, key, parts = whole or bool(key), name, {}
            parts[suffix] = _content(tar, member, most=_MOST_LABEL if suffix == _LABEL else _MOST_IMAGE)
            if len(parts) > 1 and _LABEL in parts:
                yield key, parts
                parts = {}
        if parts and whole:
            yield key, parts


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, *, most: int) -> bytes | None:
    if not member.isreg() or member.issparse() or member.size > most:
        return None
    file = tar.extractfile(member)
    return None if file is None else file.read()
