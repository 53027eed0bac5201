"""The heap that is timed: moved images are other images of the same size, and what commands say is read."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.labels import heap
from vlmsel_auto.events import StageFinished, StageStarted
from vlmsel_auto.reporting.formatting import describe, plural
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.unlabelled_pool import AsManyAsFit, draw_sample


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_moved_image_is_another_of_the_same_format_and_size(kind):
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    assert heap.moved(stream.getvalue(), by=0) == (stream.getvalue(), kind)
    data, named = heap.moved(stream.getvalue(), by=2)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, named, image.size) == (kind, kind, (9, 6))
        if kind == "PNG":
            assert (np.asarray(image) == np.roll(pixels, 2, axis=1)).all()
    assert data != stream.getvalue()


def test_what_a_command_says_is_read(tmp_path):
    for number in range(101):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    scan = scan_folder(tmp_path, classes=("a", "b"))
    size = AsManyAsFit(candidates=2, image_seconds=lambda: 60.0)
    note = draw_sample(scan, images=size, seed=0).note
    assert heap._WHY.search(f"{note} trust: 5% source tasks (no labels)")[1] == note.partition("screened, ")[2]
    started = StageStarted(stage="screenings", total=20, text=f"candidates embed {plural(3_200, 'image')}")
    assert heap._EMBEDDED.search(describe(started))[1] == "3,200"
    line = f"[   0:12] {describe(StageFinished(stage='screenings', seconds=12.0, text='20 candidates'))}\n"
    assert heap._STAGE.findall(line) == [("screenings", "12 s")]
