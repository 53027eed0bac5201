"""How many images of a heap are looked at, which, and what is said of it."""

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


def test_a_given_number_is_kept_to(scan: Scan) -> None:
    positions, notes = draw_sample(scan, images=5, seed=0)
    assert len(set(positions.tolist())) == 5
    assert notes == ("no labels: 5 of 300 files were looked at, drawn by chance (--images)",)
    assert draw_sample(scan, images=300, seed=0)[1] == ("no labels: all 300 files were looked at",)


@pytest.mark.parametrize(("seconds", "expected"), [(150.0, 141), (250.0, 200), (1.0, LEAST), (1e6, 300)])
def test_as_many_as_the_time_allows_in_steps(scan: Scan, seconds: float, expected: int) -> None:
    size = AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=1e3 * seconds)
    assert len(draw_sample(scan, images=size, seed=0)[0]) == expected


def test_the_note_says_what_bounds_the_sample(scan: Scan) -> None:
    def note(size: AsManyAsFit) -> str:
        return draw_sample(scan, images=size, seed=0)[1][0]

    timely = note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=150e3))
    assert timely.startswith("no labels: 141 of 300 files were looked at, drawn by chance, as many as fit in 150000 ")
    assert "and 1000000 ms in all candidates; --images chooses another number)" in timely
    assert "the least that are: more than 60 seconds" in note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3))
    crowd = note(AsManyAsFit(candidates=500, image_seconds=lambda: 0.0, seconds=1e6))
    assert "141 of 300" in crowd
    assert "as many as fit in 537 MB (all candidates keep 3.10 MB of each" in crowd


def test_a_smaller_sample_is_part_of_a_larger_one(scan: Scan) -> None:
    small, large = (draw_sample(scan, images=images, seed=0)[0] for images in (100, 200))
    assert np.isin(small, large).all()


def test_few_images_are_not_timed(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")

    def refused() -> float:
        raise AssertionError

    few = scan_folder(tmp_path, classes=("a", "b"))
    positions, notes = draw_sample(few, images=AsManyAsFit(candidates=1, image_seconds=refused), seed=0)
    assert (positions.tolist(), notes) == ([0], ("no labels: all 1 files were looked at",))
