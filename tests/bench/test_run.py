"""run.py on a drawn world: what must win wins, libraries that lack data lack rows, the sink hears."""

import dataclasses

import numpy as np
import pytest

from helpers.zoo_world import World
from vlmsel_auto.bench.rankings import BASE, RANKINGS
from vlmsel_auto.bench.run import run_bench
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import StageProgress
from vlmsel_auto.library.places import default_library


@pytest.fixture(scope="module")
def library():
    return World().library()


@pytest.fixture(scope="module")
def table(library):
    return run_bench(library, truth="tuned", shots=4, seed=0)


def chosen(*names):
    return {name: RANKINGS[name] for name in names}


def test_every_ranking_has_its_row(table):
    assert [row.ranking for row in table.rows] == [*RANKINGS, "replicate_ceiling"]
    assert len(table.targets) == 10


def test_chance_average_and_ceilings_stand_in_their_order(table):
    assert table.row("random").tau_b == 0.0
    assert table.row("random").ndcg5 < table.row("average_rank").ndcg5 < table.row("fused").ndcg5
    assert table.row("replicate_ceiling").tau_b > 0.8
    assert table.row("source_ceiling").tau_b > table.row("average_rank").tau_b
    assert table.row("average_rank").gain == 0.0
    fused = table.row("fused")
    assert fused.gain == pytest.approx(fused.ndcg5 - table.row("average_rank").ndcg5)
    assert fused.gain_interval.low < fused.gain < fused.gain_interval.high


def test_unknown_accuracies_are_counted_and_left_out_of_their_targets(library):
    holes = library.tuned_runs.copy()
    holes[:2, 4] = np.nan
    table = run_bench(dataclasses.replace(library, tuned_runs=holes), truth="tuned", shots=4, rankings=chosen("fused"))
    assert "2 of 90 accuracies are unknown: these candidates are left out of those targets" in table.notes
    assert set(table.row("fused").per_target) == set(library.task_names)


def test_the_replicate_ceiling_says_on_which_targets_it_stands(library):
    runs = library.tuned_runs.copy()
    runs[:, 3:, 1] = np.nan  # a second run on three targets only
    found = run_bench(dataclasses.replace(library, tuned_runs=runs), truth="tuned", shots=4, seed=0)
    row, fused = found.row("replicate_ceiling"), found.row("fused")
    assert row.targets == 3
    assert fused.targets == 10
    beside = np.mean([fused.per_target[name] for name in row.per_target])
    (note,) = [each for each in found.notes if each.startswith("replicate_ceiling")]
    assert f"on the 3 targets that have several; the fused ranking has an NDCG@5 of {beside:.3f} on these" in note


def test_rescaled_logits_leave_every_row_as_it_was(library, table):
    factors = np.array([0.1, 1.0, 10.0] * 3)
    rescaled = dataclasses.replace(
        library,
        total=library.total * factors[:, None],
        activity=tuple(one * factor for one, factor in zip(library.activity, factors, strict=True)),
    )
    other = run_bench(rescaled, truth="tuned", shots=4)
    assert [row.per_target for row in other.rows] == [pytest.approx(row.per_target, abs=1e-9) for row in table.rows]


def test_the_shipped_library_has_every_row():
    whole = default_library()
    table = run_bench(whole.select_tasks(whole.task_names[:3]), truth="tuned", shots=16)
    assert {row.ranking for row in table.rows} == {*RANKINGS}  # these tasks have one tuning run


def test_a_library_of_published_figures_has_the_blind_rows_only(library):
    none = np.full((9, 10, 0), np.nan)
    bare = dataclasses.replace(
        library,
        tuned_runs=none,
        run_names=(),
        run_sources=(),
        total=np.full((9, 10), np.nan),
        signal_names=(),
        signals=none,
        shots=(),
        evidence_names=(),
        evidence_draws=np.full((9, 10, 0, 0, 0), np.nan),
        activity=tuple(np.full((10, 0), np.nan) for _ in range(9)),
    )
    table = run_bench(bare, truth="zero_shot", shots=0)
    assert [row.ranking for row in table.rows] == ["random", "average_rank", "source_ceiling", "replicate_ceiling"]
    assert any("lacks their data" in note for note in table.notes)


def test_some_rankings_stand_beside_the_average_rank(library, table):
    some = run_bench(library, truth="tuned", shots=4, rankings=chosen("knn"))
    assert [row.ranking for row in some.rows] == [BASE, "knn", "replicate_ceiling"]
    assert some.row("knn").gain == table.row("knn").gain != 0.0
    assert some.row("knn").gain_interval == table.row("knn").gain_interval


def test_the_sink_hears_of_every_target(library):
    heard = []
    run_bench(library, truth="zero_shot", shots=0, rankings=chosen("random"), sink=heard.append)
    assert [one.done for one in heard if isinstance(one, StageProgress)] == list(range(1, 11))


def test_too_small_a_library_is_refused(library):
    with pytest.raises(LibraryError, match="needs 3 tasks"):
        run_bench(library.select_tasks(["t00", "t01"]))
