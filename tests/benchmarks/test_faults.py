"""The quick form of the campaign of faults: kills at two moments and a full disk, each against a real search."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults.faults_world import Found, Kept

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_search_survives_kills_and_a_full_disk() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.faults.faults", "--quick"],
        cwd=ROOT,
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


def test_after_the_death_of_a_worker_trials_may_have_come_in_other_turns() -> None:
    whole = Kept(state="complete", validation=0.9, test=0.85, curve=(0.5, 0.8, 0.9))
    reference = Found(
        trials={("a", "probe"): (whole,), ("a", "finetune"): (whole,)},
        twice=(), order=("a",), best="a probe", validation=0.9, test=0.85, plain=0.85,
    )  # fmt: skip

    def differs(*fits: object, other_turns: bool, **changes: object) -> list[str]:
        trials = {**reference.trials, ("a", "finetune"): fits}
        found = replace(reference, **{"trials": trials, **changes})
        return found.differs(reference, other_turns=other_turns)

    paused = replace(whole, state="pruned", validation=0.8, test=None, curve=(0.5, 0.8))
    assert len(differs(paused, other_turns=False)) == 1
    assert differs(paused, other_turns=True) == []
    assert differs(replace(whole, fold=1, validation=0.7, curve=(0.7,)), other_turns=True) == []
    assert len(differs(replace(paused, curve=(0.5, 0.7)), other_turns=True)) == 1
    assert len(differs(replace(whole, test=0.8), other_turns=True)) == 1
    assert len(differs(replace(whole, state="failed"), other_turns=True)) == 1
    assert differs(whole, other_turns=True, best="a finetune") == []
    assert len(differs(whole, other_turns=True, best="a finetune", validation=0.8)) == 1
    assert len(differs(whole, other_turns=True, twice=(("a", "probe", 0),))) == 1
    further = replace(whole, fold=1)
    assert len(differs(whole, further, other_turns=False)) == 1
    assert differs(whole, further, other_turns=True) == []
    lost = replace(reference, trials={("a", "probe"): (whole,)})
    assert len(lost.differs(reference, other_turns=True)) == 1
