"""Samples of webdatasets: tar archives of images (KEY.jpg, .png or .webp) and their class numbers (KEY.cls).

Archives are hundreds of megabytes long and often sorted by class. So samples are taken at places spread over them: the
reader jumps to a place, looks for the next tar header and reads a few samples. Nothing is unpacked, no name in an
archive becomes a path, and the bytes that are read are bounded.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol, cast

from vlmsel_auto.errors import ImageError
from vlmsel_auto.tasks.decode import decode_image, quiet_pillow
from vlmsel_auto.tasks.file_names import printable
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES

CLASS_NAMES: Final = "classnames.txt"  # one class a line
TEMPLATES: Final = "zeroshot_classification_templates.txt"  # one template a line, with {c} for the class
SHARDS: Final = "nshards.txt"  # beside the archives 0.tar, 1.tar, ...

_IMAGES: Final = frozenset({"jpg", "jpeg", "png", "webp"})
_LABEL: Final = "cls"
_MOST_IMAGE: Final = 1 << 25  # bytes of one image
_MOST_LABEL: Final = 20  # bytes of a class number
_RUN: Final = 2  # samples of a place, at least: in sorted archives two of a class
_MOST_PLACES: Final = 64
_BLOCK: Final = tarfile.BLOCKSIZE
_MAGIC: Final = slice(257, 262)  # of a tar header: b"ustar"
_CHUNK: Final = 1 << 16


class Archive(Protocol):
    """A tar file that can be read from any byte on."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read_from(self, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Yield an offset, at most ``offset``, and the bytes from there on; leaving the block ends the reading."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalArchive:
    """A tar file on this disk."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @contextmanager
    def read_from(self, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield ``offset`` and the bytes from there on."""
        with self.path.open("rb") as stream:
            stream.seek(offset)
            yield offset, iter(lambda: stream.read(_CHUNK), b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """An image and its class."""

    key: str  # its name in the archive: for messages only
    label: int  # 0..K-1
    image: bytes
    suffix: str  # "jpg", "png", "webp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What was taken of a webdataset."""

    samples: tuple[Sample, ...]
    skipped: tuple[str, ...]  # what could not be used, one sentence each
    read_bytes: int


def parse_class_names(text: str) -> tuple[str, ...]:
    """The class names by number. A line may be empty: its class has no name, and the numbers after it stay."""
    return tuple(printable(line.strip()) for line in text.splitlines())


def parse_templates(text: str) -> tuple[str, ...]:
    """The prompt templates, with one {} each for the class; the default where no line is one."""
    lines = (line.strip().replace("{c}", "{}") for line in text.splitlines())
    usable = tuple(line for line in lines if line.count("{}") == line.count("{") == line.count("}") == 1)
    return usable or DEFAULT_TEMPLATES


def take_samples(archives: Sequence[Archive], *, n_classes: int, count: int, most_bytes: int) -> Sampled:
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
    taken = sorted(state.taken)
    return Sampled(
        samples=tuple(state.taken[each] for each in taken),
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
    taken: dict[tuple[int, str], Sample] = field(default_factory=dict)  # by archive and key
    seen: set[tuple[int, str]] = field(default_factory=set)  # also those that cannot be used
    skipped: list[str] = field(default_factory=list)

    def read(self, archive: Archive, number: int, offset: int, *, most: int) -> None:
        """Take up to ``most`` new samples from the first that begins at ``offset`` or behind it."""
        if len(self.taken) >= self.count:
            return
        wanted = min(self.count, len(self.taken) + most)
        with archive.read_from(offset) as (start, chunks):
            stream = _Stream(chunks, state=self)
            stream.skip(offset - start)
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


def _sample(name: str, parts: Mapping[str, bytes | None], *, n_classes: int) -> Sample:
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
    return Sample(key=name, label=int(label), image=image, suffix=suffix)


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

    def skip(self, size: int) -> None:
        """Pass over the next ``size`` bytes."""
        for done in range(0, size, _CHUNK):
            self.read(min(_CHUNK, size - done))

    def put_back(self, block: bytes) -> None:
        """What `read` gives next."""
        self._held[:0] = block


def _samples(stream: _Stream, *, whole: bool) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and files of each sample, None for a file that is not read.

    The first is passed over in silence where it may be the rest of one: where the stream is not ``whole``.
    """
    if not _find_header(stream):
        return
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
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


def _find_header(stream: _Stream) -> bool:
    """Whether there is a tar header at this block or behind it; the stream then stands there."""
    while len(block := stream.read(_BLOCK)) == _BLOCK:
        if block[_MAGIC] == b"ustar":
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                continue
            stream.put_back(block)
            return True
    return False
