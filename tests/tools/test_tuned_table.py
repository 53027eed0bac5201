from pathlib import Path

import numpy as np
import pytest

from helpers.cell_world import cell, small
from tools.tuned_table import import_tuned, with_tuned
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.assemble import assemble


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tuned_tables_wide_and_long(tmp_path):
    made = assemble([cell(m, s, tuned={}) for m in "ab" for s in ("birds", "cars")])
    wide = table(
        tmp_path / "wide.csv",
        "member,task,zeroshot,lr3e4,lr1e3",
        "a,birds,0.1,0.5,0.75",
        "b,cars,0.1,0.25,",
        "other,birds,0,0,0",
    )
    first = import_tuned(made, wide, source="a paper")
    assert first.run_names == ("lr1e3", "lr3e4")
    assert first.run_sources == ("a paper", "a paper")
    np.testing.assert_array_equal(first.tuned, [[0.625, np.nan], [np.nan, 0.25]])
    long = table(
        tmp_path / "long.csv",
        "member,task,method,seed,zeroshot,accuracy,seconds,error",
        "a,birds,finetune,0,0.1,1.0,3,",
        "a,birds,probe,0,0.1,0.5,3,",
        "a,birds,probe,1,0.1,0.25,3,",
        "b,birds,probe,0,0.1,,3,out of memory",
    )
    both = import_tuned(first, long)
    assert both.run_names == ("lr1e3", "lr3e4", "finetune seed=0")
    assert both.tuned[0, 0] == 0.75
    np.testing.assert_array_equal(both.probed, [[0.375, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(made.tuned, np.full((2, 2), np.nan))


def test_wrong_tuned_tables_are_refused_by_name(tmp_path):
    made = assemble([cell(m, s, tuned={}) for m in "ab" for s in ("birds", "cars")])
    path = tmp_path / "t.csv"
    for lines, reason in (
        (("member,task", "a,one"), "has the columns member, task"),
        (("member,task,run", "a,birds,12"), r"must lie in \[0, 1\], but got '12'"),
        (("member,task,run", "a,birds,x"), "must hold numbers, but got 'x'"),
        (("member,task,run", "a,b,0.5"), "no row of the table belongs"),
    ):
        with pytest.raises(LibraryError, match=reason) as caught:
            import_tuned(made, table(path, *lines))
        assert str(path) in str(caught.value)
    with pytest.raises(LibraryError, match="cannot be read"):
        import_tuned(made, tmp_path / "none.csv")


def test_tuned_runs_are_set_replaced_and_checked():
    made = with_tuned(small(), run="run 1", source="table.csv", values={("a", "cars"): 0.25, ("z", "cars"): 1.0})
    assert made.run_names == ("run 0", "run 1")
    assert made.tuned[0, 1] == 0.5
    again = with_tuned(made, run="run 1", source="table.csv", values={("a", "cars"): 0.75})
    assert again.run_names == ("run 0", "run 1")
    assert again.tuned[0, 1] == 0.75
    with pytest.raises(LibraryError, match=r"must lie in \[0, 1\], but got 1.5"):
        with_tuned(made, run="x", source="", values={("a", "cars"): 1.5})
