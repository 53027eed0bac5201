import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cell_world import cell, small
from vlmsel_auto.errors import LibraryError


def test_dense_arrays_hold_what_the_cells_said():
    made = small()
    assert made.candidate_ids == ("a", "b", "c")
    assert made.task_names == ("birds", "cars")
    assert made.activity[0].shape == (2, 2)
    assert made.has_profiles == (True, True, False)
    assert made.evidence_draws.shape == (3, 2, 2, 2, 2)
    kept = made.evidence_draws[0, 0, :, :, made.evidence_names.index("knn")]
    np.testing.assert_array_equal(kept, [[0.5, 0.625], [0.75, np.nan]])  # draws x shots
    assert np.isnan(made.evidence_draws[0, 0, :, 0, made.evidence_names.index("logme")]).all()
    assert np.isnan(made.zero_shot[2, 1])
    assert made.build[2, 1] == -1
    assert made.cell("c", "cars") is None
    assert made.tuned[0, 0] == 0.75
    kept = made.cell("a", "cars")
    assert kept is not None
    np.testing.assert_equal(dataclasses.asdict(kept), dataclasses.asdict(cell("a", "cars")))


@settings(max_examples=25, deadline=None)
@given(left=st.sampled_from(["birds", "cars"]), rows=st.permutations(["a", "b", "c"]))
def test_taking_parts_is_assembling_from_their_cells(left, rows):
    made = small()
    taken = made.leave_out(name=left).select(rows)
    other = "cars" if left == "birds" else "birds"
    for name in rows:
        assert taken.zero_shot[taken.row(name), 0] == pytest.approx(
            made.zero_shot[made.row(name), made.column(other)], nan_ok=True
        )
        np.testing.assert_array_equal(
            taken.activity[taken.row(name)][0], made.activity[made.row(name)][made.column(other)]
        )
    assert taken.task_names == (other,)


def test_unknown_names_are_refused_by_name():
    with pytest.raises(LibraryError, match=r"no such candidate; it has a, b, c, but got 'z'"):
        small().select(["a", "z"])
    with pytest.raises(LibraryError, match=r"no such task.*'z'"):
        small().select_tasks(["z"])
    assert small().leave_out(name="z").task_names == small().task_names
