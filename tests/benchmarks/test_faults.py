"""The quick form of the campaign of faults: kills at two moments and a full disk, each against a real search."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.slow
def test_a_search_survives_kills_and_a_full_disk() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PLACE), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["cases"] == 2
    assert told["kills"] == 2
    assert told["wrong"] == {}
