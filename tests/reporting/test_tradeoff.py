from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.report_world import NAMES, make_report
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import EnsembleModel
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.panel import panel
from vlmsel_auto.reporting.tradeoff import tradeoffs

LATENCY = dict(zip(NAMES, (0.004, 0.010, 0.002, 0.001, 0.012), strict=False))


def report(**changes):
    plain = make_report(**changes)
    return replace(plain, candidates=tuple(replace(one, latency=LATENCY.get(one.id)) for one in plain.candidates))


def test_the_front_holds_whom_none_beats_in_both():
    found = tradeoffs(report())
    assert [each.name for each in found] == [NAMES[2], NAMES[0], NAMES[1], NAMES[4]]  # fastest first
    assert [each.on_front for each in found] == [True, True, True, False]
    assert found[1].latency == pytest.approx(0.004)


def test_a_model_of_unknown_latency_is_left_out_and_without_any_there_is_nothing():
    known = report()
    some = replace(known, candidates=tuple(one for one in known.candidates if one.id != NAMES[0]))
    assert NAMES[0] not in [each.name for each in tradeoffs(some)]
    assert tradeoffs(make_report()) == ()
    assert "What does accuracy cost?" not in html_page.html(make_report())


def test_a_pool_costs_the_passes_of_all_its_members():
    pool = EnsembleModel(
        members=(NAMES[0], NAMES[0], NAMES[1]), trials=(0, 3, 1), weights=(1.0, 0.5, 0.5), validation=0.96,
        validation_images=40, test=0.95, model_dir=Path("/out/ensemble"), params=3,
    )  # fmt: skip
    found = tradeoffs(report(ensemble=pool))
    (pooled,) = [each for each in found if each.method == "ensemble"]
    assert pooled.latency == pytest.approx(0.004 + 0.004 + 0.010)
    assert pooled.name == "pool of 3"
    assert pooled.on_front  # slowest, and the most accurate
    page = html_page.html(report(ensemble=pool))
    assert "What does accuracy cost?" in page
    assert "pool of 3" in page
    assert "18 ms" in page


def test_worth_is_what_the_objective_leaves():
    known = report(objective=Objective(latency=2))
    found = tradeoffs(known)
    assert [each.worth for each in found] == pytest.approx(
        [each.accuracy - 0.02 * np.log2(each.latency / 0.01) for each in found]
    )
    assert {each.memory for each in found} == {None}
    page = html_page.html(known)
    assert '<th class="n">worth</th>' in page
    assert "latency=2" in page
    assert '<th class="n">worth</th>' not in html_page.html(report())
    console = Console(width=120, record=True, file=StringIO())
    console.print(panel(known))
    assert "latency=2: worth" in console.export_text()


def test_equals_share_the_front():
    known = report()
    same = {NAMES[0]: 0.004, NAMES[1]: 0.004}
    trials = tuple(replace(trial, test=0.9, validation=0.9) for trial in known.trials if trial.spec.candidate in same)
    level = replace(
        known, trials=trials, candidates=tuple(replace(one, latency=same.get(one.id)) for one in known.candidates)
    )
    assert [each.on_front for each in tradeoffs(level)] == [True, True]
