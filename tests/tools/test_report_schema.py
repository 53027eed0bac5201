"""The published schema is that of the records, and takes what is written."""

import json
import math
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from helpers.report_world import doubted, judged, make_report, make_trial, pictured
from tools import report_schema
from vlmsel_auto.reporting.report import to_json

SCHEMA = json.loads(report_schema.PATH.read_text("utf-8"))
CHECK = Draft202012Validator(SCHEMA)


def written(**changes):
    return json.loads(to_json(make_report(**changes)))


def test_the_file_is_up_to_date():
    assert report_schema.PATH.read_text("utf-8") == report_schema.schema_text(), "run python -m tools.report_schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_reports_are_valid():
    found = pictured(judged()[2], side=16)
    CHECK.validate(written(mistakes=found, label_issues=doubted(found)))
    nan = replace(make_trial(0, "a", validation=0.5), seconds=math.nan)
    CHECK.validate(written(trials=(nan,), best=None))


@pytest.mark.parametrize(
    ("name", "value"), [("trials", [{}]), ("stopped_by", "boredom"), ("seconds", "long"), ("schema", 2)]
)
def test_what_is_no_report_is_refused(name, value):
    assert not CHECK.is_valid({**written(), name: value})
