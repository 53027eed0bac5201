"""Samples of tar archives as webdatasets have them: images (KEY.jpg, .png or .webp) and class numbers (KEY.cls).

Archives are hundreds of megabytes long and often sorted by class. So samples are taken at places spread over them: the
reader jumps to a place, looks for the next tar header and reads a few samples. Nothing is unpacked, no name in an
archive becomes a path, and the bytes that are read are bounded.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Final, cast

from vlmsel_auto.errors import ImageError
from vlmsel_auto.tasks.decode import decode_image, quiet_pillow
from vlmsel_auto.tasks.file_names import printable

_IMAGES: Final = frozenset({"jpg", "jpeg", "png", "webp"})
_LABEL: Final = "cls"
_MOST_IMAGE: Final = 1 << 25  # bytes of one image
_MOST_LABEL: Final = 20  # bytes of a class number
_RUN: Final = 2  # samples of a place: in sorted archives two of a class


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A tar file that can be read from any byte on."""

    name: str  # for messages
    size: int  # bytes
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSample:
    """An image and its class."""

    key: str  # its name in the archive: for messages only
    label: int  # 0..K-1
    image: bytes
    suffix: str  # "jpg", "png", "webp"


def take_samples(
    archives: Sequence[Archive], *, n_classes: int, count: int, most_bytes: int
) -> tuple[list[TarSample], list[str]]:
    """Take samples spread evenly over the archives, in their order.

    Args:
        archives: tar files, not compressed.
        n_classes: a sample of another class number is skipped, as is one whose image cannot be decoded.
        count: samples that are wanted, at least 1; fewer come where there are fewer.
        most_bytes: read at most, of all archives together.

    Returns:
        The samples, and a sentence about each that could not be used.

    Raises:
        OSError: an archive cannot be read; also whatever else its ``open`` raises.
    """
    if not archives:
        return [], []
    state = _Taking(n_classes=n_classes, count=count, left=most_bytes)
    total, places = sum(each.size for each in archives), -(-count // _RUN)
    try:
        with quiet_pillow():
            for number in range(places):
                state.read(archives, total * number // places, most=_RUN)
            for number in range(len(archives)):  # few samples, or many that cannot be used
                state.read(archives, sum(each.size for each in archives[:number]), most=count)
    except _EnoughRead:
        state.skipped.append(f"no more than {most_bytes:,} bytes were to be read")
    return [state.taken[each] for each in sorted(state.taken)], list(dict.fromkeys(state.skipped))


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

    def read(self, archives: Sequence[Archive], at: int, *, most: int) -> None:
        """Take up to ``most`` new samples from the first on that begins behind byte ``at`` of all archives in a row."""
        wanted = min(self.count, len(self.taken) + most)
        if len(self.taken) >= wanted:
            return
        number = 0
        while number < len(archives) - 1 and at >= archives[number].size:
            at, number = at - archives[number].size, number + 1
        offset = at // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        with archives[number].open() as file:
            file.seek(offset)
            try:
                for key, parts in _samples(_Stream(file, state=self), whole=offset == 0):
                    if (number, key) not in self.seen:
                        self.seen.add((number, key))
                        self._take((number, key), parts)
                    if len(self.taken) >= wanted:
                        return
            except (tarfile.TarError, ValueError, OverflowError) as error:
                self.skipped.append(f"{archives[number].name} is damaged behind byte {offset:,}: {error}")

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

    def __init__(self, file: IO[bytes], *, state: _Taking) -> None:
        self._file = file
        self._state = state

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; fewer at the end."""
        if self._state.left < size:
            raise _EnoughRead
        found = self._file.read(size)
        self._state.left -= len(found)
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
