"""The maker of the published conductances reads what a CSV of printed vectors says."""

import csv
import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "published_conductance.py"))


def test_figures_go_by_the_names_of_open_clips_data_sets(tmp_path):
    path, names = tmp_path / "printed.csv", list(SCRIPT["NAMES"])
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["arch", "tag", "task", "blocks", "mean_abs_conductance_1e-9"])
        for place, name in reversed(list(enumerate(names))):
            rows.writerow(["RN", "x", name, "one two", f"{place + 1} 7"])
    found = SCRIPT["read"](path)
    assert found.candidate_ids == ("RN/x",)
    assert found.tasks[names.index("cifar")] == "CIFAR-100"
    assert found.blocks == (("one", "two"),)
    np.testing.assert_allclose(found.mean[0], [[(place + 1) * 1e-9, 7e-9] for place in range(21)])
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(KeyError, match="car"):
        SCRIPT["read"](path)
