"""case.py: who judges, what the sources are, what rankings may ask."""

import dataclasses

import numpy as np
import pytest

from helpers.zoo_world import World
from vlmsel_auto.bench.case import Case


@pytest.fixture(scope="module")
def library():
    return World().library()


def test_every_complete_run_judges_on_its_own_and_candidates_without_truth_stay_out(library):
    case = Case(library=library, column=3, truth="tuned", shots=0)
    assert [one.tolist() for one in case.truths] == library.tuned_runs[:, 3].T.tolist()
    runs, zero_shot = library.tuned_runs.copy(), library.zero_shot.copy()
    runs[0, 3] = runs[1, 3, 1] = zero_shot[0, 3] = np.nan
    part = Case(
        library=dataclasses.replace(library, tuned_runs=runs, zero_shot=zero_shot), column=3, truth="tuned", shots=0
    )
    assert part.rows.tolist() == list(range(1, 9))
    assert [one.tolist() for one in part.truths] == [runs[1:, 3, 0].tolist()]
    assert part.sources.candidate_ids == library.candidate_ids[1:]
    assert Case(library=library, column=3, truth="zero_shot", shots=0).truths[0].tolist() == zero_shot_of(library, 3)


def zero_shot_of(library, column):
    return library.zero_shot[:, column].tolist()


def test_the_target_is_no_source(library):
    case = Case(library=library, column=3, truth="tuned", shots=4)
    assert case.sources.task_names == tuple(name for name in library.task_names if name != "t03")
    assert case.source_truth.shape == (9, 9)
    assert case.gathered(shots=4).shots == 4


def test_evidence_is_that_of_the_nearest_number_of_labels(library):
    for shots, k in ((1, 0), (3, 1), (16, 1)):
        found = Case(library=library, column=0, truth="tuned", shots=shots).evidence("logme")
        stored = library.evidence_draws[:, 0, :, k, library.evidence_names.index("logme")]
        assert [one.tolist() for one in found] == [one.tolist() for one in stored.T if np.isfinite(one).any()]
    assert Case(library=library, column=0, truth="tuned", shots=0).evidence("logme") == []
    assert Case(library=library, column=0, truth="tuned", shots=4).evidence("no such score") == []


def test_chances_of_kin_move_together(library):
    """All drawn candidates have one architecture: half of the error is shared, so the leader is surer than alone."""
    case = Case(library=library, column=0, truth="tuned", shots=4)
    scores = case.fused[0]
    chances = case.chances(scores)
    assert chances.p_best.sum() == pytest.approx(1.0)
    assert np.argmax(chances.p_best) == np.argmax(scores.score)
    alone = np.random.default_rng(0).normal(scores.score, scores.sd, size=(4000, 9)).argmax(axis=1)
    assert chances.p_best.max() > np.mean(alone == np.argmax(scores.score))


def test_a_function_of_three_lines_takes_the_place_of_dcd(library):
    def euclid(targets, sources, used):
        del used
        return np.linalg.norm(targets[:, None] - sources, axis=2)

    case = Case(library=library, column=0, truth="tuned", shots=0, divergence=euclid)
    plain = Case(library=library, column=0, truth="tuned", shots=0)
    assert case.gathered(shots=0).profiled
    assert np.abs(case.gathered(shots=0).to_target - plain.gathered(shots=0).to_target).max() > 0.01
