"""How many images of a heap are screened, which, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.sample import LEAST, AsManyAsFit, draw_sample
from vlmsel_auto.tasks.scan import Scan


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """300 files, of which those in the middle, which are timed, are damaged."""
    root = tmp_path_factory.mktemp("heap")
    for number in range(300):
        path = root / f"{number:03d}.png"
        Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(path)
        if 140 <= number < 160:
            path.write_bytes(path.read_bytes()[:20])
    return scan_folder(root, classes=("a", "b"))


def refused() -> float:
    """Nobody needs to know how long an image takes."""
    raise AssertionError


def test_a_given_number_is_kept_to(scan: Scan) -> None:
    sample = draw_sample(scan, images=5, seed=0)
    assert len(set(sample.positions.tolist())) == 5
    assert sample.note == "no labels: 5 of 300 files were screened, drawn by chance (--images)"
    for images in (300, None):
        assert draw_sample(scan, images=images, seed=0).note == "no labels: all 300 files were screened"


@pytest.mark.parametrize(("seconds", "expected"), [(150.0, 141), (250.0, 200), (1.0, LEAST), (1e6, 300)])
def test_as_many_as_the_time_allows_in_steps(scan: Scan, seconds: float, expected: int) -> None:
    size = AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=1e3 * seconds)
    assert len(draw_sample(scan, images=size, seed=0).positions) == expected


def test_the_note_says_what_bounds_the_sample(scan: Scan) -> None:
    def note(size: AsManyAsFit) -> str:
        return draw_sample(scan, images=size, seed=0).note

    timely = note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=150e3))
    assert timely.startswith("no labels: 141 of 300 files were screened, drawn by chance, as many as fit in 150000 ")
    assert "and 1000000 ms in all candidates; --images chooses another number)" in timely
    assert "the least that are: more than 60 seconds" in note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3))
    crowd = note(AsManyAsFit(candidates=500, image_seconds=lambda: 0.0, seconds=1e6))
    assert "141 of 300" in crowd
    assert "as many as fit in 537 MB (all candidates keep 3.10 MB of each" in crowd


def paths_of(scan: Scan, *, images: int, seed: int = 0) -> list[str]:
    """As they were drawn."""
    sample = draw_sample(scan, images=images, seed=seed)
    assert (np.diff(sample.positions) > 0).all()
    return [scan.entries[place].path for place in sample.positions[sample.order]]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(scan: Scan) -> None:
    assert paths_of(scan, images=100) == paths_of(scan, images=200)[:100] != paths_of(scan, images=100, seed=1)


def test_a_file_that_goes_takes_no_other_out_of_the_sample(scan: Scan) -> None:
    drawn = paths_of(scan, images=100)
    fewer = replace(scan, entries=tuple(entry for entry in scan.entries if entry.path != drawn[7]))
    assert paths_of(fewer, images=100)[:99] == [*drawn[:7], *drawn[8:]]


def test_a_search_that_goes_on_keeps_to_its_number(scan: Scan) -> None:
    size = AsManyAsFit(candidates=1, image_seconds=refused, earlier=7)
    note = "no labels: 7 of 300 files were screened, drawn by chance, as many as this search began with"
    assert draw_sample(scan, images=size, seed=0).note == note


def test_few_images_are_not_timed(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    few = scan_folder(tmp_path, classes=("a", "b"))
    sample = draw_sample(few, images=AsManyAsFit(candidates=1, image_seconds=refused), seed=0)
    assert (sample.positions.tolist(), sample.note) == ([0], "no labels: all 1 files were screened")
