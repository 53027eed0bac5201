"""Samples of tar archives as webdatasets have them: images (KEY.jpg, .png or .webp) and class numbers (KEY.cls).

Archives are hundreds of megabytes long and often sorted by class. So samples are taken at places spread over them: the
reader jumps to a place, looks for the next tar header and reads a few samples. Nothing is unpacked, no name in an
archive becomes a path, and the bytes that are read are bounded.
"""

from __future__ import annotations

import io
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    starts = list(accumulate((each.size for each in archives), initial=0))
    places = -(-count // _RUN)
    visits = [(starts[-1] * number // places, _RUN) for number in range(places)]
    visits += [(start, count) for start in starts[:-1]]  # few samples, or many that cannot be used
    taken, skipped, budget = dict[tuple[int, str], TarSample](), dict[str, None](), _Budget(most_bytes)
    with quiet_pillow():
        for at, most in visits if archives else ():
            if len(taken) >= count:
                break
            number = min(bisect_right(starts, at), len(archives)) - 1
            offset = (at - starts[number]) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            wanted = min(count, len(taken) + most)
            try:
                for name, parts in _samples(archives[number], offset, budget=budget):
                    try:
                        taken.setdefault((number, name), _sample(parts, n_classes=n_classes))
                    except ImageError as error:
                        skipped[f"{name}: {error}"] = None
                    if len(taken) >= wanted:
                        break
            except (tarfile.TarError, ValueError, OverflowError) as error:
                skipped[f"{archives[number].name} is damaged behind byte {offset:,}: {error}"] = None
            except _EnoughRead:
                skipped[f"no more than {most_bytes:,} bytes were to be read"] = None
                break
    return [taken[each] for each in sorted(taken)], list(skipped)


def _sample(parts: Mapping[str, bytes | None], *, n_classes: int) -> TarSample:
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
    return TarSample(label=int(label), image=image, suffix=suffix)


class _EnoughRead(Exception):
    """As many bytes were read as were allowed."""


@dataclass(slots=True)
class _Budget:
    left: int  # bytes that may be read


class _Stream(io.RawIOBase):
    """The bytes of an archive in order, as far as they may be read."""

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        self._file = file
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; fewer at the end."""
        if self._budget.left < size:
            raise _EnoughRead
        found = self._file.read(size)
        self._budget.left -= len(found)
        return found


def _samples(archive: Archive, offset: int, *, budget: _Budget) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Name and files of each sample from the first tar header behind ``offset`` on; None for a file that is not read.

    The first is passed over in silence where it may be the rest of one, that is within an archive.
    """
    whole, name, parts = offset == 0, "", dict[str, bytes | None]()
    with archive.open() as file:
        file.seek(offset)
        stream = cast("IO[bytes]", _Stream(file, budget))
        with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True) as tar:  # and passes over what is no header
            for member in tar:
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                suffix, own = suffix.lower(), printable(str(path.with_name(stem)) if stem else member.name)
                if suffix != _LABEL and suffix not in _IMAGES:
                    continue
                if own != name:
                    if parts and (whole or len(parts) > 1):
                        yield name, parts
                    whole, name, parts = whole or bool(name), own, {}
                parts[suffix] = _content(tar, member, most=_MOST_LABEL if suffix == _LABEL else _MOST_IMAGE)
                if len(parts) > 1 and _LABEL in parts:
                    yield name, parts
                    parts = {}
            if parts and whole:
                yield name, parts


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, *, most: int) -> bytes | None:
    if not member.isreg() or member.issparse() or member.size > most:
        return None
    file = tar.extractfile(member)
    return None if file is None else file.read()
