"""ask_tell.py: the searches keep to one interface and need nobody else's package."""

import math
import subprocess
import sys

import pytest

from helpers.optuna_world import prior
from vlmsel_auto.integrations.ask_tell import AskTell, Rungs, sign_of
from vlmsel_auto.integrations.candidate_search import CandidateSearch
from vlmsel_auto.integrations.past_search import PastRow, PastSearch, PastTable

FOREIGN = ("optuna", "optunahub", "ray", "torch", "lightning")
ROWS = [
    PastRow(task=task, params={"model": model, "C": c}, value=value)
    for task in ("birds", "cars")
    for (model, c), value in {("a", 1.0): 0.6, ("a", 10.0): 0.7, ("b", 1.0): 0.5, ("b", 10.0): 0.55}.items()
]


def test_searches_import_no_study_no_tuner_and_no_torch():
    code = (
        "import sys\n"
        "from vlmsel_auto.integrations import candidate_search, past_search\n"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    "make",
    [
        lambda mode: CandidateSearch(prior(), mode=mode),
        lambda mode: PastSearch(PastTable.of(ROWS, candidate="model"), mode=mode),
    ],
    ids=["candidates", "past"],
)
def test_one_loop_runs_every_search(make, mode):
    search: AskTell = make(mode)
    assert search.mode == mode
    asked = []
    while not search.should_stop() and len(asked) < 40:
        params = search.ask()
        asked.append(tuple(sorted(params.items())))
        if len(asked) == 2:
            search.fail(params)
        else:
            search.tell(params, sign_of(mode) * (0.5 + 0.01 * (len(asked) == 3)))
    assert 4 <= len(asked) < 40
    assert len(set(asked)) >= 4


@pytest.mark.parametrize("make", [CandidateSearch, PastSearch])
def test_another_mode_is_refused(make):
    belief = prior() if make is CandidateSearch else PastTable.of(ROWS, candidate="model")
    with pytest.raises(ValueError, match="mode must be 'max' or 'min', but got 'maximize'"):
        make(belief, mode="maximize")


def test_no_number_is_in_the_better_half_and_nobody_is_compared_with_it():
    rungs = Rungs()
    assert not rungs.goes_on(math.nan, step=1)
    assert not rungs.goes_on(math.nan, step=1)
    assert rungs.goes_on(0.5, step=1)
    assert not rungs.goes_on(0.4, step=1)  # the better half of two is one; of four it would be two


def test_the_better_half_goes_on_at_each_step():
    rungs = Rungs()
    assert [rungs.goes_on(value, step=0) for value in (0.5, 0.6, 0.4, 0.55)] == [True, True, False, True]
    assert rungs.goes_on(0.1, step=1)  # nobody else got as far
    assert not rungs.goes_on(0.58, step=0, handicap=0.1)
    assert rungs.goes_on(0.58, step=0)
