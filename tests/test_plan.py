from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.conductance.blocks import Layout
from vlmsel_auto.conductance.plan import Plan
from vlmsel_auto.conductance.sweep import Footprint


def _plan(budget, graph, blocks):
    layouts = (Layout(rows="first", channels=1),) * len(blocks)
    foot = Footprint(graph_bytes=graph, block_bytes=tuple(blocks), layouts=layouts, shapes=((4,),) * len(blocks))
    return Plan(foot=foot, budget=budget)


SIZES = st.lists(st.integers(1, 10**6), min_size=1, max_size=12)


@given(st.integers(1, 10**9), st.integers(0, 10**7), SIZES, st.integers(3, 129))
def test_chunks_fit_half_the_budget_or_are_the_least_possible(budget, graph, blocks, points):
    plan = _plan(budget, graph, blocks)
    total = sum(blocks)
    rows = plan.rows()
    assert rows == 1 or rows * (graph + 2 * total) <= budget / 2
    images = plan.images(points, points, keeps=plan.keeps(points))
    assert images == 1 or images * points <= rows
    if plan.keeps(points) and images > 1:
        assert images * points * 3 * total <= budget / 2


@given(st.integers(1, 10**8), SIZES, st.integers(3, 129))
def test_groups_hold_every_block_once_in_order_and_fit(budget, blocks, points):
    plan = _plan(budget, 10, blocks)
    groups = plan.groups(points)
    assert [index for group in groups for index in group] == list(range(len(blocks)))
    if len(groups) > 1:
        for group in groups:
            assert len(group) == 1 or 2 * points * sum(blocks[i] for i in group) <= budget / 2


def test_golden_chunks():
    plan = _plan(10_000, 100, [50, 150])
    assert (plan.least, plan.rows(), plan.images(3, 3, keeps=False), plan.keeps(9)) == (300, 10, 3, False)
    assert plan.groups(9) == [(0, 1)]
    assert plan.groups(20) == [(0,), (1,)]
