"""Which images can be used, and which show the same: by their pixels, or by bytes where there are too many to decode.

By pixels: every image is decoded in full, so damage is found and copies are told whatever their format.

By bytes: the header is read (no image, too large), and size, first, middle and last 16 KiB are hashed; images that are
equal in these are hashed whole. Damage further on is found when an image is first decoded; a picture that was saved
again is no copy. Both digests depend on the content alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from PIL import Image

from vlmsel_auto.cache import file_digest
from vlmsel_auto.errors import ImageError
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.decode import check_header, decode_image, in_threads, read_encoded
from vlmsel_auto.tasks.viewfile import RowWriter
from vlmsel_auto.tasks.views import render_all

_SAMPLE: Final = 16 * 1024  # bytes of each of three places of a file


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What one source image is."""

    digest: str  # equal for copies; empty when the image was left out
    note: str = ""  # why it was left out, or what had to be converted; empty for everyday files


def pixel_digest(image: Image.Image) -> str:
    """Hex SHA-256 of size and pixels of an RGB image: equal for two files that show exactly the same."""
    state = sha256(f"{image.width}x{image.height}:".encode())
    state.update(image.tobytes())
    return state.hexdigest()


def by_pixels(
    sources: Iterable[Path | bytes], *, writers: Sequence[tuple[ImageView, RowWriter]]
) -> Generator[Identity]:
    """Identities in the order of ``sources``; each image is also written into the views, as the row of its place."""

    def identify(item: tuple[int, Path | bytes]) -> Identity:
        row, source = item
        try:
            data = read_encoded(source)
            decoded = decode_image(data)
        except ImageError as error:
            return Identity(digest="", note=str(error))
        shown = render_all(data, decoded, [view for view, _ in writers])
        for (_, writer), pixels in zip(writers, shown, strict=True):
            writer.put(row, pixels)
        return Identity(digest=pixel_digest(decoded.image), note=decoded.note)

    return in_threads(identify, enumerate(sources))


def by_bytes(sources: Iterable[Path | bytes], *, progress: Callable[[int], None]) -> tuple[Identity, ...]:
    """Identities in the order of ``sources``, without decoding; a file of several names is read once."""
    found: list[Identity] = []
    files: dict[int, Path] = {}
    alike: dict[str, list[int]] = {}
    with closing(in_threads(_glance, sources)) as glances:
        for row, (path, identity) in enumerate(glances):
            found.append(identity)
            if path is not None:
                files[row] = path
                alike.setdefault(identity.digest, []).append(row)
            progress(row + 1)
    names: dict[tuple[int, int], list[int]] = {}  # rows of each file that has a double
    for rows in alike.values():
        for row in rows if len(rows) > 1 else ():
            status = files[row].stat()
            names.setdefault((status.st_dev, status.st_ino), []).append(row)
    digests = in_threads(lambda rows: file_digest(files[rows[0]]), names.values())
    for rows, whole in zip(names.values(), digests, strict=True):
        for row in rows:
            found[row] = Identity(digest=f"{found[row].digest}-{whole}")
    return tuple(found)


def _glance(source: Path | bytes) -> tuple[Path | None, Identity]:
    """What the header, the size and three samples say; of bytes, which are in memory already, all of them."""
    try:
        check_header(source)
        if isinstance(source, bytes):
            return None, Identity(digest=f"{len(source)}-{sha256(source).hexdigest()}")
        size, state = source.stat().st_size, sha256()
        with source.open("rb", buffering=0) as stream:
            for place in (0, size // 2, max(0, size - _SAMPLE)):
                state.update(os.pread(stream.fileno(), _SAMPLE, place))
    except (ImageError, OSError) as error:
        return None, Identity(digest="", note=str(error))
    return source, Identity(digest=f"{size}-{state.hexdigest()}")
