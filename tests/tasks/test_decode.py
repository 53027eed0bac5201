"""One file at a time: every odd but usable picture becomes upright RGB, every bad one a reason."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.pictures import encoded, picture
from vlmsel_auto.errors import ImageError
from vlmsel_auto.tasks import decode
from vlmsel_auto.tasks.decode import MAX_ASPECT, MAX_PIXELS, check_header, decode_image, in_threads, quiet_pillow


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "QOI"])
def test_lossless_formats_come_back_bit_for_bit(kind: str) -> None:
    decoded = decode_image(encoded(picture(), kind))
    assert decoded.note == ""
    assert decoded.image.mode == "RGB"
    np.testing.assert_array_equal(values(decoded.image), values(picture()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "GIF"])
def test_lossy_formats_come_back_as_pillow_shows_them(kind: str) -> None:
    data = encoded(picture(), kind)
    with Image.open(io.BytesIO(data)) as oracle:
        np.testing.assert_array_equal(values(decode_image(data).image), values(oracle.convert("RGB")))


def test_the_extension_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "photo.PNG"
    path.write_bytes(encoded(picture(), "JPEG", quality=95))
    assert decode_image(path).image.size == (20, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        oracle = ImageOps.exif_transpose(opened).convert("RGB")
    decoded = decode_image(data)
    assert decoded.note == ""
    assert decoded.image.size == ((12, 20) if orientation >= 5 else (20, 12))
    np.testing.assert_array_equal(values(decoded.image), values(oracle))


def test_damaged_exif_leaves_the_picture_as_stored() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    with quiet_pillow():
        assert decode_image(data).image.size == (20, 12)


def test_sixteen_bit_grey_is_divided_by_257() -> None:
    deep = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(deep)))
    assert decoded.note == "16-bit image, scaled to 8 bits"
    assert values(decoded.image)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert np.ptp(values(decoded.image), axis=2).max() == 0


def test_float_and_32_bit_images_are_scaled() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert values(decode_image(encoded(unit, "TIFF")).image)[0, :, 0].tolist() == [0, 128, 255]
    wide = Image.fromarray(np.array([[-100.0, np.nan, 300.0]], dtype=np.float32))
    assert values(decode_image(encoded(wide, "TIFF")).image)[0, :, 0].tolist() == [0, 64, 255]
    integers = Image.fromarray(np.array([[0, 65_535]], dtype=np.int32))
    assert values(decode_image(encoded(integers, "TIFF")).image)[0, :, 0].tolist() == [0, 255]
    flat = Image.fromarray(np.full((1, 2), 1e9, dtype=np.float32))
    assert values(decode_image(encoded(flat, "TIFF")).image)[0, :, 0].tolist() == [0, 0]


def test_cmyk_is_converted_and_told() -> None:
    decoded = decode_image(encoded(Image.new("CMYK", (9, 7), (0, 255, 255, 0)), "JPEG"))
    assert decoded.note == "CMYK image, converted to RGB"
    red, green, blue = values(decoded.image).reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert max(green, blue) < 60


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert values(decode_image(encoded(clear)).image).min() == 255
    half = Image.new("LA", (4, 4), (0, 128))
    assert abs(int(values(decode_image(encoded(half)).image)[0, 0, 0]) - 127) <= 1
    solid = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    assert values(decode_image(encoded(solid)).image)[0, 0].tolist() == [10, 20, 30]


def test_palette_with_transparency_as_index_and_as_table() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for transparency in (1, bytes([255, 0])):
        shown = values(decode_image(encoded(palette, transparency=transparency)).image)
        assert shown.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_one_bit_and_grey() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    assert values(decode_image(encoded(bits)).image)[..., 2].tolist() == [[0, 255], [255, 0]]
    grey = Image.fromarray(np.array([[7, 200]], dtype=np.uint8))
    assert values(decode_image(encoded(grey)).image).tolist() == [[[7, 7, 7], [200, 200, 200]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_used_and_told(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    decoded = decode_image(encoded(first, kind, save_all=True, append_images=[second]))
    assert decoded.note == "animated or multi-page image, first frame used"
    red, _, blue = values(decoded.image)[4, 4]
    assert red > 200
    assert blue < 60


def test_previews_of_a_camera_are_no_animation() -> None:
    decoded = decode_image(encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=1)]))
    assert decoded.note == ""


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\x00" * 100)
    chunks = b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (head, body)
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [9_460, 13_500, 50_000])  # just above the limit, above Pillow's error, far above
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_PIXELS
    with quiet_pillow(), pytest.raises(ImageError, match="decompression bomb"):
        decode_image(png_header(side, side))


def test_a_real_bomb_of_few_bytes_is_refused() -> None:
    data = encoded(Image.new("1", (12_000, 12_000)))
    assert len(data) < 100_000
    with quiet_pillow(), pytest.raises(ImageError, match="12000 x 12000"):
        decode_image(data)


def test_a_strip_is_refused() -> None:
    with pytest.raises(ImageError, match="side ratio"):
        decode_image(encoded(Image.new("RGB", (MAX_ASPECT + 1, 1))))
    assert decode_image(encoded(Image.new("RGB", (MAX_ASPECT, 1)))).image.size == (MAX_ASPECT, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000"])
def test_half_a_file_is_bad(kind: str) -> None:
    data = encoded(picture(64, 64), kind)
    with quiet_pillow(), pytest.raises(ImageError):
        decode_image(data[: len(data) // 2])


def test_a_few_missing_bytes_are_bad_though_verify_passes() -> None:
    data = encoded(picture(64, 64), "JPEG")[:-200]
    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    with pytest.raises(ImageError, match="truncated"):
        decode_image(data)


@pytest.mark.parametrize(
    "data", [b"just a text", b"%PDF-1.4 ...", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_other_files_are_not_images(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image"):
        decode_image(data)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ImageError, match="empty"):
        decode_image(tmp_path / "a.jpg")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name, reason in (
        ("pipe.png", "not a regular file"), ("folder.png", "a folder"), ("none.png", "no such file")
    ):  # fmt: skip
        with pytest.raises(ImageError, match=reason):
            decode_image(tmp_path / name)


def test_a_file_too_large_for_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.png"
    with path.open("wb") as stream:
        stream.truncate(5 * MAX_PIXELS)  # sparse: takes no space
    with pytest.raises(ImageError, match="too large"):
        decode_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "ICO", "QOI"])
def test_damaged_bytes_give_a_picture_or_an_image_error(kind: str) -> None:
    data = encoded(picture(32, 32), kind)
    rng = np.random.default_rng(1)
    modes: list[str] = []
    reasons: list[str] = []
    with quiet_pillow():
        for _ in range(150):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), size=4):
                broken[place] = int(rng.integers(0, 256))
            try:
                modes.append(decode_image(bytes(broken)).image.mode)
            except ImageError as error:
                reasons.append(str(error))
    assert len(modes) + len(reasons) == 150
    assert set(modes) <= {"RGB"}
    assert all(reason and "\n" not in reason for reason in reasons)


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_LARGE_PIXELS", 100)
    assert decode_image(encoded(picture())).image.size == (20, 12)
    assert not decode._LARGE_LOCK.locked()


# --- at a part of the size


@pytest.mark.parametrize(
    ("full", "least", "size"),
    [
        ((208, 104), None, (208, 104)),
        ((208, 104), 53, (208, 104)),
        ((208, 104), 52, (104, 52)),
        ((208, 104), 26, (52, 26)),
        ((208, 104), 1, (26, 13)),
        ((204, 104), 1, (51, 26)),  # an eighth would leave half a pixel
        ((203, 104), 1, (203, 104)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_jpeg_is_decoded_at_the_smallest_whole_size_that_keeps_the_wanted_side(
    kind: str, full: tuple[int, int], least: int | None, size: tuple[int, int]
) -> None:
    data = encoded(picture(*full), kind)
    assert decode_image(data, least=least).image.size == size
    assert least is None or decode_image(data).same_at(least) == (size == full)
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode_image(encoded(picture(*full), kind, exif=turned), least=least).image.size == size[::-1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_other_formats_are_decoded_at_full_size(kind: str) -> None:
    decoded = decode_image(encoded(picture(200, 100), kind), least=8)
    assert decoded.image.size == (200, 100)
    assert decoded.same_at(8)


def test_half_a_jpeg_is_bad_at_any_size() -> None:
    data = encoded(picture(200, 200), "JPEG")[:-200]
    with pytest.raises(ImageError, match="truncated"):
        decode_image(data, least=8)


def test_grey_and_cmyk_jpegs_keep_their_rules_at_a_part_of_their_size() -> None:
    assert (
        values(decode_image(encoded(Image.new("L", (80, 80), 200), "JPEG"), least=10).image)[5, 5].tolist() == [200] * 3
    )
    decoded = decode_image(encoded(Image.new("CMYK", (80, 80), (0, 255, 255, 0)), "JPEG"), least=10)
    assert (decoded.image.size, decoded.note) == ((10, 10), "CMYK image, converted to RGB")


# --- the header alone


def test_the_header_tells_what_is_no_image_but_not_damage_behind_it(tmp_path: Path) -> None:
    good = encoded(picture(64, 64), "JPEG")
    check_header(good)
    check_header(good[: len(good) // 2])
    with quiet_pillow():
        for data, reason in (
            (b"", "empty"),
            (b"text", "not an image"),
            (png_header(50_000, 50_000), "bomb"),
            (encoded(Image.new("RGB", (MAX_ASPECT + 1, 1))), "side ratio"),
        ):
            path = tmp_path / "file"
            path.write_bytes(data)
            for source in (data, path):
                with pytest.raises(ImageError, match=reason):
                    check_header(source)
    with pytest.raises(ImageError, match="no such file"):
        check_header(tmp_path / "none.png")


# --- threads


def test_results_come_in_order_and_few_are_ahead() -> None:
    taken = 0

    def many() -> Iterator[int]:
        nonlocal taken
        while taken < 1_000:
            taken += 1
            yield taken

    results = in_threads(lambda value: value * 2, many())
    assert next(results) == 2
    assert taken <= decode._AHEAD * decode._WORKERS
    assert list(results) == [2 * value for value in range(2, 1_001)]


def test_closed_early_no_thread_goes_on() -> None:
    results = in_threads(lambda value: value, range(10_000))
    assert next(results) == 0
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
