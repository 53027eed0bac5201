"""real_table.py: what JSON, markdown and plot hold."""

import json

import pytest

from vlmsel_auto.bench.real_table import RealRow, RealTable
from vlmsel_auto.records import Interval


@pytest.fixture
def table():
    span = Interval(low=-0.2, high=0.1)
    rows = tuple(
        RealRow(
            ranking=name, what=f"what {name} is", authors_ndcg5=0.7, ndcg5=0.5, tau_b=0.25, top1_loss=2.3,
            authors_gain=-0.05, authors_gain_interval=interval, gain=-0.04, gain_interval=interval,
        )
        for name, interval in (("average_rank", None), ("dcd_authors", span))
    )  # fmt: skip
    return RealTable(rows=rows, targets=("x", "y"), candidates=48)


def test_json_has_both_measures_and_their_gains(table):
    record = json.loads(table.to_json())
    assert (record["targets"], record["candidates"]) == (["x", "y"], 48)
    first, second = record["rows"]
    assert (first["gain_low"], first["authors_gain_high"]) == (None, None)
    assert (second["authors_ndcg5"], second["ndcg5"], second["authors_gain_low"]) == (0.7, 0.5, -0.2)


def test_markdown_explains_measures_and_rows_first(table):
    before, _, after = table.to_markdown().partition("| ranking |")
    assert "relevance max(0, 6 - true rank)" in before
    assert "0 where fewer than two do" in before
    assert "- dcd_authors: what dcd_authors is" in before
    assert "| average_rank | 0.700 | 0.500 | 0.250 | 2.30 |" in after
    assert "| 0.700 (-0.050 [-0.200, +0.100]) |" in after


def test_plot_and_row(table, tmp_path):
    table.plot(tmp_path / "bench.svg")
    assert (tmp_path / "bench.svg").read_text().lstrip().startswith("<?xml")
    assert table.row("dcd_authors").gain == -0.04
    with pytest.raises(KeyError, match="luck"):
        table.row("luck")
