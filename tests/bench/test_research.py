import dataclasses

import numpy as np
import pytest

from helpers.zoo_world import World
from vlmsel_auto.bench.research import Research, joined, load, save
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.file import save as save_library


@pytest.fixture(scope="module")
def world():
    return World(candidates=3, tasks=4)


@pytest.fixture(scope="module")
def research(world):
    return world.research()


def test_file_round_trip(research, tmp_path):
    save(research, tmp_path / "r.safetensors")
    read = load(tmp_path / "r.safetensors")
    for item in dataclasses.fields(Research):
        one, other = getattr(read, item.name), getattr(research, item.name)
        if item.name.startswith("class_") or item.name in ("image_sd", "signature", "absolute", "norm_activity"):
            for a, b in zip(one, other, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)  # embeddings are kept as float16
        else:
            np.testing.assert_equal(one, other, err_msg=item.name)


def test_files_of_another_kind_are_refused(world, tmp_path):
    save_library(world.library(), tmp_path / "l.safetensors")
    with pytest.raises(LibraryError, match="do not say 'vlmsel_auto research figures'"):
        load(tmp_path / "l.safetensors")


def test_figures_go_by_the_order_of_the_library(world, research):
    library = world.library().select(world.ids[::-1]).select_tasks(world.names[1:3])
    found = research.aligned(library)
    assert [one.id for one in found.candidates] == world.ids[::-1]
    np.testing.assert_array_equal(found.signals, research.signals[::-1, 1:3])
    np.testing.assert_array_equal(found.signature[0][1], research.signature[2][1][1:3])
    np.testing.assert_array_equal(found.class_text[0], research.class_text[2][4:12])
    rest = found.take(np.arange(len(found.candidates)), np.array([1]))
    np.testing.assert_array_equal(rest.class_text[0], research.class_text[2][8:12])
    assert found.class_slices() == (slice(0, 4), slice(4, 8))


def test_other_weights_and_other_images_are_not_known(world, research):
    library = world.library()
    other = dataclasses.replace(
        library,
        candidates=(dataclasses.replace(library.candidates[0], sha256="other"), *library.candidates[1:]),
        tasks=(*library.tasks[:3], dataclasses.replace(library.tasks[3], digest="other")),
    )
    found = research.aligned(other)
    assert np.isnan(found.signals[0]).all()
    assert np.isnan(found.signals[:, 3]).all()
    np.testing.assert_array_equal(found.signals[1:, :3], research.signals[1:, :3])
    assert found.signature[0] == ()
    assert np.isnan(found.class_text[1][12:]).all()


def test_a_joined_library_has_the_scores_of_both(world, research):
    library = world.library()
    both, aligned = joined(library, research)
    assert aligned is not None
    assert set(both.signal_names) == {*library.signal_names, *research.signal_names}
    assert set(both.evidence_names) == {*library.evidence_names, *research.evidence_names}
    k = both.evidence_names.index("knn")
    np.testing.assert_array_equal(
        both.evidence_draws[..., k], research.evidence_draws[..., research.evidence_names.index("knn")]
    )
    assert joined(library, None) == (library, None)
