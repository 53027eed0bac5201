"""Plots: well-formed SVG for one, a few and very many candidates, with what they must show."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import pytest

from helpers.report_world import make_ranking, make_trial
from vlmsel_auto.reporting import plots
from vlmsel_auto.reporting.report import TunedCandidate
from vlmsel_auto.reporting.tradeoff import Tradeoff


def svg_of(draw):
    return lambda *values, **named: draw(*values, **named).svg()


accuracy_against_latency = svg_of(plots.accuracy_against_latency)
best_so_far = svg_of(plots.best_so_far)
predicted_ranking = svg_of(plots.predicted_ranking)
rank_scatter = svg_of(plots.rank_scatter)

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ET.fromstring(svg)  # noqa: S314 - our own output


def point(label, predicted, actual, *, origin="planned", validation=None, test=None):
    trial = make_trial(0, label, validation=validation, test=test, origin=origin)
    return TunedCandidate(
        candidate=label, predicted=None, predicted_rank=predicted, predicted_among_tuned=predicted, actual_rank=actual,
        accuracy=0.5, trial=trial,
    )  # fmt: skip


def points(count, *, test=True):
    origins = ("planned", "sampled", "floor")
    return [
        point(
            f"model-{number}",
            1 + (number * 7) % count,
            number + 1,
            origin=origins[number % 3],
            validation=0.9 - 0.5 * number / count,
            test=0.88 - 0.5 * number / count if test else None,
        )
        for number in range(count)
    ]


def times(values, *, seconds=10.0):
    return [replace(make_trial(i, f"m{i}", validation=value), seconds=seconds) for i, value in enumerate(values)]


def lines(labels, *, step=0.1):
    ranked = make_ranking(labels).ranked
    return [replace(line, score=1.0 - step * n, sd=0.3) for n, line in enumerate(ranked)]


def models(count):
    return [
        Tradeoff(
            name=f"model-{n}", method="probe", accuracy=0.5 + 0.4 * n / count, latency=1e-3 * (n + 1), params=None,
            memory=None, worth=0.5, on_front=n % 2 == 0,
        )
        for n in range(count)
    ]  # fmt: skip


def texts(svg):
    return [element.text for element in parse(svg).iter(f"{SVG}text")]


def drawn(count):
    labels = [f"model-{number}" for number in range(count)]
    ranks = points(count)
    return (
        rank_scatter(ranks),
        best_so_far(times([0.5 + 0.4 * math.sin(number) for number in range(count)])),
        predicted_ranking(lines(labels), tuned=labels[:3]),
        accuracy_against_latency(models(count)),
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
    for svg in (rank_scatter([]), best_so_far([]), predicted_ranking([], tuned=())):
        assert parse(svg).tag == f"{SVG}svg"


def test_few_candidates_are_all_labelled():
    found = texts(rank_scatter(points(6)))
    assert {f"model-{number}" for number in range(6)} <= set(found)
    assert {"planned", "sampled", "zero-shot"} <= set(found)


def test_labels_never_cover_each_other():
    crowd = [point(f"name-{n}", 1 + n % 2, 1 + n % 2) for n in range(12)]
    found = [text for text in texts(rank_scatter(crowd)) if text.startswith("name-")]
    assert 0 < len(found) < 12


def test_a_label_stands_beside_its_point():
    svg = rank_scatter([point("here", 1, 1), point("there", 4, 4)])
    root = parse(svg)
    at = {text.text: (float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text") if text.get("x")}
    marks = [(float(use.get("x")), float(use.get("y"))) for use in root.iter(f"{SVG}use") if use.get("x")]
    for label in ("here", "there"):
        assert min(math.dist(at[label], mark) for mark in marks) < 15
    assert math.dist(at["here"], at["there"]) > 50


def test_trials_without_a_value_are_left_out_of_the_time_plot():
    known = best_so_far(times([0.5, 0.7]))
    with_unknown = best_so_far([*times([0.5, 0.7]), *times([None])])
    assert known == with_unknown


@pytest.mark.parametrize(
    ("end", "unit"), [(100.0, "seconds since the search began"), (1000.0, "minutes since the search began")]
)
def test_time_axis_has_a_fitting_unit(end, unit):
    assert unit in texts(best_so_far(times([0.5], seconds=end)))


def test_names_are_escaped_and_never_mathematics():
    svg = rank_scatter([point("<a> & $\\frac{1}{2}$", 1, 1)])
    assert "<a> & $\\frac{1}{2}$" in texts(svg)


def test_long_names_keep_both_ends():
    label = "A" * 30 + "MIDDLE" + "B" * 30
    svg = predicted_ranking(lines([label]), tuned=[label])
    name = next(text for text in texts(svg) if "…" in text)
    assert name.startswith("AAA")
    assert name.endswith("BBB")
    assert len(name) <= 34


def test_colours_follow_the_page_and_ids_are_apart():
    first, second = rank_scatter(points(3)), best_so_far(times([0.1, 0.2]))
    assert "var(--ink, " in first
    assert "#010203" not in first
    assert not set(re.findall(r'\bid="([^"]+)"', first)) & set(re.findall(r'\bid="([^"]+)"', second))


def test_same_input_gives_the_same_bytes_and_global_style_is_untouched():
    before = dict(mpl.rcParams)
    assert rank_scatter(points(4)) == rank_scatter(points(4))
    assert dict(mpl.rcParams) == before


def test_the_end_of_the_budget_is_shown_where_it_does_not_squeeze_the_trials():
    trials = times([0.5, 0.7], seconds=30.0)
    assert "end of the budget" in texts(best_so_far(trials, before=5.0, budget_end=80.0))
    assert "end of the budget" not in texts(best_so_far(trials, before=5.0, budget_end=8000.0))
    assert "end of the budget" not in texts(best_so_far(trials))


def test_the_front_strikes_through_no_label():
    svg = accuracy_against_latency([replace(one, on_front=True) for one in models(5)])
    root = parse(svg)
    labels = {text.text: text for text in root.iter(f"{SVG}text") if text.text.startswith("model-")}
    blue = [use for use in root.iter(f"{SVG}use") if "#0072b2" in use.get("style", "")]
    _legend, *marks = sorted(((float(use.get("x")), float(use.get("y"))) for use in blue), key=lambda mark: mark[1])
    for label, (x, y) in zip(sorted(labels), sorted(marks), strict=True):
        left, base = float(labels[label].get("x")), float(labels[label].get("y"))
        assert (left < x and base < y) or (left > x and base > y + 6)
    assert svg.count("paint-order:stroke;stroke:var(--page, #ffffff)") == 5  # for other lines


def test_milliseconds_are_written_as_plain_numbers():
    models = [
        Tradeoff(name="a", method="probe", accuracy=0.8, latency=0.0004, params=1, memory=1, worth=0.8, on_front=True),
        Tradeoff(name="b", method="probe", accuracy=0.9, latency=0.0051, params=1, memory=1, worth=0.9, on_front=True),
    ]
    found = texts(svg_of(plots.accuracy_against_latency)(models))
    assert {"0.5", "1", "2", "5"} <= set(found)
    assert not any("$" in text for text in found)
