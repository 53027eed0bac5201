"""Published conductances: the file that ships, round trip, damage."""

import numpy as np
import pytest

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library import published
from vlmsel_auto.library.published_conductance import PublishedConductance, load, save


def test_the_shipped_file_has_48_models_that_open_clip_publishes_accuracies_of():
    found = load()
    assert (len(found.candidate_ids), len(found.tasks)) == (48, 21)
    assert "github.com/echoas8/DCD" in found.source
    assert np.isfinite(published.zero_shot(found.candidate_ids)).all()
    assert len(set(found.tasks) & set(published.datasets())) == 18
    assert all(one.shape == (21, len(blocks)) for one, blocks in zip(found.mean, found.blocks, strict=True))
    assert all((one > 0).all() for one in found.mean)


def test_a_printed_vector_digit_by_digit():
    found = load()
    m = found.candidate_ids.index("RN50/cc12m")
    assert found.blocks[m] == ("layer1", "layer2", "layer3", "layer4", "attnpool")
    np.testing.assert_allclose(found.mean[m][found.tasks.index("Stanford Cars"), :3], [1083e-9, 1915e-9, 3283e-9])


def test_round_trip_and_damage(tmp_path):
    made = PublishedConductance(
        candidate_ids=("a/b",), tasks=("x", "y"), blocks=(("p", "q"),), mean=(np.array([[1e-9, 2e-6], [3e-9, 4e-9]]),),
        source="s",
    )  # fmt: skip
    save(made, tmp_path / "c.safetensors")
    read = load(tmp_path / "c.safetensors")
    assert (read.candidate_ids, read.tasks, read.blocks, read.source) == (("a/b",), ("x", "y"), (("p", "q"),), "s")
    np.testing.assert_allclose(read.mean[0], made.mean[0], rtol=1e-12)
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-3])
    with pytest.raises(LibraryError, match="cut short"):
        load(tmp_path / "c.safetensors")
