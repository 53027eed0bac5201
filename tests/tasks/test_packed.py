import numpy as np
import pytest

from helpers.drawings import draw_task
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.packed import pack
from vlmsel_auto.tasks.task import load_task


def test_packed_images_are_those_of_the_task_without_its_folder(tmp_path):
    views = [ImageView(size=16), ImageView(size=24)]
    task = load_task(draw_task(tmp_path / "shapes"), views=views, shots=2, workdir=tmp_path / "work")
    packed = pack(task, [*views, views[0]])
    some = np.array([3, 0, 2])
    for view in views:
        np.testing.assert_array_equal(packed.read(view, some), task.pixels.read(view, some))
        packed.prepare(view, some)
    assert packed.found_bad == ()
    with pytest.raises(KeyError):
        packed.read(ImageView(size=32), some)
