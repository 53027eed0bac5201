"""Samples of tar archives: spread, bounded, and whatever an archive holds nothing but a reason."""

import tarfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.webdatasets import archive, encoded, members
from vlmsel_auto.measuring.tar_samples import Archive, take_samples

SHAPES = ("circle", "square", "triangle")


def local_archive(path):
    return Archive(name=str(path), size=path.stat().st_size, open=partial(path.open, "rb"))


def local(folder, *contents):
    found = []
    for number, data in enumerate(contents):
        path = folder / f"{number}.tar"
        path.write_bytes(data)
        found.append(local_archive(path))
    return found


def take(archives, *, count=8, n_classes=3, most_bytes=1 << 24):
    samples, skipped = take_samples(archives, n_classes=n_classes, count=count, most_bytes=most_bytes)
    return SimpleNamespace(samples=samples, skipped=skipped)


def test_every_sample_of_a_small_archive_is_found_once(tmp_path):
    got = take(local(tmp_path, archive(members(20)), archive(members(11, seed=1))), count=100)
    assert len(got.samples) == 31
    assert got.skipped == []
    assert [each.label for each in got.samples[:20]] == [n * 3 // 20 for n in range(20)]
    assert [each.image for each in got.samples[:20]] == [image for name, image in members(20) if name.endswith("png")]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_few_of_a_sorted_archive_are_of_all_its_classes(tmp_path, kind):
    got = take(local(tmp_path, archive(members(300, kind=kind))), count=12)
    assert len(got.samples) == 12
    assert np.bincount([each.label for each in got.samples], minlength=3).min() >= 3
    assert {each.suffix for each in got.samples} == {kind}


def test_the_bytes_to_read_are_bounded_and_it_is_told(tmp_path):
    data = archive(members(200, size=200))
    got = take(local(tmp_path, data), count=8, most_bytes=4 * (1 << 17))  # far from all of it
    assert (len(got.samples), got.skipped) == (8, [])
    assert len(data) > 4 * (1 << 17)
    got = take(local(tmp_path, archive(members(400, size=100))), count=100, most_bytes=300_000)
    assert 0 < len(got.samples) < 100
    assert any("no more than 300,000 bytes" in each for each in got.skipped)


def test_what_cannot_be_used_is_told_and_the_rest_goes_on(tmp_path):
    good = members(6)
    image = encoded("circle", np.random.default_rng(9))
    bad = [
        ("a.cls", b"3"), ("a.png", image),
        ("b.cls", b"1"), ("b.png", b"no image at all"),
        ("c.cls", b"one"), ("c.png", image),
        ("d.cls", b"1"),
        ("e.png", image),
        ("../../f.cls", b"1"), ("../../f.png", b""),
        ("g.cls", b"1" * 100), ("g.png", image),
        ("h.json", b"{}"),
    ]  # fmt: skip
    got = take(local(tmp_path, archive([*bad, *good])), count=50)
    assert len(got.samples) == 6
    reasons = "\n".join(got.skipped)
    for line in (
        "a: no class number below 3", "b: not an image", "c: no class number", "d: not both", "e: not both",
        "../../f: empty file", "g: a link, or a file that is too large",
    ):  # fmt: skip
        assert line in reasons, reasons
    assert len(got.skipped) == 7
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar"]


def test_links_are_no_images(tmp_path):
    path = tmp_path / "linked.tar"
    (tmp_path / "secret.png").write_bytes(encoded("circle", np.random.default_rng(0)))
    with tarfile.open(path, "w") as tar:
        for name, link in (("a.cls", ""), ("a.png", str(tmp_path / "secret.png"))):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            tar.addfile(info)
    got = take([local_archive(path)])
    assert got.samples == []
    assert len(got.skipped) == 1


def test_a_file_that_is_cut_short_gives_what_it_has(tmp_path):
    data = archive(members(30))
    cut = data.index(b"s0000015.png") + 600  # within that image
    got = take(local(tmp_path, data[:cut]), count=30)
    assert len(got.samples) == 15
    assert "unexpected end of data" in "".join(got.skipped)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_raises_nothing_and_makes_no_sample_of_another_class(tmp_path, data):
    files = members(12)
    content = bytearray(archive(files))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=30)):
        content[at] = data.draw(st.integers(0, 255))
    got = take(local(tmp_path, bytes(content)), count=12)
    assert len(got.samples) <= 12 + 12  # a damaged name may part a sample in two keys
    assert all(0 <= each.label < 3 for each in got.samples)
