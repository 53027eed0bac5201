"""Counts, bytes, times and shares: written for people, read from the command line."""

import math

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.records import Interval
from vlmsel_auto.units import (
    byte_count,
    milliseconds,
    parse_bytes,
    parse_count,
    parse_latency,
    percent,
    share_interval,
    thousands,
)


def test_amounts_as_people_write_them():
    assert [thousands(value) for value in (None, 830, 941_568, 999_990, 8.8e7, 4.4e9)] == [
        "-", "830", "942 k", "1.00 M", "88.0 M", "4.40 G",
    ]  # fmt: skip
    assert [byte_count(value) for value in (None, 0, 830, 605_109_252, 1.71e9)] == [
        "-", "0 B", "830 B", "605 MB", "1.71 GB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00042, "0.42 ms"), (0.0042, "4.2 ms"), (0.042, "42 ms"), (1.5, "1500 ms"), (None, "-"), (math.nan, "-")],
)
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_count, "150M", 150_000_000),
        (parse_count, "1.5b", 1_500_000_000),
        (parse_count, "20000", 20_000),
        (parse_bytes, "2GB", 2_000_000_000),
        (parse_bytes, "1.5 GiB", 1_610_612_736),
        (parse_bytes, "500M", 500_000_000),
        (parse_bytes, "512KiB", 524_288),
        (parse_bytes, "7", 7),
        (parse_latency, "40", 0.04),
        (parse_latency, "40ms", 0.04),
        (parse_latency, " .5 s ", 0.5),
    ],
)
def test_amounts_are_read(parse, text, value):
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize("parse", [parse_count, parse_bytes, parse_latency])
@pytest.mark.parametrize("text", ["", "x", "GB", "0", "-1", "1e3", "nan", "2 G B", "3parsecs", "1,5", "٣"])
def test_what_is_no_amount_is_refused(parse, text):
    with pytest.raises(InputError, match="but got"):
        parse(text)


def test_shares_are_per_cent():
    assert percent(0.934) == "93.4 %"
    assert percent(None) == "-"
    assert share_interval(Interval(low=0.1, high=0.25)) == "10.0 % to 25.0 %"
    assert share_interval(None) == "-"
