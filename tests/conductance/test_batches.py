from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.conductance.batches import BatchSizes, even
from vlmsel_auto.conductance.blocks import Layout
from vlmsel_auto.conductance.footprint import Footprint


def _batches(budget, graph, blocks, passes=None):
    layouts = (Layout(rows="first", channels=1),) * len(blocks)
    foot = Footprint(graph_bytes=graph, block_bytes=tuple(blocks), layouts=layouts, shapes=((4,),) * len(blocks))
    return BatchSizes(foot=foot, budget=budget, passes=passes)


SIZES = st.lists(st.integers(1, 10**6), min_size=1, max_size=12)


@given(st.integers(1, 10**9), st.integers(0, 10**7), SIZES, st.integers(3, 129))
def test_chunks_fit_half_the_budget_or_are_the_least_possible(budget, graph, blocks, points):
    batches = _batches(budget, graph, blocks)
    total = sum(blocks)
    rows = batches.rows()
    assert rows == 1 or rows * (graph + 2 * total) <= budget / 2
    images = batches.images(points, points, keeps=batches.keeps(points))
    assert images == 1 or images * points <= rows
    if batches.keeps(points) and images > 1:
        assert images * points * 3 * total <= budget / 2


@given(st.integers(1, 10**8), SIZES, st.integers(3, 258))
def test_groups_hold_every_block_once_in_order_and_fit(budget, blocks, held):
    groups = _batches(budget, 10, blocks).groups(held)
    assert [index for group in groups for index in group] == list(range(len(blocks)))
    for group in groups:
        assert len(group) == 1 or 2 * held * sum(blocks[i] for i in group) <= budget


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 10**7), SIZES)
def test_enough_for_passes_only_lowers_the_rows_and_never_below_thirty_two(budget, passes, graph, blocks):
    free, held = _batches(budget, graph, blocks).rows(), _batches(budget, graph, blocks, passes).rows()
    assert held <= free
    assert held == free or held >= 32


def test_golden_chunks():
    batches = _batches(10_000, 100, [50, 150])
    assert (batches.least, batches.rows(), batches.images(3, 3, keeps=False), batches.keeps(9)) == (300, 10, 3, False)
    assert batches.groups(18) == [(0, 1)]
    assert batches.groups(40) == [(0,), (1,)]
    assert _batches(10**6, 100, [50, 150], 20_000).rows() == 40
    assert _batches(10**6, 100, [50, 150], 10).rows() == 32


@given(st.integers(1, 300), st.integers(1, 300))
def test_pieces_are_the_fewest_and_even(count, most):
    size = even(count, most)
    assert size <= most
    assert -(-count // size) == -(-count // most)
    assert count - (-(-count // size) - 1) * size > 0
