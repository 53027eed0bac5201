"""Results of benchmarks against committed ones: what moved is named, timings are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare.py"
OLD = {
    "machine": {"name": "x86_64", "threads": 2},
    "rows": [
        {"table": "tuned", "form": "default", "ndcg5": 0.7589, "gain": None, "seconds": 3.0},
        {"table": "tuned", "form": "no labels", "ndcg5": 0.701, "gain": 0.05, "seconds": 1.0},
    ],
    "errors": {"0.01": [0.2, 0.1]},
}


def changed(**rows):
    new = json.loads(json.dumps(OLD))
    new["rows"][1].update(rows)
    return new


def compare(tmp_path, new, *options):
    for name, content in (("old", OLD), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "old.json", tmp_path / "new.json", *options],
        capture_output=True,
        text=True,
        check=False,
    )


def test_rounding_order_of_rows_timings_and_new_figures_are_no_movement(tmp_path):
    new = changed(ndcg5=0.7014, seconds=99.0, more=1.0)
    new["rows"].reverse()
    new["machine"] = {"name": "other", "threads": 64}
    done = compare(tmp_path, new)
    assert (done.returncode, done.stdout) == (0, "new.json: 0 of 6 figures moved\n")


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (changed(ndcg5=0.702), "rows / tuned, no labels / ndcg5: 0.701 -> 0.702"),
        (changed(gain=None), "rows / tuned, no labels / gain: 0.05 -> None"),
        (changed(ndcg5=float("nan")), "rows / tuned, no labels / ndcg5: 0.701 -> nan"),
        ({**OLD, "errors": {"0.01": [0.2]}}, "errors / 0.01 / 1: 0.1 is gone"),
        ({**OLD, "rows": OLD["rows"][:1]}, "rows / tuned, no labels / ndcg5: 0.701 is gone"),
    ],
)
def test_what_moved_is_named(tmp_path, new, line):
    done = compare(tmp_path, new)
    assert done.returncode == 1
    assert f"    {line}\n" in done.stdout


def test_tolerance_can_be_set(tmp_path):
    assert compare(tmp_path, changed(ndcg5=0.702), "--tolerance", "0.01").returncode == 0
