"""Plots: well-formed SVG for one, a few and very many candidates, with what they must show."""

import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from vlmsel_auto.records import TrialOrigin
from vlmsel_auto.reporting.plots import (
    RankPoint,
    TimePoint,
    best_so_far,
    predicted_ranking,
    rank_scatter,
    validation_against_test,
)

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ET.fromstring(svg)  # noqa: S314 - our own output


def points(count, *, test=True):
    origins = (TrialOrigin.PLANNED, TrialOrigin.SAMPLED, TrialOrigin.AUDIT)
    return [
        RankPoint(
            label=f"model-{number}",
            predicted=1 + (number * 7) % count,
            actual=number + 1,
            origin=origins[number % 3],
            validation=0.9 - 0.5 * number / count,
            test=0.88 - 0.5 * number / count if test else None,
        )
        for number in range(count)
    ]


def times(values):
    return [TimePoint(end=10.0 * (i + 1), validation=value) for i, value in enumerate(values)]


def texts(svg):
    return [element.text for element in parse(svg).iter(f"{SVG}text")]


def drawn(count):
    labels = [f"model-{number}" for number in range(count)]
    ranks = points(count)
    return (
        rank_scatter(ranks),
        validation_against_test(ranks),
        best_so_far(times([0.5 + 0.4 * math.sin(number) for number in range(count)])),
        predicted_ranking(labels, [1.0 - 0.1 * n for n in range(count)], [0.3] * count, [n < 3 for n in range(count)]),
    )


@pytest.mark.parametrize("count", [1, 2, 5, 20, 250])
def test_every_plot_is_well_formed_whatever_the_count(count):
    for svg in drawn(count):
        root = parse(svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.get("viewBox")
        assert "nan" not in svg.lower().replace("nanum", "")
        assert len(svg) < 400_000


def test_nothing_to_draw_gives_empty_axes():
    for svg in (rank_scatter([]), validation_against_test([]), best_so_far([]), predicted_ranking([], [], [], [])):
        assert parse(svg).tag == f"{SVG}svg"


def test_few_candidates_are_all_labelled():
    found = texts(rank_scatter(points(6)))
    assert {f"model-{number}" for number in range(6)} <= set(found)
    assert {"planned", "sampled", "audit"} <= set(found)


def test_labels_never_cover_each_other():
    crowd = [RankPoint(label=f"name-{n}", predicted=1 + n % 2, actual=1 + n % 2) for n in range(12)]
    found = [text for text in texts(rank_scatter(crowd)) if text.startswith("name-")]
    assert 0 < len(found) < 12


def test_a_label_stands_beside_its_point():
    svg = rank_scatter(
        [RankPoint(label="here", predicted=1, actual=1), RankPoint(label="there", predicted=4, actual=4)]
    )
    root = parse(svg)
    at = {text.text: (float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text") if text.get("x")}
    marks = [(float(use.get("x")), float(use.get("y"))) for use in root.iter(f"{SVG}use") if use.get("x")]
    for label in ("here", "there"):
        assert min(math.dist(at[label], mark) for mark in marks) < 15
    assert math.dist(at["here"], at["there"]) > 50


def test_trials_without_a_value_are_left_out_of_the_time_plot():
    known = best_so_far(times([0.5, 0.7]))
    with_unknown = best_so_far([*times([0.5, 0.7]), TimePoint(end=15.0, validation=None)])
    assert known == with_unknown


@pytest.mark.parametrize(("end", "unit"), [(100.0, "seconds of tuning"), (1000.0, "minutes of tuning")])
def test_time_axis_has_a_fitting_unit(end, unit):
    assert unit in texts(best_so_far([TimePoint(end=end, validation=0.5)]))


def test_names_are_escaped_and_never_mathematics():
    svg = rank_scatter([RankPoint(label="<a> & $\\frac{1}{2}$", predicted=1, actual=1)])
    assert "<a> & $\\frac{1}{2}$" in texts(svg)


def test_long_names_keep_both_ends():
    svg = predicted_ranking(["A" * 30 + "MIDDLE" + "B" * 30], [0.0], [1.0], [True])
    name = next(text for text in texts(svg) if "…" in text)
    assert name.startswith("AAA")
    assert name.endswith("BBB")
    assert len(name) <= 34


def test_colours_follow_the_page_and_ids_are_apart():
    first, second = rank_scatter(points(3)), best_so_far(times([0.1, 0.2]))
    assert "var(--ink, " in first
    assert "#010203" not in first
    assert not set(re.findall(r'\bid="([^"]+)"', first)) & set(re.findall(r'\bid="([^"]+)"', second))


def test_accuracy_ticks_stay_below_one():
    near = [RankPoint(label=str(n), predicted=n, actual=n, validation=1.0, test=0.99) for n in (1, 2)]
    shown = [float(text.rstrip(" %")) for text in texts(validation_against_test(near)) if text.endswith(" %")]
    assert shown
    assert max(shown) <= 100.0


def test_same_input_gives_the_same_bytes_and_global_style_is_untouched():
    before = dict(mpl.rcParams)
    assert rank_scatter(points(4)) == rank_scatter(points(4))
    assert dict(mpl.rcParams) == before
