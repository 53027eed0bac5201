"""Copies are told by pixels or by bytes, damage by decoding or by the header; what is left out is said."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.pictures import broken_later, encoded, picture
from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks import copies
from vlmsel_auto.tasks.copies import Identity, a_copy, by_bytes, by_pixels, left_out_notes, pixel_digest


def glance(*sources: Path | bytes) -> tuple[Identity, ...]:
    return by_bytes(sources, progress=lambda _: None)


def test_the_digest_of_pixels_sees_shape_and_every_value() -> None:
    one = picture(6, 4)
    assert pixel_digest(one) == pixel_digest(one.copy())
    assert pixel_digest(one) != pixel_digest(Image.frombytes("RGB", (4, 6), one.tobytes()))
    other = one.copy()
    other.putpixel((5, 3), tuple(255 - value for value in one.getpixel((5, 3))))
    assert pixel_digest(one) != pixel_digest(other)


def test_by_pixels_a_copy_in_another_format_is_one_and_damage_is_found() -> None:
    one, two = picture(30, 20), picture(30, 20, seed=1)
    found = list(by_pixels([encoded(one), encoded(one, "BMP"), encoded(two), broken_later(encoded(two))], writers=()))
    assert found[0] == found[1] != found[2]
    assert found[3].digest == ""
    assert "truncated" in found[3].note


def test_by_bytes_a_copy_is_one_and_another_format_is_not(tmp_path: Path) -> None:
    one = encoded(picture(300, 200), "BMP")
    files = {"a": one, "copy": one, "b": encoded(picture(300, 200, seed=1), "BMP"), "png": encoded(picture(300, 200))}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link").hardlink_to(tmp_path / "a")
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    names = [*files, "link"]
    found = glance(*(tmp_path / name for name in names))
    digests = dict(zip(names, (one.digest for one in found), strict=True))
    assert digests["a"] == digests["copy"] == digests["link"]
    assert len(set(digests.values())) == 3
    assert found == glance(*(tmp_path / "elsewhere" / name for name in names))


def test_by_bytes_files_that_differ_between_the_samples_are_no_copies(tmp_path: Path) -> None:
    one = np.zeros((400, 400, 3), dtype=np.uint8)
    other = one.copy()
    other[100, 7] = 255
    for name, values in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(values), "BMP"))
    data = [(tmp_path / name).read_bytes() for name in ("one", "other")]
    middle = len(data[0]) // 2
    for place in (0, middle, -copies._SAMPLE):
        assert data[0][place:][: copies._SAMPLE] == data[1][place:][: copies._SAMPLE]
    first, second = glance(tmp_path / "one", tmp_path / "other")
    assert first.digest != second.digest


def test_by_bytes_the_header_is_checked_and_later_damage_is_not_seen(tmp_path: Path) -> None:
    cases = {"good": encoded(picture(60, 60), "JPEG"), "text": b"text", "empty": b""}
    cases["late"] = broken_later(encoded(picture(60, 60, seed=2), "JPEG"))
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    found = glance(*(tmp_path / name for name in (*cases, "pipe", "missing")), *cases.values())
    assert [bool(one.digest) for one in found] == [True, False, False, True, False, False, True, False, False, True]
    assert [bool(one.note) for one in found] == [not one.digest for one in found]
    assert glance(b"text", cases["good"], cases["good"])[1:] == (found[6], found[6])


def test_counts_and_the_first_names():
    copies = [a_copy(f"{number}.png", of="a.png") for number in range(7)]
    others = [BadFile(path="x.txt", reason="empty file"), BadFile(path="y.png", reason="CMYK image", used=True)]
    assert left_out_notes([*others, *copies]) == (
        "files left out, cannot be used: 1: 'x.txt: empty file'",
        "files left out, copies of other images: 7: '0.png', '1.png', '2.png', '3.png', '4.png', ... (7 in all)",
    )
    assert left_out_notes(others[1:]) == ()


def test_a_copy_says_of_what():
    found = a_copy("b\udcff.png", of="a.png", more="; left out of train")
    reason = "same image as a.png; left out of train"
    assert found == BadFile(path="b\ufffd.png", reason=reason, copy_of="a.png")
    assert left_out_notes([BadFile(path="x.png", reason="same image as before")]) == (
        "files left out, cannot be used: 1: 'x.png: same image as before'",
    )


def test_two_rows_of_one_image_are_no_copies():
    found = a_copy("images/a.png", of="images/a.png", more=", but labelled 'x' and not 'y'")
    reason = "named more than once in labels.csv, but labelled 'x' and not 'y'"
    assert found == BadFile(path="images/a.png", reason=reason)
