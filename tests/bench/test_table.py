"""table.py: what JSON and markdown hold."""

import json

import pytest

from vlmsel_auto.bench.table import BenchRow, BenchTable
from vlmsel_auto.records import Interval


@pytest.fixture
def table():
    figures = {"ndcg5": 0.5, "tau_b": 0.1, "top1_loss": 4.0}
    rows = tuple(
        BenchRow(ranking=name, **figures, gain=0.1, gain_interval=interval, targets=10, per_target={"t": 0.5})
        for name, interval in (("random", None), ("average_rank", None), ("fused", Interval(low=0.0, high=0.2)))
    )
    names = tuple(f"t{t}" for t in range(10))
    return BenchTable(rows=rows, targets=names, candidates=9, truth="tuned", shots=0, notes=("n",))


def test_json_is_what_was_promised(table):
    record = json.loads(json.dumps(table.record()))
    assert record["targets"] == 10
    wanted = {"ranking", "ndcg5", "tau_b", "top1_loss"}
    assert all(wanted <= set(row) for row in record["rows"])
    assert record["rows"][0]["ranking"] == "random"
    assert [row["gain_high"] for row in record["rows"]] == [None, None, 0.2]


def test_markdown(table):
    text = table.to_markdown()
    assert "relevance max(0, 6 - true rank)" in text
    assert text.count("\n| ") == len(table.rows) + 1
    assert "no labels a class" in text
    assert "+0.100 [+0.000, +0.200]" in text


def test_a_row_by_its_name(table):
    assert table.row("fused").gain == 0.1
    with pytest.raises(KeyError, match="luck"):
        table.row("luck")
