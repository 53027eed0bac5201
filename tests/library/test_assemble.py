import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cell_world import BUILD, assert_equal, candidate, cell, small, task
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.assemble import assemble, merge
from vlmsel_auto.library.records import Build, Cell, SourceCandidate


def test_cells_give_the_library_back():
    made = small()
    assert_equal(assemble(made.cells(), failures=made.failures), made)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_merging_parts_in_any_order_gives_the_same_figures(order, cut):
    grid = [cell(m, s, zero_shot=i / 8) for i, (m, s) in enumerate((m, s) for m in "abc" for s in ("birds", "cars"))]
    whole = assemble(grid)
    parts = [grid[i] for i in order]
    merged = merge(assemble(parts[:cut]), assemble(parts[cut:]))
    assert_equal(merged.select(whole.candidate_ids).select_tasks(whole.task_names), whole)


def test_merge_with_itself_changes_nothing():
    made = small()
    assert_equal(merge(made, made), made)


def test_same_cell_from_two_builds_the_newest_counts():
    other = dataclasses.replace(BUILD, code_version="0.2.0")
    old = assemble([cell("a", "birds", finished=5.0, zero_shot=0.25)])
    new = assemble([cell("a", "birds", finished=9.0, zero_shot=0.75, build=other)])
    for merged in (merge(old, new), merge(new, old)):
        assert merged.zero_shot[0, 0] == 0.75
        assert merged.builds == (other,)


def test_cells_of_other_weights_are_dropped():
    old = [cell("a", "birds"), cell("a", "cars")]
    new = [cell("a", "birds", finished=2.0, zero_shot=0.875, candidate=candidate("a", sha256="other"))]
    merged = merge(assemble(old), assemble(new))
    assert merged.task_names == ("birds",)  # figures of other weights say nothing about these
    assert merged.zero_shot[0, 0] == 0.875


def test_tasks_of_other_content_are_dropped():
    old = assemble([cell("a", "birds"), cell("b", "birds")])
    new = assemble([cell("a", "birds", finished=2.0, task=task("birds", digest="other"))])
    merged = merge(old, new)
    assert merged.candidate_ids == ("a",)
    assert merged.tasks[0].digest == "other"


def test_other_blocks_lose_the_old_profile_but_keep_the_accuracies():
    renamed = dataclasses.replace(candidate("a"), blocks=("stem", "head"))
    old = [cell("a", "birds", zero_shot=0.25), cell("a", "cars", zero_shot=0.375)]
    merged = merge(assemble(old), assemble([cell("a", "birds", finished=2.0, candidate=renamed)]))
    assert merged.candidates[0].blocks == ("stem", "head")
    assert merged.zero_shot[0, merged.column("cars")] == 0.375
    assert np.isnan(merged.activity[0][merged.column("cars")]).all()
    assert np.isfinite(merged.activity[0][merged.column("birds")]).all()


def test_accuracies_and_profile_of_one_cell_join():
    bare = Cell(
        candidate=SourceCandidate(id="a", arch="arch-a", tag="t"),
        task=task("birds"),
        build=Build(source="a table", code_version=""),
        finished=7.0,
        tuned={"run 1": 0.875},
        probed=0.625,
    )
    merged = merge(assemble([cell("a", "birds")]), assemble([bare]))
    assert merged.builds == (BUILD,)  # whoever made the profile
    assert merged.run_names == ("run 0", "run 1")
    assert merged.tuned[0, 0] == (0.75 + 0.875) / 2
    assert merged.probed[0, 0] == 0.625
    assert merged.zero_shot[0, 0] == 0.5
    assert merged.candidates[0].sha256 == "sha-of-a"


def test_a_failure_is_forgotten_once_the_cell_is_there():
    assert merge(small(), assemble([cell("c", "cars")])).failures == ()
    assert merge(small(), assemble([cell("a", "cars", finished=3.0)])).failures == small().failures


def test_wrong_shape_is_refused():
    with pytest.raises(LibraryError, match=r"activity of a on birds must have shape \(2,\), but got \(5,\)"):
        assemble([cell("a", "birds", activity=np.zeros(5))])
