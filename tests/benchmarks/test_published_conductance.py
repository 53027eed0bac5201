"""Published conductances: the file in benchmarks/data, round trip, damage, and the CSV of printed vectors behind it."""

import csv

import numpy as np
import pytest

from benchmarks.ranking import published_conductance
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library import published


def test_the_file_has_48_models_that_open_clip_publishes_accuracies_of():
    found = published_conductance.load()
    assert (len(found.candidate_ids), len(found.tasks)) == (48, 21)
    assert "github.com/echoas8/DCD" in found.source
    assert np.isfinite(published.zero_shot(found.candidate_ids)).all()
    assert len(set(found.tasks) & set(published.datasets())) == 18
    assert all(one.shape == (21, len(blocks)) for one, blocks in zip(found.mean, found.blocks, strict=True))
    assert all((one > 0).all() for one in found.mean)


def test_a_printed_vector_digit_by_digit():
    found = published_conductance.load()
    m = found.candidate_ids.index("RN50/cc12m")
    assert found.blocks[m] == ("layer1", "layer2", "layer3", "layer4", "attnpool")
    np.testing.assert_allclose(found.mean[m][found.tasks.index("Stanford Cars"), :3], [1083e-9, 1915e-9, 3283e-9])


def test_round_trip_and_damage(tmp_path):
    made = published_conductance.PublishedConductance(
        candidate_ids=("a/b",), tasks=("x", "y"), blocks=(("p", "q"),), mean=(np.array([[1e-9, 2e-6], [3e-9, 4e-9]]),),
        source="s",
    )  # fmt: skip
    published_conductance.save(made, tmp_path / "c.safetensors")
    read = published_conductance.load(tmp_path / "c.safetensors")
    assert (read.candidate_ids, read.tasks, read.blocks, read.source) == (("a/b",), ("x", "y"), (("p", "q"),), "s")
    np.testing.assert_allclose(read.mean[0], made.mean[0], rtol=1e-12)
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-3])
    with pytest.raises(LibraryError, match="cut short"):
        published_conductance.load(tmp_path / "c.safetensors")


def test_figures_go_by_the_names_of_open_clips_data_sets(tmp_path):
    path, names = tmp_path / "printed.csv", list(published_conductance.NAMES)
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["arch", "tag", "task", "blocks", "mean_abs_conductance_1e-9"])
        for place, name in reversed(list(enumerate(names))):
            rows.writerow(["RN", "x", name, "one two", f"{place + 1} 7"])
    found = published_conductance.read(path)
    assert found.candidate_ids == ("RN/x",)
    assert found.tasks[names.index("cifar")] == "CIFAR-100"
    assert found.blocks == (("one", "two"),)
    np.testing.assert_allclose(found.mean[0], [[(place + 1) * 1e-9, 7e-9] for place in range(21)])
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(KeyError, match="car"):
        published_conductance.read(path)
