"""Files that are no images, damaged ones, odd ones that are used, and paths that are no files."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from helpers.bad_input.case import LOAD, Case, good_task
from helpers.pictures import encoded, picture

FRAMES = [picture(seed=900 + k) for k in range(3)]


def png_of_size(width: int, height: int) -> bytes:
    """A sound header of a picture that is not there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 1 << 20) + b"IDAT"


def real_bomb() -> bytes:
    """100 megapixels of zeros in a few kilobytes."""
    return encoded(Image.new("1", (10_000, 10_000)))


def grey16() -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (12, 20), dtype=np.uint16)
    return encoded(Image.fromarray(values))


def animated(kind: str) -> bytes:
    stream = io.BytesIO()
    FRAMES[0].save(stream, format=kind, save_all=True, append_images=FRAMES[1:], duration=100)
    return stream.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return encoded(picture(seed=901), "JPEG", exif=exif)


def flipped_bit() -> bytes:
    data = bytearray(encoded(picture(seed=902)))
    data[len(data) // 2] ^= 4
    return bytes(data)


def heic() -> bytes:
    return b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)


def with_file(place: Path, *, name: str, data: bytes | Callable[[], bytes]) -> None:
    (good_task(place) / "cat" / name).write_bytes(data if isinstance(data, bytes) else data())


def with_pipe(place: Path) -> None:
    os.mkfifo(good_task(place) / "cat/pipe.png")


def with_link(place: Path, *, target: str, name: str = "link.png") -> None:
    (place / "outside").mkdir()
    (place / "outside/secret.png").write_bytes(encoded(picture(seed=903)))
    (good_task(place) / "cat" / name).symlink_to(target)


def unreadable(place: Path, *, what: str) -> None:
    (good_task(place) / what).chmod(0)


FILES: tuple[tuple[str, str, bytes | Callable[[], bytes], str], ...] = (
    (
        "JPEG that is cut off",
        "bad.jpg",
        lambda: encoded(picture(seed=904), "JPEG")[:400],
        "left out: cat/bad.jpg: damaged",
    ),
    ("PNG with a flipped bit", "bad.png", flipped_bit, "left out: cat/bad.png: damaged"),
    ("empty file", "bad.png", b"", "left out: cat/bad.png: empty file"),
    ("text named .png", "bad.png", b"no picture at all", "left out: cat/bad.png: not an image file"),
    ("HTML named .jpg", "bad.jpg", b"<html><script>alert(1)</script></html>", "left out: cat/bad.jpg: not an image"),
    ("SVG", "bad.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "bad.svg: .*SVG.*convert"),
    ("HEIC", "bad.heic", heic, "left out: cat/bad.heic: .*HEIC.*convert"),
    ("decompression bomb by its header", "bad.png", lambda: png_of_size(60_000, 60_000), "cat/bad.png: .*bomb"),
    ("decompression bomb of few bytes", "bad.png", real_bomb, "left out: cat/bad.png: .*bomb"),
    ("strip", "bad.png", lambda: encoded(picture(1_000, 2)), "left out: cat/bad.png: side ratio"),
    ("picture without pixels", "bad.png", lambda: png_of_size(0, 5), "left out: cat/bad.png: "),
    ("16-bit grey", "odd.png", grey16, "converted: cat/odd.png: 16-bit"),
    ("CMYK", "odd.jpg", lambda: encoded(picture(seed=905).convert("CMYK"), "JPEG"), "converted: cat/odd.jpg: CMYK"),
    ("animated GIF", "odd.gif", lambda: animated("GIF"), "converted: cat/odd.gif: animated"),
    ("animated WebP", "odd.webp", lambda: animated("WEBP"), "converted: cat/odd.webp: animated"),
)
SILENT: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
    ("palette", "odd.png", lambda: encoded(picture(seed=906).quantize(16))),
    ("rotated by EXIF", "odd.jpg", rotated),
    ("1 x 1", "odd.png", lambda: encoded(picture(1, 1, seed=907))),
    ("wrong ending", "odd.jpg", lambda: encoded(picture(seed=908))),
)
LINKS: tuple[tuple[str, str, str], ...] = (
    ("link out of the folder", "../../outside/secret.png", "left out: cat/link.png: refused: the link leads out"),
    ("link to itself", "link.png", "left out: cat/link.png: refused: the link leads in a circle"),
    ("link to the folder above", "..", "left out: cat/link.png: refused: links to folders"),
    ("link to nothing", "nothing.png", "left out: cat/link.png: refused: the link leads nowhere"),
)
CASES = (
    *(
        Case(room="images", name=name, make=partial(with_file, name=file, data=data), arguments=LOAD, says=says)
        for name, file, data, says in FILES
    ),
    *(
        Case(room="images", name=name, make=partial(with_file, name=file, data=data), arguments=LOAD, quiet=True)
        for name, file, data in SILENT
    ),
    *(
        Case(room="images", name=name, make=partial(with_link, target=to), arguments=LOAD, says=says)
        for name, to, says in LINKS
    ),
    Case(room="images", name="pipe", make=with_pipe, arguments=LOAD, says="left out: cat/pipe.png: not a regular file"),
    Case(
        room="images",
        name="image without rights",
        make=partial(unreadable, what="cat/0.png"),
        arguments=LOAD,
        says="left out: cat/0.png: cannot be read: permission denied",
    ),
)
