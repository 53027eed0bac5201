"""Which files are images and which show the same, by pixels or by bytes; which copies are left out; how it is told.

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
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmsel_auto.cache import file_digest
from vlmsel_auto.errors import ImageError
from vlmsel_auto.records import BadFile, ImageView
from vlmsel_auto.tasks.decode import check_header, decode_image, in_threads, read_encoded
from vlmsel_auto.tasks.file_names import printable, shown
from vlmsel_auto.tasks.labels_csv import LABELS
from vlmsel_auto.tasks.preprocessing import render_all
from vlmsel_auto.tasks.scan import ListedImage

PutRow: TypeAlias = Callable[[int, NDArray[np.uint8]], None]  # keeps the pixels of a row of a view

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


def by_pixels(sources: Iterable[Path | bytes], *, writers: Sequence[tuple[ImageView, PutRow]]) -> Generator[Identity]:
    """Identities in the order of ``sources``; each image is also written into the views, as the row of its place."""

    def identify(item: tuple[int, Path | bytes]) -> Identity:
        row, source = item
        try:
            data = read_encoded(source)
            decoded = decode_image(data)
        except ImageError as error:
            return Identity(digest="", note=str(error))
        rendered = render_all(data, decoded, [view for view, _ in writers])
        for (_, put), pixels in zip(writers, rendered, strict=True):
            put(row, pixels)
        return Identity(digest=pixel_digest(decoded.image), note=decoded.note)

    return in_threads(identify, enumerate(sources))


def by_bytes(sources: Iterable[Path | bytes], *, progress: Callable[[int], None]) -> tuple[Identity, ...]:
    """Identities in the order of ``sources``, without decoding."""
    found: list[Identity] = []
    alike: dict[str, list[tuple[int, Path]]] = {}
    with closing(in_threads(_glance, sources)) as glances:
        for row, (path, identity) in enumerate(glances):
            found.append(identity)
            if path is not None:
                alike.setdefault(identity.digest, []).append((row, path))
            progress(row + 1)
    doubles = [each for files in alike.values() if len(files) > 1 for each in files]
    wholes = in_threads(lambda each: file_digest(each[1]), doubles)
    for (row, _), whole in zip(doubles, wholes, strict=True):
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


def settle_copies(
    good: Sequence[int], *, entries: Sequence[ListedImage], digests: Sequence[str]
) -> tuple[list[int], list[BadFile]]:
    """Leave out copies across given splits and copies with contradicting labels.

    Of copies in several splits the ones in test stay, else the ones in val: a model must not be tuned or chosen on what
    it is tested on, and no test image is given up for that. Copies of one image under several labels teach nothing:
    they are left out of train, and altogether where no split is given. Other copies are kept.

    Args:
        good: Positions of the images that can be used.
        entries: All entries.
        digests: Of the decoded pixels of all entries, equal for copies.

    Returns:
        The positions that stay, and a line on each copy that was left out or has a contradicting label.
    """
    groups: dict[str, list[int]] = {}
    for place in good:
        groups.setdefault(digests[place], []).append(place)
    notes = {
        place: note
        for members in groups.values()
        for place in members
        if (note := _copy_note(entries[place], [entries[one] for one in members])) is not None
    }
    return [place for place in good if place not in notes or notes[place].used], list(notes.values())


def _copy_note(entry: ListedImage, copies: Sequence[ListedImage]) -> BadFile | None:
    """What to say of one of the files that show an image; None: nothing, it stays."""
    present = {one.split for one in copies}
    home = next((name for name in ("test", "val") if name in present), None)
    if home is not None and entry.split != home:
        twin = next(one for one in copies if one.split == home)
        return a_copy(entry.path, of=twin.path, more=f"; left out of {entry.split}")
    other = next((one for one in copies if one.label != entry.label), None)
    if other is None:
        return None
    labels = f", but labelled {entry.label!r} and not {other.label!r}"
    return a_copy(entry.path, of=other.path, more=labels, used=home is not None)


def a_copy(path: str, *, of: str, more: str = "", used: bool = False) -> BadFile:
    """What to say of a file that shows the same image as another, or that another row of labels.csv names too."""
    if path == of:
        return BadFile(path=printable(path), reason=f"named more than once in {LABELS}{more}", used=used)
    twin = printable(of)
    return BadFile(path=printable(path), reason=f"same image as {twin}{more}", used=used, copy_of=twin)


def left_out_notes(bad_files: Sequence[BadFile]) -> tuple[str, ...]:
    """For those who see no report: how many files cannot be used, how many are copies, and the first few of each."""
    unused = [one for one in bad_files if not one.used]
    copies = [one.path for one in unused if one.copy_of is not None]
    others = [f"{one.path}: {one.reason}" for one in unused if one.copy_of is None]
    notes = [(others, "cannot be used"), (copies, "copies of other images")]
    return tuple(f"files left out, {what}: {len(names):,}: {shown(names)}" for names, what in notes if names)
